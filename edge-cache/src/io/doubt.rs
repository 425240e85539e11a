//! What an unsafe method makes invalid (RFC 9111 §4.4) is durable before its response is passed on, so that no end of the
//! process brings it back from a disk. Those that come meanwhile share what makes them durable; where nothing outlasts the
//! node there is nothing to wait for.
//!
//! **A log of purges that fails, or takes too long, stops no client.** The invalidation is in force, and the *disks are in
//! doubt*: their superblocks say so before the response goes, and a node that finds them so begins with empty disks. While
//! they are, nobody waits for the log. When all is written down after all, they are cleared, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::node::Node;
use super::purge_log::PurgeLog;

/// How long a client waits for its invalidation to be durable, and for the disks to be marked where it is not.
const BOUND: Duration = Duration::from_secs(1);
/// Between two attempts to have all written down.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an ending node waits for its last purges to be durable.
const LAST_PURGES: Duration = Duration::from_secs(2);

/// Whether invalidations are in force that are not written down.
#[derive(Debug, Default)]
pub struct Doubt {
    is_marked: AtomicBool,
    /// Held by who changes it.
    turn: tokio::sync::Mutex<()>,
}

/// Waits until this entry of the log is durable, or the disks are in doubt.
pub(super) async fn settled(node: &Arc<Node>, log: &PurgeLog, entry: u64) {
    let doubt = &node.doubt;
    // Who clears them looks at the log after it has said so here: it finds this entry.
    if doubt.is_marked.load(Ordering::SeqCst) {
        node.telemetry.invalidations_not_kept.inc();
        return;
    }
    let why = match timeout(BOUND, log.settle(entry)).await {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => "it takes too long".into(),
    };
    node.telemetry.invalidations_not_kept.inc();
    let _turn = doubt.turn.lock().await;
    if doubt.is_marked.load(Ordering::SeqCst) {
        return;
    }
    tracing::error!(
        %why,
        "what unsafe methods make invalid cannot be written down: it is in force, but if this node ended now, it would \
         begin with empty disks"
    );
    if !mark(node, true).await {
        tracing::error!(
            "a disk cannot be marked either: after an end now it may bring back what was invalidated"
        );
    }
    doubt.is_marked.store(true, Ordering::SeqCst);
    tokio::spawn(clear(Arc::downgrade(node)));
}

/// Notes on the disks that what they hold is, or is not, in doubt. False: not on all of them.
async fn mark(node: &Node, in_doubt: bool) -> bool {
    let Some(under) = node.under.clone() else { return true };
    let marked = super::disk::apart(move || under.disks().doubt(in_doubt));
    matches!(timeout(BOUND, marked).await, Ok(Ok(true)))
}

/// Ends the doubt, as soon as the log allows it.
async fn clear(node: std::sync::Weak<Node>) {
    loop {
        sleep(PAUSE).await;
        let Some(node) = node.upgrade() else { return };
        if node.end_doubt().await {
            return;
        }
    }
}

impl Node {
    /// Whether nothing is in doubt any more.
    async fn end_doubt(&self) -> bool {
        let Some(log) = &self.purge_log else { return true };
        if !matches!(timeout(BOUND, log.flush()).await, Ok(Ok(()))) {
            return false;
        }
        let _turn = self.doubt.turn.lock().await;
        if !self.doubt.is_marked.swap(false, Ordering::SeqCst) {
            return true;
        }
        // From here on clients wait again: those that did not are in the log.
        if !matches!(timeout(BOUND, log.flush()).await, Ok(Ok(()))) {
            self.doubt.is_marked.store(true, Ordering::SeqCst);
            return false;
        }
        match mark(self, false).await {
            true => {
                tracing::info!("all invalidations are written down, and the disks in doubt no more")
            }
            false => {
                tracing::warn!("all invalidations are written down, but a disk is in doubt still")
            }
        }
        true
    }

    /// Makes durable what nobody has waited for, at the end.
    pub async fn settle(&self) {
        if self.doubt.is_marked.load(Ordering::SeqCst) {
            self.end_doubt().await;
        }
        if let Some(under) = &self.under {
            under.close().await;
        }
        let Some(log) = &self.purge_log else { return };
        match timeout(LAST_PURGES, log.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "not all purges are written down"),
            Err(_) => tracing::error!("not all purges are written down: the disk takes too long"),
        }
    }
}
