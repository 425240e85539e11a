//! HTTP caches side by side: the same requests in the same order through real servers, with the same memory and disk,
//! before the same origin.
//!
//! [`origin`] makes bodies that can be checked and counts what is fetched from it; [`client`] replays and checks;
//! [`peers`] writes each cache's configuration; [`table`] tells what came of it and holds it
//! against the goals, and against what the simulator says of our own.

pub mod body;
pub mod client;
pub mod origin;
pub mod peers;
pub mod table;
