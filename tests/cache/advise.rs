//! `edge-cache advise`: how large a cache should be, from a log and from a running node.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use harness::dice::Dice;
use harness::process::Program;
use serde_json::Value;

fn advise(trace: &Path, more: &[&str]) -> Output {
    let mut args = vec!["advise", "--trace", trace.to_str().unwrap()];
    args.extend(more);
    Program::EdgeCache.run(&args)
}

/// An hour of a request a second for one of so many objects of 10,000 bytes.
fn log(path: &Path, objects: usize) {
    let mut dice = Dice::new(1);
    let mut text = String::new();
    for second in 0..3600 {
        writeln!(
            text,
            "{{\"ts\":{},\"host\":\"www.cdn.test\",\"uri\":\"/{}\",\"status\":200,\"bytes\":10000}}",
            1_700_000_000 + second,
            dice.below(objects)
        )
        .unwrap();
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_log_says_how_large_the_cache_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("access.json");
    log(&trace, 100);
    let report = dir.path().join("report");
    let report = report.to_str().unwrap();
    let output = advise(&trace, &["--ttl", "10m", "--output", "json", "--report", report]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    // A request a second of 10,000 bytes, for 600 s.
    let sizing = &told["sizing"][0];
    assert!((number(&sizing["textbook"]) / 6e6 - 1.0).abs() < 0.01, "{sizing}");
    // Nearly all of the hundred objects are asked for in ten minutes.
    assert!((98.0..=100.0).contains(&number(&sizing["objects"])), "{sizing}");
    assert!((number(&sizing["unique"]) / number(&sizing["objects"]) - 10_000.0).abs() < 1.0);
    assert_eq!(sizing["spans"], 5, "3599 seconds hold five whole spans");
    // Each object is fetched about every ten minutes: a sixth of the requests.
    let most = number(&told["most"]);
    assert!((0.83..0.87).contains(&most), "{most}");
    let page = std::fs::read_to_string(dir.path().join("report/index.html")).unwrap();
    assert!(page.contains("BY HAND") && page.matches("<svg").count() == 2, "{page}");

    let output = advise(&trace, &["--want", "45", "--policy", "lru"]);
    let out = String::from_utf8(output.stdout).unwrap();
    // Of equal objects asked for at random, LRU hits as many as it holds: 45 % needs 45 objects of 10,840 bytes.
    let line = out.lines().find(|line| line.starts_with("45.00 % of the requests:"));
    let line = line.unwrap_or_else(|| panic!("{out}"));
    let kib: f64 = line.split_whitespace().nth(5).unwrap().parse().unwrap();
    assert!((420.0..540.0).contains(&kib), "{line}");
    for words in ["requests/s ×", "stored once", "times too much", "HIT RATIO BY SIZE"] {
        assert!(out.contains(words), "{words} in {out}");
    }
    let output = advise(&trace, &["--want", "101"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(advise(Path::new("/does/not/exist"), &[]).status.code(), Some(1));
}
