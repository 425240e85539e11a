//! All tests of the two programs from outside, in one binary: a folder per topic.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests live where clocks, files and threads are, and fail by panicking"
)]

mod cache;
mod config;
mod dns;
mod fleet;
mod model;
mod tidy;
