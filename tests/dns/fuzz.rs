//! The fuzz target on stable: the packets of its corpus, as real clients sent them, and what mutations make of them.

use std::path::Path;
use std::time::Instant;

use harness::dice::Dice;
use target::Target;

#[path = "../fuzz/src/target.rs"]
mod target;

const MUTANTS: usize = 40_000;
/// No packet takes longer, twenty times over, on the slowest machine that runs this.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(2);

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/answer");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 50, "{}", paths.len());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One to four changes of the kinds that parsers trip over.
fn mutate(packet: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    const NUMBERS: [u8; 8] = [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xfe, 0xff];
    for _ in 0..=dice.below(4) {
        let at = dice.below(packet.len().max(1));
        match dice.below(10) {
            0 if !packet.is_empty() => packet[at] ^= 1 << dice.below(8),
            1 if !packet.is_empty() => packet[at] = NUMBERS[dice.below(NUMBERS.len())],
            2 => packet.truncate(at),
            3 => packet.insert(at, dice.below(256) as u8),
            4 => drop(packet.drain(at..(at + dice.below(9)).min(packet.len()))),
            // The head of one and the tail of another.
            5 => {
                let other = &corpus[dice.below(corpus.len())];
                packet.truncate(at);
                packet.extend(&other[dice.below(other.len())..]);
            }
            // Counts of sections, and flags.
            6 if packet.len() >= 12 => packet[2 + dice.below(10)] = dice.below(3) as u8,
            // One more record: an OPT, or one that points somewhere.
            7 if packet.len() >= 12 => {
                packet[11] = packet[11].wrapping_add(1);
                let records: [&[u8]; 3] = [
                    b"\0\0\x29\x04\xd0\0\0\0\0\0\0",
                    b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04",
                    b"\xff\xff\0\xfa\0\xff\0\0\0\0\0\0",
                ];
                packet.extend(records[dice.below(records.len())]);
            }
            8 => add_option(packet, dice),
            _ => {
                let again = packet[at..].to_vec();
                packet.extend(again);
            }
        }
        packet.truncate(65_535);
    }
}

/// Appends an option to the OPT record at the end of the packet, if one is there, with the record's length right or
/// nearly so.
fn add_option(packet: &mut Vec<u8>, dice: &mut Dice) {
    const CODES: [u16; 9] = [3, 8, 10, 11, 12, 13, 15, 18, 65_001];
    let Some(opt) = packet.windows(3).rposition(|octets| octets == [0, 0, 41]) else { return };
    if opt + 11 > packet.len() {
        return;
    }
    let data: Vec<u8> = (0..dice.below(44)).map(|_| dice.below(256) as u8).collect();
    packet.extend(CODES[dice.below(CODES.len())].to_be_bytes());
    packet.extend((data.len() as u16).to_be_bytes());
    packet.extend(if dice.below(2) == 0 { vec![0; data.len()] } else { data });
    let length = packet.len() - opt - 11 + usize::from(dice.below(8) == 0);
    packet[opt + 9..opt + 11].copy_from_slice(&(length as u16).to_be_bytes());
}

#[test]
fn whatever_comes_is_answered_as_the_rfcs_say_or_not_at_all() {
    let (target, corpus) = (Target::new(), corpus());
    for packet in &corpus {
        target.check(packet);
    }
    for length in 0..=64 {
        target.check(&vec![0; length]);
    }
    let mut dice = Dice::new(0x5eed_0001);
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..MUTANTS {
        let mut packet = corpus[dice.below(corpus.len())].clone();
        mutate(&mut packet, &corpus, &mut dice);
        let begun = Instant::now();
        target.check(&packet);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < LONGEST, "{slowest:?}");
}

/// As many records, options and labels as 64 KiB hold cost no more than reading them once.
#[test]
fn the_largest_packets_cost_a_bounded_time() {
    let target = Target::new();
    let question = b"\x03www\x03cdn\x04test\0\0\x01\0\x01";
    let head = |counts: [u16; 4]| {
        let counts = counts.iter().flat_map(|count| count.to_be_bytes());
        [0x12, 0x34, 0, 0].into_iter().chain(counts).chain(*question).collect::<Vec<u8>>()
    };
    let full = |mut packet: Vec<u8>, part: &[u8]| {
        while packet.len() + part.len() <= 65_535 {
            packet.extend(part);
        }
        packet
    };
    let records = full(head([1, 5500, 0, 0]), b"\0\0\x01\0\x01\0\0\0\0\0\0");
    let pointers = full(head([1, 0, 5000, 0]), b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\0");
    let opt = [head([1, 0, 0, 1]), b"\0\0\x29\x04\xd0\0\0\0\0\xff\xd8".to_vec()].concat();
    let mut options = full(opt.clone(), b"\xfd\xe9\0\0");
    let length = (options.len() - opt.len()) as u16;
    options[opt.len() - 2..opt.len()].copy_from_slice(&length.to_be_bytes());
    for (what, packet) in [
        ("records", records),
        ("pointers", pointers),
        ("options", options),
        ("labels", full(head([1, 0, 0, 0])[..12].to_vec(), b"\x01a")),
    ] {
        let begun = Instant::now();
        target.check(&packet);
        assert!(begun.elapsed() < LONGEST, "{what}: {:?}", begun.elapsed());
    }
}
