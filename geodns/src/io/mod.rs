//! The only part of this crate that touches sockets, files, clocks, threads, tasks and randomness.
#![expect(clippy::disallowed_methods, reason = "io is where clocks, files and tasks live")]

pub mod admin;
pub mod certificate;
mod connections;
mod console;
mod dnstap;
mod encrypted;
mod https;
mod huge;
pub mod identity;
pub mod load;
mod node;
mod probe;
mod query_log;
mod quic;
mod reply;
pub mod serve;
mod state_file;
pub mod status;
mod tcp;
mod tls;
mod udp;
pub mod whatif;

#[cfg(test)]
mod allocations;
#[cfg(test)]
mod tests;
