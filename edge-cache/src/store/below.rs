//! What stands under the memory tier, as far as the store must know: where it changes what is stored, the disks change.
//!
//! The store says what is not to be found any more and what has become of a head. What is written, and when, and how it
//! comes back, is decided where files are read and written.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::object::{Object, ObjectKey};
use super::variants::Variants;

/// The disks, as the store sees them. None of the calls waits for a disk.
pub trait Below: Debug + Send + Sync {
    /// Whether a record lies there, as far as can be told without reading.
    fn contains(&self, place: ObjectKey) -> bool;
    /// What lies there, or is on its way there, is not found any more, after a restart neither.
    fn remove(&self, place: ObjectKey);
    /// What lies there was asked for where memory has it: it is to stay.
    fn touch(&self, place: ObjectKey);
    /// The object that lies there has this head from now on, and the same body.
    fn update(&self, object: &Object);
    /// This is what is stored in its place, and has been stored or asked for just now: written, with the record of its
    /// key's variants where it has some, if the disks want it. `body` gives all of its body, if memory has it.
    fn offer(&self, object: &Object, variants: Option<&Variants>, body: Body<'_>);
    /// The variants of the key are these from now on.
    fn write_variants(&self, place: ObjectKey, variants: &Variants);
}

/// What gives the whole body of an object.
pub type Body<'a> = &'a dyn Fn() -> Option<Vec<Bytes>>;

/// Whether an object is on disk, and how often it has been asked for while it was not: one byte beside the object. A copy
/// begins where the original is.
#[derive(Debug, Default)]
pub struct Asked(AtomicU8);

/// It is on disk.
const SETTLED: u8 = 1 << 7;
/// So many of its requests in memory make one that its disk is told of: what is asked for stays there.
const TOLD: u8 = 16;

impl Asked {
    /// Of what came from a disk.
    pub const fn settled() -> Self {
        Self(AtomicU8::new(SETTLED))
    }

    /// It is asked for once more. Whether the disks are to be told: of one that is on none, at every request that is a power
    /// of two, so that what they refuse costs its later requests nothing; of another one now and then.
    pub fn is_due(&self) -> bool {
        let before = self.0.load(Ordering::Relaxed);
        let (settled, asked) = (before & SETTLED, before & !SETTLED);
        // One of two requests at once may be lost: nothing depends on the count.
        let now = if asked + 1 == SETTLED { SETTLED / 2 } else { asked + 1 };
        self.0.store(settled | now, Ordering::Relaxed);
        match settled {
            0 => now.is_power_of_two(),
            _ => now % TOLD == 1,
        }
    }

    /// It is on its way to a disk.
    pub fn settle(&self) {
        self.0.store(SETTLED, Ordering::Relaxed);
    }

    /// It is on none: it begins anew.
    pub fn unsettle(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether it is on a disk, as far as is known.
    pub fn is_settled(&self) -> bool {
        self.0.load(Ordering::Relaxed) & SETTLED != 0
    }
}

impl Clone for Asked {
    fn clone(&self) -> Self {
        Self(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

/// Keys take turns: what changes what is stored under a key, and what brings something back from a disk, exclude each
/// other; and who has waited for a disk can tell whether something has changed since.
#[derive(Debug)]
pub(super) struct Turns(Box<[Mutex<u64>]>);

/// Keys that share a turn are few beside those that change within the time of a read.
const TURNS: usize = 4096;

impl Turns {
    pub(super) fn new() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }

    /// The turn of a key: how often something has changed under it, or under a key that shares its turn.
    pub(super) fn of(&self, key: u128) -> MutexGuard<'_, u64> {
        let at = key as usize % TURNS;
        // A panic elsewhere leaves a number.
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_are_asked_ever_more_seldom() {
        let asked = Asked::default();
        let due: Vec<_> = (1..=300).filter(|_| asked.is_due()).collect();
        assert_eq!(due[..8], [1, 2, 4, 8, 16, 32, 64, 128]);
        assert!(due.len() < 12, "{due:?}");
        asked.settle();
        assert!(asked.is_settled() && asked.clone().is_settled());
        let told = (0..1600).filter(|_| asked.is_due()).count();
        assert!((80..130).contains(&told) && asked.is_settled(), "{told}");
    }
}
