//! The only part of this crate that touches sockets, clocks, files, tasks and randomness.
//!
//! * [`gate`]: a client connection's bytes, before hyper sees them: framing checks and time-outs.
//!   [`http2`] serves those that speak it, [`interim`] is what comes before a response.
//! * [`listen`]: worker threads, listeners, TLS, draining.
//! * [`serve`]: the life of a request, whose content is a [`request_body`]; [`rules`]: what its route asks of it before the
//!   cache; [`respond`] makes responses, [`body`] is what they are made of; [`explain`] tells what would be done, without
//!   doing it. [`purge`] takes purges, also those that come as requests, and
//!   [`purge_log`] keeps them over restarts, what it cannot keep in time puts the disks in [`doubt`]; `select` puts one language or query for another
//!   that is the same to what is stored; `join` waits for a fetch, `pass` is for what the store has no part in, `tunnel`
//!   for what becomes another protocol.
//! * [`fill_task`]: the task that owns a fetch into the store, among those of [`fills`]; [`part`] what is asked for in
//!   parts, `ranged` how those answer, [`spill`] what is stored before a body's end, `pull` where a client finds it; [`fetch`]
//!   asks parents and origins for it, over the connections of [`pool`] (opened by [`connect`], those of HTTP/2 shared as
//!   `streams` says and used as `streams_exchange` does), signed by [`signer`] where it is a bucket, past a [`server`] that [`health`] knows to be down.
//!   [`ask`] is one such request, [`upstream_body`] the content that comes; [`fenced`] asks on where a purge has made an
//!   answer too old, `fill_head` tells those who wait, `head_update` is what HEAD tells of what is stored.
//! * [`limit`] keeps all of it to the process's memory, [`backlog`] is what a slow client has not taken.
//! * [`encoder`]: encodings of stored objects, made beside all this.
//! * [`disk`]: the disks of the node; [`under`] is how the store stands on them, [`bring`] what comes back for a request.
//! * [`node`]: what all workers share, and the reload of it; [`admin`]: the operator's side; [`telemetry`]: metrics, log.
//! * [`predict`]: what the node says of itself, to whom predicts what it would do otherwise.
//! * [`trace`]: access logs, read; [`replay`] asks a node for what is in them.
#![expect(clippy::disallowed_methods, reason = "io is where clocks, files and tasks live")]

pub mod admin;
#[cfg(test)]
mod allocations;
pub mod ask;
pub mod backlog;
pub mod body;
pub mod bring;
pub mod connect;
pub mod disk;
pub mod doubt;
pub mod encoder;
pub mod explain;
pub mod fenced;
pub mod fetch;
mod fill_head;
pub mod fill_task;
pub mod fills;
pub mod gate;
mod head_update;
pub mod health;
pub mod http2;
mod http2_content;
pub mod interim;
mod join;
pub mod limit;
pub mod listen;
pub mod node;
pub mod part;
mod pass;
pub mod pool;
pub mod predict;
mod pull;
pub mod purge;
pub mod purge_log;
mod ranged;
pub mod replay;
pub mod request_body;
pub mod respond;
pub mod rules;
mod select;
pub mod serve;
pub mod server;
pub mod signer;
pub mod spill;
mod streams;
mod streams_exchange;
pub mod telemetry;
#[cfg(test)]
mod tests;
pub mod trace;
mod tunnel;
pub mod under;
pub mod upstream_body;
