//! What the benchmarks stand on: request streams that are the same on every run, cache policies to compare with, and
//! the store of the cache node behind the same interface.
//!
//! A stream ([`trace`]) is replayed against policies ([`policy`]); [`replay`] counts hits, [`report`] prints them.

pub mod compare;
pub mod dns;
pub mod policy;
pub mod random;
pub mod replay;
pub mod report;
pub mod stored;
pub mod trace;
