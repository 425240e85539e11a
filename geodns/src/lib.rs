//! `geodns`: an authoritative DNS server that sends every client to the nearest healthy datacenter.
//!
//! ```text
//!  packet ─► wire, edns ─► answer ─► zone        names, records, delegations, SOA
//!            (parse)         │
//!                            └─────► steer ─► map      client network → ordered datacenters, scope
//!                                      ├────► health   which of them are up, and their records
//!                                      └────► pick     which edges of the one chosen
//!  packet ◄─ wire, edns ◄────┘  with a Reason for log, metrics and explain
//! ```
//!
//! A query is answered by [`answer::answer`]: bytes in, bytes out, no waiting, nothing on the heap, reading one
//! immutable [`snapshot::Snapshot`]. A reload ([`config`], [`io::load`]) compiles new tables beside the old ones; the
//! results of probes ([`monitor`]) make a new view of [`health`], and neither holds up a query. [`explain`] runs the same
//! decision and keeps what it saw; [`whatif`] runs it for many clients, before and after a change.
//!
//! Only [`io`] (and the commands in [`cmd`]) touches sockets, files, clocks, threads and randomness; everything else is
//! plain functions over values. hickory-proto is used where we talk to people about what we wrote ([`present`]), to
//! verify `\#` RDATA, and as the other side of our tests, never to serve.

pub mod answer;
pub mod certificate;
pub mod cmd;
pub mod config;
pub mod cookie;
pub mod dnstap;
pub mod doh;
pub mod doq;
pub mod edns;
pub mod explain;
pub mod health;
pub mod intake;
pub mod io;
pub mod map;
pub mod metrics;
pub mod monitor;
pub mod name;
pub mod pick;
pub mod present;
pub mod ramp;
pub mod reason;
pub mod rrl;
pub mod rtype;
pub mod service;
pub mod snapshot;
pub mod state;
pub mod steer;
#[cfg(test)]
mod testing;
pub mod whatif;
pub mod wire;
pub mod world;
pub mod zone;
