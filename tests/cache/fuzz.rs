//! The fuzz targets of what stands before the cache, on stable: their corpora, mutants, and the longest inputs.

use std::time::Instant;

use harness::mutants::{LONGEST, corpus, drive, mutate};
use targets::{TARGETS, Target};

#[path = "../fuzz/src/http.rs"]
mod targets;

const MUTANTS: usize = 12_000;

#[track_caller]
fn target(name: &str) {
    let Target { words, .. } = TARGETS.iter().find(|target| target.name == name).unwrap();
    let check = |input: &[u8]| targets::target(name, input);
    let inputs = corpus(name);
    assert!(inputs.len() >= 10, "{name}: {} inputs", inputs.len());
    drive(&inputs, MUTANTS, 0x5eed_0002, check, |input, inputs, dice| {
        mutate(input, inputs, words, dice);
    });
    // As many of each input and of each word as 64 KiB hold cost no more than reading them once.
    for input in inputs.iter().map(Vec::as_slice).chain(words.iter().copied()) {
        let many = input.repeat(65_535 / input.len().max(1));
        let begun = Instant::now();
        check(&many);
        assert!(begun.elapsed() < LONGEST, "{name}, many {}", input.escape_ascii());
    }
}

#[test]
fn fuzz_cache_control() {
    target("cache_control");
}

#[test]
fn fuzz_vary() {
    target("vary");
}

#[test]
fn fuzz_range() {
    target("range");
}

#[test]
fn fuzz_dates() {
    target("dates");
}

#[test]
fn fuzz_structured() {
    target("structured");
}

#[test]
fn fuzz_url() {
    target("url");
}

#[test]
fn fuzz_framing() {
    target("framing");
}

#[test]
fn every_target_is_run_and_can_be_fuzzed() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    let own = include_str!("fuzz.rs");
    for Target { name, .. } in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(own.contains(&format!("fn fuzz_{name}()")), "{name}");
    }
}
