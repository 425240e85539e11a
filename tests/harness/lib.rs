//! What the tests stand on: scripted peers, clients that show the wire, real processes, counters.
//!
//! * [`origin`] is an origin server of which every byte, pause and cut is written down by the test.
//! * [`streams`] is one that speaks HTTP/2.
//! * [`wire`] speaks HTTP/1.1 in bytes and shows whether a message ended well or was cut; [`secure`] does TLS and HTTP/2, of
//!   which [`http2`] shows the parts: interim responses, trailers, how a stream ended.
//! * [`dns`] asks over UDP and TCP, with queries made by hand and answers read by hickory-proto.
//! * [`encrypted`] asks over TLS, HTTPS and QUIC.
//! * [`plan`] writes a configuration, [`fleet`] runs the real programs on it.
//! * [`dice`] is chance that is the same on every run.
//! * [`mutants`] runs fuzz targets on stable.
//! * [`counters`] asserts which metrics moved, and that no other of the same family did.
//!
//! Nothing here sleeps for a fixed time: [`wait`] polls a condition against a deadline, [`origin::Gate`] holds a peer
//! until the test lets it go. The harness panics with what it saw: it has no other user than tests.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests live where clocks, files and threads are, and fail by panicking"
)]

pub mod clock;
pub mod counters;
pub mod dice;
pub mod dns;
pub mod encrypted;
pub mod faults;
pub mod fleet;
pub mod http2;
pub mod mutants;
pub mod origin;
pub mod plan;
mod preload;
pub mod process;
pub mod secure;
pub mod streams;
pub mod wait;
pub mod wire;
