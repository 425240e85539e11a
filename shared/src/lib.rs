//! What `geodns` and `edge-cache` must compute alike, or run alike. Nothing that only one of them uses lives here.
//!
//! Everything outside [`io`] is plain functions over values: no socket, file, task or clock.

pub mod config;
pub mod geo;
pub mod health;
pub mod io;
pub mod metrics;
pub mod prefix;
pub mod report;
pub mod size;
pub mod time;
