//! The only part of this crate that touches sockets, files, clocks, tasks and the environment.
#![expect(clippy::disallowed_methods, reason = "io is where clocks, files and tasks live")]

pub mod admin;
pub mod clock;
pub mod command;
pub mod files;
pub mod log;
pub mod probe;
pub mod run;
pub mod sockets;
pub mod tls;
