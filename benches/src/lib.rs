//! What the benchmarks stand on: request streams that are the same on every run, and cache policies to compare.
//!
//! A stream ([`cdn`]) is replayed against policies ([`contest`]); [`replay`] counts hits, [`report`] prints them.

pub mod cdn;
pub mod compare;
pub mod contest;
pub mod dns;
pub mod policy;
pub mod random;
pub mod replay;
pub mod report;
pub mod stored;
pub mod trace;
