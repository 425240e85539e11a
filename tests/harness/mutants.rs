//! Fuzz targets on stable: the inputs of a corpus in `tests/fuzz/corpus`, and what seeded mutations make of them.
//!
//! libFuzzer finds more in a night; this finds in seconds, in every test run, what a change has just broken. An input that
//! a target does not survive is printed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::dice::Dice;

/// No input takes longer, twenty times over, on the slowest machine that runs this.
pub const LONGEST: Duration = Duration::from_secs(2);
/// No mutant is longer.
const MOST_BYTES: usize = 65_535;

/// The inputs of a target, in the order of their names.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One change of the kinds that parsers trip over: bits, ends, pieces missing, doubled or of another input, and these words.
pub fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]], dice: &mut Dice) {
    const NUMBERS: [u8; 8] = [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xfe, 0xff];
    let at = dice.below(input.len().max(1)).min(input.len());
    match dice.below(8) {
        0 if !input.is_empty() => input[at] ^= 1 << dice.below(8),
        1 if !input.is_empty() => input[at] = NUMBERS[dice.below(NUMBERS.len())],
        2 => input.truncate(at),
        3 => input.insert(at, dice.below(256) as u8),
        4 => drop(input.drain(at..(at + dice.below(9)).min(input.len()))),
        // The head of one and the tail of another.
        5 => {
            let other = &corpus[dice.below(corpus.len())];
            input.truncate(at);
            input.extend(&other[dice.below(other.len().max(1)).min(other.len())..]);
        }
        6 if !words.is_empty() => {
            drop(input.splice(at..at, words[dice.below(words.len())].iter().copied()));
        }
        _ => {
            let again = input[at..].to_vec();
            input.extend(again);
        }
    }
    input.truncate(MOST_BYTES);
}

/// Gives a target its corpus, and so many mutants of it; none may take longer than [`LONGEST`].
#[track_caller]
pub fn drive(
    corpus: &[Vec<u8>],
    mutants: usize,
    seed: u64,
    check: impl Fn(&[u8]),
    mutate: impl Fn(&mut Vec<u8>, &[Vec<u8>], &mut Dice),
) {
    let mut slowest = (Duration::ZERO, Vec::new());
    let mut give = |input: &[u8]| {
        let begun = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            eprintln!("the input: {}", input.escape_ascii());
            resume_unwind(panic);
        }
        let taken = begun.elapsed();
        if taken > slowest.0 {
            slowest = (taken, input.to_vec());
        }
    };
    corpus.iter().for_each(|input| give(input));
    let mut dice = Dice::new(seed);
    for _ in 0..mutants {
        let mut input = corpus[dice.below(corpus.len())].clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut input, corpus, &mut dice);
        }
        give(&input);
    }
    assert!(slowest.0 < LONGEST, "{:?} for {}", slowest.0, slowest.1.escape_ascii());
}
