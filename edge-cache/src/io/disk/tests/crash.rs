//! Whatever is done, and wherever it ends: what is found afterwards is something that was written for that place, and not
//! older than what was known to be on the disk.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::memory::{MemoryDevice, over};
use super::*;

const PLACES: u64 = 24;

#[derive(Clone, Debug)]
enum Do {
    Write {
        place: u64,
        length: usize,
    },
    Update {
        place: u64,
    },
    Remove {
        place: u64,
    },
    Read {
        place: u64,
    },
    Flush,
    /// Stop cleanly, start again.
    Restart,
}

fn things() -> impl Strategy<Value = Do> {
    let place = 0..PLACES;
    let length = prop_oneof![3 => 0..3000usize, 2 => 3000..30_000usize, 1 => 60_000..64_000usize];
    prop_oneof![
        8 => (place.clone(), length).prop_map(|(place, length)| Do::Write { place, length }),
        2 => place.clone().prop_map(|place| Do::Update { place }),
        3 => place.clone().prop_map(|place| Do::Remove { place }),
        4 => place.prop_map(|place| Do::Read { place }),
        2 => Just(Do::Flush),
        1 => Just(Do::Restart),
    ]
}

/// A state of a place: which write made it, and which update, or nothing.
type Version = Option<(u64, u64)>;

/// What may be found at each place: the state that is known to have come to stay, and all that came after it.
#[derive(Debug, Default)]
struct Known {
    places: HashMap<u64, Vec<(Version, usize)>>,
    next: u64,
}

impl Known {
    fn push(&mut self, place: u64, version: Version, length: usize) {
        self.places.entry(place).or_insert_with(|| vec![(None, 0)]).push((version, length));
    }

    fn last(&self, place: u64) -> (Version, usize) {
        self.places.get(&place).and_then(|all| all.last().copied()).unwrap_or((None, 0))
    }

    /// All that was handed over has come to stay.
    fn settle(&mut self) {
        for all in self.places.values_mut() {
            all.drain(..all.len() - 1);
        }
    }

    fn check(&self, place: u64, record: Option<&Record>) -> Result<(), TestCaseError> {
        // A cache may always have lost something.
        let Some(record) = record else { return Ok(()) };
        let states = self.places.get(&place).map_or(&[][..], Vec::as_slice);
        let same = states.iter().any(|(version, length)| {
            version.is_some_and(|(write, update)| {
                record.meta == meta(write, update) && record.body == body(write, *length)
            })
        });
        prop_assert!(
            same,
            "place {place} has {:?}, {} bytes; it may have {states:?}",
            record.meta,
            record.body.len()
        );
        Ok(())
    }
}

fn meta(write: u64, update: u64) -> Bytes {
    Bytes::from(format!("write {write} update {update}"))
}

async fn act(
    disks: Disks,
    known: &mut Known,
    device: &Arc<MemoryDevice>,
    things: &[Do],
) -> Result<Disks, TestCaseError> {
    let mut disks = disks;
    for thing in things {
        if device.has_ended() {
            break;
        }
        known.next += 1;
        let n = known.next;
        match *thing {
            Do::Write { place: key, length } => {
                let taken =
                    disks.write(place(key), Kind::Object, meta(n, 0), vec![body(n, length)]);
                known.push(key, taken.then_some((n, 0)), length);
            }
            Do::Update { place: key } => {
                if let (Some((write, _)), length) = known.last(key)
                    && disks.update(place(key), Kind::Object, meta(write, n))
                {
                    known.push(key, Some((write, n)), length);
                }
            }
            Do::Remove { place: key } => {
                disks.remove(place(key));
                prop_assert!(!disks.contains(place(key)));
                known.push(key, None, 0);
            }
            Do::Read { place: key } => {
                // What is on its way is not found yet: nothing is, or the last that was written.
                let record = disks.read(place(key)).await;
                let (last, _) = known.last(key);
                prop_assert!(record.is_none() || last.is_some(), "{key} was removed");
                known.check(key, record.as_ref())?;
            }
            Do::Flush => {
                let flushed = disks.flush().await;
                if flushed && !device.has_ended() {
                    known.settle();
                    for key in 0..PLACES {
                        let record = disks.read(place(key)).await;
                        known.check(key, record.as_ref())?;
                    }
                }
            }
            Do::Restart => {
                disks.close().await;
                disks.stop();
                if !device.has_ended() {
                    known.settle();
                }
                disks = over(&[device], 64 << 10);
                let start = disks.stats()[0].start.map(|(start, _)| start);
                prop_assert!(device.has_ended() || start == Some(Start::Copy), "{start:?}");
            }
        }
    }
    Ok(disks)
}

fn run(
    first: &[Do],
    second: &[Do],
    ends_after: u64,
    power: Option<u64>,
) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let device = MemoryDevice::new(1 << 20);
        let mut known = Known::default();
        let disks = over(&[&device], 64 << 10);
        device.end_after(ends_after);
        let disks = act(disks, &mut known, &device, first).await?;
        disks.stop();
        let image = match power {
            None => device.image(),
            Some(seed) => {
                let mut state = seed | 1;
                device.image_without_power(|| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    state >> 62 != 0
                })
            }
        };
        let device = MemoryDevice::with(image);
        let disks = over(&[&device], 64 << 10);
        let stats = &disks.stats()[0];
        prop_assert!(
            matches!(stats.start, Some((Start::Segments | Start::Copy | Start::Empty(_), _))),
            "{stats:?}"
        );
        for key in 0..PLACES {
            let record = disks.read(place(key)).await;
            known.check(key, record.as_ref())?;
            // What has been found is how things are: it does not change back.
            let found = record.and_then(|record| {
                let states = known.places.get(&key)?;
                states.iter().copied().find(|(version, _)| {
                    version.is_some_and(|(write, update)| record.meta == meta(write, update))
                })
            });
            known.places.insert(key, vec![found.unwrap_or((None, 0))]);
        }
        let disks = act(disks, &mut known, &device, second).await?;
        prop_assert!(disks.flush().await);
        known.settle();
        for key in 0..PLACES {
            let record = disks.read(place(key)).await;
            known.check(key, record.as_ref())?;
        }
        disks.stop();
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_leaves_what_was_written(
        first in prop::collection::vec(things(), 1..250),
        second in prop::collection::vec(things(), 0..60),
        ends_after in 0u64..400,
    ) {
        run(&first, &second, ends_after, None)?;
    }

    #[test]
    fn a_loss_of_power_leaves_what_was_flushed_or_nothing(
        first in prop::collection::vec(things(), 1..250),
        second in prop::collection::vec(things(), 0..60),
        ends_after in 0u64..400,
        seed: u64,
    ) {
        run(&first, &second, ends_after, Some(seed))?;
    }
}

/// Nothing that was flushed is lost by a crash, as long as there is room.
#[tokio::test]
async fn what_was_flushed_is_there_after_a_crash() {
    let device = MemoryDevice::new(4 << 20);
    let disks = over(&[&device], 64 << 10);
    for n in 0..60 {
        assert!(disks.write(place(n), Kind::Object, meta(n, 0), vec![body(n, 20_000)]));
    }
    disks.update(place(5), Kind::Object, meta(5, 1));
    disks.remove(place(6));
    assert!(disks.flush().await);
    for n in 60..70 {
        disks.write(place(n), Kind::Object, meta(n, 0), vec![body(n, 20_000)]);
    }
    disks.stop();
    for image in [device.image(), device.image_without_power(|| false)] {
        let device = MemoryDevice::with(image);
        let disks = over(&[&device], 64 << 10);
        for n in 0..60 {
            let record = disks.read(place(n)).await;
            match n {
                6 => assert_eq!(record, None),
                _ => assert_eq!(record.unwrap().meta, meta(n, u64::from(n == 5))),
            }
        }
        disks.stop();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// One byte, or a few, anywhere: while running, at a start after a crash, at one after a clean stop.
    #[test]
    fn flipped_bytes_are_never_served(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 1..8),
        used in any::<bool>(),
        clean in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let device = MemoryDevice::new(1 << 20);
            let disks = over(&[&device], 64 << 10);
            let mut known = Known::default();
            for n in 0..PLACES * 2 {
                let key = n % PLACES;
                disks.write(place(key), Kind::Object, meta(n, 0), vec![body(n, 9000)]);
                known.push(key, Some((n, 0)), 9000);
            }
            disks.update(place(3), Kind::Object, meta(PLACES + 3, 77));
            known.push(3, Some((PLACES + 3, 77)), 9000);
            disks.remove(place(4));
            known.push(4, None, 0);
            prop_assert!(disks.flush().await);
            // One byte cannot undo anything after a clean stop. Otherwise it may have hit a tombstone that nothing vouches for:
            // then what was there before comes back, but nothing else.
            if clean && flips.len() == 1 {
                known.settle();
            }
            if clean {
                disks.close().await;
            }
            disks.stop();
            let mut image = device.image();
            for (at, flip) in flips {
                // Where something lies, or anywhere.
                let length = if used { 500_000 } else { image.len() };
                image[at.index(length)] ^= flip;
            }
            let device = MemoryDevice::with(image);
            let disks = over(&[&device], 64 << 10);
            for _ in 0..2 {
                for key in 0..PLACES {
                    let record = disks.read(place(key)).await;
                    known.check(key, record.as_ref())?;
                }
            }
            for n in 1000..1050 {
                disks.write(place(n), Kind::Object, meta(n, 0), vec![body(n, 50_000)]);
            }
            prop_assert!(disks.flush().await);
            disks.stop();
            Ok(())
        })?;
    }
}
