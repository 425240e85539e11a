//! The fuzz target on stable: the packets of its corpus, as real clients sent them, and what mutations make of them.

use std::time::Instant;

use harness::dice::Dice;
use harness::mutants::{LONGEST, corpus, drive, mutate};
use target::Target;

#[path = "../fuzz/src/target.rs"]
mod target;

const MUTANTS: usize = 40_000;

/// A change of the kinds that parsers of packets trip over.
fn change(packet: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    match dice.below(10) {
        // Counts of sections, and flags.
        0 if packet.len() >= 12 => packet[2 + dice.below(10)] = dice.below(3) as u8,
        // One more record: an OPT, or one that points somewhere.
        1 if packet.len() >= 12 => {
            packet[11] = packet[11].wrapping_add(1);
            let records: [&[u8]; 3] = [
                b"\0\0\x29\x04\xd0\0\0\0\0\0\0",
                b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04",
                b"\xff\xff\0\xfa\0\xff\0\0\0\0\0\0",
            ];
            packet.extend(records[dice.below(records.len())]);
        }
        2 => add_option(packet, dice),
        _ => mutate(packet, corpus, &[], dice),
    }
    packet.truncate(65_535);
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
    let (target, mut packets) = (Target::new(), corpus("answer"));
    assert!(packets.len() >= 50, "{}", packets.len());
    packets.extend((0..=64).map(|length| vec![0; length]));
    drive(&packets, MUTANTS, 0x5eed_0001, |packet| target.check(packet), change);
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
