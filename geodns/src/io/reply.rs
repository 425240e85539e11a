//! A query that came over a connection, whichever: answered, counted and logged in the same way.

use std::cell::RefCell;
use std::net::SocketAddr;

use shared::io::clock;

use super::node::{Draws, Served};
use crate::answer::{Client, MAX_MESSAGE, Outcome, Transport, answer};
use crate::metrics::Batch;

/// A query that is longer is not one.
pub(super) const MAX_QUERY: usize = 4096;

thread_local! {
    /// Where answers are made before they are queued: one for all connections of a thread.
    static SCRATCH: RefCell<(Vec<u8>, Draws)> = RefCell::new((vec![0; MAX_MESSAGE], Draws::new()));
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// Where the client has connected to, when that is known.
    pub(super) server: Option<SocketAddr>,
}

/// Answers `packet` and gives the answer to `take`, unless there is none to give.
pub(super) fn reply(
    packet: &[u8],
    ends: Ends,
    transport: Transport,
    served: &Served,
    batch: &mut Batch,
    take: impl FnOnce(&[u8]),
) -> Outcome {
    SCRATCH.with_borrow_mut(|(scratch, draws)| {
        let client = Client { address: ends.client, transport, draw: draws.next() };
        let now = clock::now();
        let context = served.context(now);
        let outcome = answer(packet, &client, &context, &served.snapshot, scratch);
        served.stats.note(transport, &outcome, batch);
        served.log.write(&served.node, || packet, &client, &served.snapshot, &outcome);
        let response = scratch.get(..outcome.length()).unwrap_or_default();
        served.log.tap(&client, || ends.server, now, || packet, response);
        if matches!(outcome, Outcome::Respond { .. }) {
            take(response);
        }
        outcome
    })
}
