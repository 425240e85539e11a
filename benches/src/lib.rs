//! What the benchmarks stand on: request streams that are the same on every run, and cache policies to compare.
//!
//! A stream ([`cdn`]) or a user's log ([`trace`]) is replayed against policies ([`contest`]), on a node with a disk, or
//! through edges and parents ([`tiers`]); [`replay`] counts hits, [`report`] prints them, [`figures`] holds
//! them against the goals and against what they were.

pub mod cdn;
pub mod compare;
pub mod contest;
pub mod dns;
pub mod figures;
pub mod http;
pub mod meter;
pub mod policy;
pub mod process;
pub mod random;
pub mod replay;
pub mod report;
pub mod stored;
pub mod tiers;
pub mod trace;
