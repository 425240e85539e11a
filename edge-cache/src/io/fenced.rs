//! Asks the next server for something that no purge known here has made too old.
//!
//! A parent is told the floor of its answer, but no more than is known before the answer is there: which tags it has, the
//! answer says. One with a tag that was purged on this node alone, and that the parent has from before, is asked for again;
//! a parent that has nothing newer then is passed over.

use std::sync::Arc;

use http::HeaderName;

use super::ask::Outgoing;
use super::fetch::{Fetched, Wanted, fetch};
use super::node::{Node, RouteTarget, Tier};
use super::pool::FetchError;
use crate::purge::{Floor, Tags, Verdict};
use crate::route::Route;

/// Asks. `fields` are those that tags are in.
///
/// # Errors
/// Why nobody answered: the last one asked.
pub async fn fetch_current(
    node: &Arc<Node>,
    route: &Route<RouteTarget>,
    tier: Option<&Tier>,
    wanted: &Wanted,
    fields: &[HeaderName],
    body: Outgoing,
) -> Result<Fetched, FetchError> {
    let registry = &node.telemetry.registry;
    let again = matches!(body, Outgoing::Empty) && wanted.method.is_safe();
    let fetched = fetch(registry, route, tier, wanted, body).await?;
    if !again || !fetched.from_parent || fetched.fence >= node.store.fences().latest() {
        return Ok(fetched);
    }
    // Purges that came while it was asked are no fault of the parent's.
    let before = |floor: Floor| Floor {
        hard: floor.hard.min(wanted.fence),
        soft: floor.soft.min(wanted.fence),
    };
    let told = before(wanted.floor);
    if told.judge(fetched.fence) == Verdict::Purged {
        return fetch(registry, route, None, wanted, Outgoing::Empty).await;
    }
    let tags = Tags::of(fetched.response.headers(), fields, &wanted.origin());
    let needed = told.max(before(node.store.fences().of_tags(&tags)));
    if needed == told || needed.judge(fetched.fence) == Verdict::Current {
        return Ok(fetched);
    }
    let upstream = &*fetched.upstream;
    tracing::debug!(upstream, "a parent's answer has a tag that was purged since; asked again");
    drop(fetched.response);
    let newer = Wanted { floor: needed, ..wanted.clone() };
    let fetched = fetch(registry, route, tier, &newer, Outgoing::Empty).await?;
    if fetched.from_parent && needed.judge(fetched.fence) == Verdict::Purged {
        return fetch(registry, route, None, wanted, Outgoing::Empty).await;
    }
    Ok(fetched)
}
