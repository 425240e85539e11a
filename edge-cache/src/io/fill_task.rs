//! The task that owns a fetch into the store: asks, judges the answer, and gives it to all who wait or to one.
//!
//! It runs until the response has ended, whoever still reads. While it runs, others who want the same find it in
//! [`Fills`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, HeaderName};
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;

use super::ask::Outgoing;
use super::fenced::fetch_current;
use super::fetch::{Fetched, Wanted};
pub use super::fill_head::{FillHead, Origin, ResponseHead, Since};
use super::fills::{Entry, FillWriter, Held, WINDOW, ahead};
pub use super::fills::{FillReader, Fills, Joined, Task};
use super::node::{Node, RouteTarget, Tier};
use super::part::{Slot, Wanting, receive_part};
use super::pool::FetchError;
use super::spill::Spill;
use crate::fill::Audience;
use crate::key::CacheKey;
use crate::lookup::is_origin_error;
use crate::purge::{Floor, Tags, Verdict};
use crate::route::Route;
use crate::semantics::conditional::{
    Updated, add_revalidation, apply_304, same_strong_validator, select_by_304,
};
use crate::semantics::freshness::Exchange;
use crate::semantics::headers::strip_hop_by_hop;
use crate::semantics::vary::{VariantKey, Vary};
use crate::semantics::{Policy, Ranges, Reason, StoredHead};
use crate::store::Object;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What a fetch is for.
#[derive(Clone)]
pub struct Job {
    /// The key that it fills.
    pub key: CacheKey,
    /// The route.
    pub route: Arc<Route<RouteTarget>>,
    /// The route's policy.
    pub policy: Arc<Policy>,
    /// The site's parents, where they are to be asked.
    pub tier: Option<Arc<Tier>>,
    /// What is asked.
    pub wanted: Wanted,
    /// The client's fields, which select the variant.
    pub client: HeaderMap,
    /// Those of them that are not sent.
    pub unsent: Vec<HeaderName>,
    /// Those that are sent only because responses of the key vary by them.
    pub varied: Vec<HeaderName>,
    /// What is stored for the key: validated if possible.
    pub stored: Vec<Arc<Object>>,
    /// Whether a stored response may be served should this fail: an error then takes nothing's place.
    pub fallback: bool,
    /// The part that is wanted; none: the whole.
    pub part: Option<Wanting>,
    /// What is too large to be stored whole may be fetched in parts instead.
    pub divisible: bool,
}

impl Task {
    /// Starts it; the reader is the client's that began it.
    pub fn start(self, node: &Arc<Node>, mut job: Job) -> FillReader {
        let Self { writer, reader, places, fence, begun } = self;
        job.wanted.fence = fence;
        let node = Arc::clone(node);
        let entry = Entry {
            node: Arc::clone(&node),
            places,
            fill: Arc::clone(writer.fill()),
            fence,
            begun,
        };
        tokio::spawn(async move { run(&node, job, writer, entry).await });
        reader
    }
}

async fn run(node: &Arc<Node>, job: Job, writer: FillWriter, mut entry: Entry) {
    let mut wanted = job.wanted.clone();
    let heads = || job.stored.iter().map(|object| object.fields());
    let selects =
        |object: &Arc<Object>| object.vary().variant(&job.client) == Some(object.variant());
    let selected = job.stored.iter().all(selects);
    let conditional = add_revalidation(&mut wanted.headers, heads(), selected);
    let mut plain = job.wanted.clone();
    if let Some(part) = &job.part {
        part.add_to(node, &mut wanted.headers);
        part.add_to(node, &mut plain.headers);
    }
    let tier = job.tier.as_deref();
    let tags = &job.policy.tags;
    let fetch = |wanted| fetch_current(node, &job.route, tier, wanted, tags, Outgoing::Empty);
    let mut fetched = match fetch(&wanted).await {
        Ok(fetched) => fetched,
        Err(error) => return fail(writer, &mut entry, error),
    };
    if conditional && fetched.response.status() == StatusCode::NOT_MODIFIED {
        match revalidated(node, &job, &fetched) {
            Some(Validated { object, gone, audience }) => {
                let origin = origin_of(&fetched);
                let head = Arc::new(FillHead::Revalidated { object, gone, origin });
                entry.leave();
                writer.share_with(audience, head);
                writer.finish(b"", drop);
                return;
            }
            // It speaks of nothing that we have: asked again, for what there is.
            None => {
                let floor = plain.floor.max(node.store.fences().of_key(&job.key));
                let fence = node.positions.current();
                fetched = match fetch(&Wanted { fence, floor, ..plain }).await {
                    Ok(fetched) => fetched,
                    Err(error) => return fail(writer, &mut entry, error),
                };
            }
        }
    }
    match &job.part {
        Some(part) => receive_part(node, &job, part, fetched, writer, entry).await,
        None => receive(node, &job, fetched, writer, entry).await,
    }
}

fn fail(writer: FillWriter, entry: &mut Entry, error: FetchError) {
    // Those who come from now on try for themselves; all who wait learn this.
    entry.leave();
    writer.fail(error);
}

pub(super) fn origin_of(fetched: &Fetched) -> Origin {
    let cache_status = fetched.response.headers().get_all(CACHE_STATUS);
    Origin {
        upstream: Arc::clone(&fetched.upstream),
        cache_status: cache_status.iter().cloned().collect(),
    }
}

/// A stored object that a 304 has updated.
struct Validated {
    object: Arc<Object>,
    /// Why it is not stored any longer.
    gone: Option<Reason>,
    audience: Audience,
}

/// The stored object that a 304 speaks of, updated; `None` when there is none.
fn revalidated(node: &Node, job: &Job, fetched: &Fetched) -> Option<Validated> {
    let mut headers = fetched.response.headers().clone();
    strip_hop_by_hop(&mut headers);
    let at = select_by_304(job.stored.iter().map(|object| object.fields()), &headers)?;
    // Purged meanwhile: that it has not changed does not bring it back.
    let object = job
        .stored
        .get(at)
        .filter(|object| node.store.judge(object, job.wanted.floor) != Verdict::Purged)?;
    let updated = apply_304(
        &object.head(),
        &job.wanted.path,
        &job.client,
        &headers,
        fetched.request_time,
        fetched.response_time,
        &job.policy,
    );
    match updated {
        Updated::Head(head) => {
            let head = head.arrived(fetched.arrived);
            let head = head.jittered(job.policy.ttl.jitter, job.key.hash(), &node.name);
            let head = head.fenced(fetched.fence, &job.policy, &job.wanted.origin());
            let head = StoredHead { vary: head.vary.clone().with(&job.varied), ..head };
            // A 304 may say that another variant than the one selected answers this request, too.
            let variant = head.vary.variant(&job.client)?;
            let new = Arc::new(object.updated(variant, &head));
            if variant != object.variant()
                && object.vary().variant(&job.client) == Some(object.variant())
            {
                // The 304 changed Vary: what it updated does not stay beside the update.
                node.store.remove(object);
            }
            keep(node, job, &new);
            Some(Validated { audience: audience(&head), gone: None, object: new })
        }
        Updated::UseOnce(head, reason) => {
            node.store.remove(object);
            let head = head.arrived(fetched.arrived);
            let object = Arc::new(object.with_head(&head));
            Some(Validated { object, gone: Some(reason), audience: Audience::Leader })
        }
        Updated::Changed => None,
    }
}

/// Whether what is too large to be stored whole can be fetched in parts, as far as is known.
fn is_divisible(node: &Node, job: &Job, headers: &HeaderMap) -> bool {
    let has_parts = headers
        .get(ACCEPT_RANGES)
        .is_none_or(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"none"));
    job.divisible
        && job.policy.ranges == Ranges::Segments
        && has_parts
        && !node.store.is_unsegmented(&job.key)
}

/// For whom a stored response is as it arrives.
pub(super) fn audience(head: &StoredHead) -> Audience {
    match head.may_be_shared() {
        true => Audience::All,
        false => Audience::Early,
    }
}

/// Stores what a fill has brought, unless it has been purged meanwhile: it would take the place of something newer.
/// `false`: it is too large.
pub(super) fn keep(node: &Node, job: &Job, object: &Arc<Object>) -> bool {
    node.store.judge(object, Floor::default()) == Verdict::Purged
        || node.store.put(Arc::clone(object), job.policy.vary.max)
}

/// What may be kept of a response.
pub(super) struct Judged {
    /// Its stored form, or why it is not stored.
    pub(super) stored: Result<StoredHead, Reason>,
    /// The request fields that select it.
    pub(super) vary: Vary,
    /// The variant that it is of.
    pub(super) variant: Option<VariantKey>,
    /// Its tags.
    pub(super) tags: Tags,
}

/// What may be kept of a response with these fields, without those of the connection, unless it is `refused`.
pub(super) fn judged(
    node: &Node,
    job: &Job,
    fetched: &Fetched,
    headers: &HeaderMap,
    status: StatusCode,
    refused: Option<Reason>,
) -> Judged {
    let exchange = Exchange {
        method: &Method::GET,
        path: &job.wanted.path,
        request: &job.client,
        status,
        response: headers,
        request_time: fetched.request_time,
        response_time: fetched.response_time,
    };
    let tags = Tags::of(headers, &job.policy.tags, &job.wanted.origin());
    let at_rest = |head: StoredHead| {
        let head = head.arrived(fetched.arrived).jittered(
            job.policy.ttl.jitter,
            job.key.hash(),
            &node.name,
        );
        StoredHead { fence: fetched.fence, tags: tags.clone(), ..head }
    };
    let head = StoredHead::new(&exchange, &job.policy);
    let mut stored = head.map(at_rest).and_then(|head| refused.map_or(Ok(head), Err));
    let vary = Vary::of(headers).of_sent(&job.policy).with(&job.varied);
    if let Ok(stored) = &mut stored {
        stored.vary = vary.clone();
    }
    let mut variant = vary.variant(&job.client);
    if stored.is_ok() && vary.names().iter().any(|name| job.unsent.contains(name)) {
        node.store.note_vary(&job.key, &vary);
        stored = Err(Reason::VaryUnsent);
        variant = Some(VariantKey::NOBODYS);
    }
    Judged { stored, vary, variant, tags }
}

/// Gives a response to all who may have it, and keeps it for those to come.
pub(super) async fn receive(
    node: &Arc<Node>,
    job: &Job,
    fetched: Fetched,
    writer: FillWriter,
    mut entry: Entry,
) {
    let (status, length) = (fetched.response.status(), fetched.response.body().size_hint().exact());
    let mut headers = fetched.response.headers().clone();
    strip_hop_by_hop(&mut headers);
    let layout = node.store.layout();
    let too_large = length.is_some_and(|length| length > node.store.memory().max_object());
    let combinable = same_strong_validator(&headers, &headers);
    let divides =
        too_large && status == StatusCode::OK && combinable && is_divisible(node, job, &headers);
    let refused = if status == StatusCode::PARTIAL_CONTENT {
        Some(Reason::UnaskedPart)
    } else if too_large && !divides {
        Some(Reason::TooLarge)
    } else {
        (job.fallback && is_origin_error(status)).then_some(Reason::StaleIfError)
    };
    let Judged { stored, vary, variant, tags } =
        judged(node, job, &fetched, &headers, status, refused);
    if let (true, Ok(head), Some(variant), Some(length)) = (divides, &stored, variant, length) {
        // A crowd would cost the origin one fetch each. From here on all read the same segments, each fetched once; what
        // has come of this response is given up.
        node.store.note_vary(&job.key, &vary);
        let (key, head) = (job.key.clone(), head.clone());
        let version = node.store.new_version(&key, variant);
        keep(node, job, &Arc::new(Object::segmented(key, variant, head, version, length)));
        entry.leave();
        drop(fetched);
        writer.share(Arc::new(FillHead::LookAgain), false);
        return writer.finish(b"", drop);
    }
    let mut stored = stored;
    let fence = fetched.fence;
    let mut held = Held::new(&node.fills);
    // What is longer than a segment, and can be had again in parts, is stored as it arrives: a window and a segment are held.
    // Another body stays here to its end: who lags could not have again what the store has let go.
    let in_segments = combinable
        && length.is_some_and(|length| length > layout.size())
        && !node.store.is_unsegmented(&job.key);
    let held_most = if in_segments { WINDOW + layout.size() } else { u64::MAX };
    let needed = length.unwrap_or(0).min(held_most);
    if stored.is_ok() && !held.take(needed).await {
        stored = Err(Reason::Overload);
    }
    // An error is told to all who wait: each asking for itself would be the worst that they could do to an origin that
    // fails. What is somebody's own is not.
    let common_error = status.is_server_error()
        && !too_large
        && matches!(
            stored,
            Err(Reason::NoLifetime
                | Reason::NoReuse
                | Reason::NotStoredByPolicy
                | Reason::StaleIfError)
        );
    let variant = match (&stored, variant) {
        (Ok(_) | Err(Reason::VaryUnsent), Some(variant)) => variant,
        _ if common_error => variant.unwrap_or(VariantKey::NONE),
        _ => {
            if matches!(stored, Err(Reason::TooLarge)) {
                node.store.mark_too_large(&job.key);
            } else if !status.is_server_error() && !matches!(stored, Err(Reason::Overload)) {
                node.store.mark_uncacheable(&job.key);
            }
            entry.leave();
            writer.keep_private(Fetched { not_stored: stored.err(), ..fetched });
            return;
        }
    };
    let audience = match &stored {
        Ok(stored) => audience(stored),
        // All who wait learn that it is not theirs, and go on together by what they have of the field.
        Err(reason) if common_error || *reason == Reason::VaryUnsent => Audience::All,
        Err(_) => Audience::Leader,
    };
    if stored.is_ok() {
        node.store.note_vary(&job.key, &vary);
        if job.policy.no_vary_search {
            node.store.note_search(&job.key, &headers);
        }
    }
    if stored.is_ok() && audience == Audience::All {
        entry.also((job.key.hash(), variant, Slot::Whole));
    } else {
        // An error is for those who wait already, not for those to come.
        entry.leave();
    }
    let origin = origin_of(&fetched);
    let stored_head = stored.as_ref().ok().cloned();
    let mut spill = (stored.is_ok() && in_segments)
        .then(|| Spill::new(node, &node.store.new_version(&job.key, variant), 0, length));
    let version = spill.as_ref().map(|spill| Arc::clone(spill.version()));
    let head = ResponseHead {
        status,
        headers,
        stored,
        variant,
        vary,
        length,
        version,
        origin,
        fence,
        tags,
    };
    let head = Arc::new(FillHead::Response(Box::new(head)));
    writer.share_with(audience, head);

    let mut body = fetched.response.into_body();
    let mut kept = true;
    let mut received = 0u64;
    let last = loop {
        if !poll_fn(|cx| writer.poll_room(cx, ahead(node))).await {
            tracing::debug!(key = job.key.text(), "nobody reads a body that is not kept any more");
            return;
        }
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                node.telemetry.bytes_in.add(data.len() as u64);
                received += data.len() as u64;
                if body.is_end_stream() {
                    break data;
                }
                let mut keeps = writer.push(&data);
                if kept && keeps {
                    if let Some(spill) = &mut spill {
                        spill.push(&data);
                        writer.stored_through(spill.stored_through(writer.fill().start()));
                    }
                    if !held.set(needed.max(writer.fill().held())) {
                        writer.stop_keeping();
                        keeps = false;
                    }
                }
                if !kept && !held.set(writer.fill().held()) {
                    // It goes by, and those who lag hold what others could use.
                    writer.shorten();
                }
                if kept && !keeps {
                    kept = false;
                    entry.leave();
                    node.store.mark_uncacheable(&job.key);
                }
            }
            Some(Err(error)) => {
                // Dropping the writer cuts all who read.
                let upstream = &*fetched.upstream;
                tracing::warn!(key = job.key.text(), upstream, %error, "a response was cut short");
                if let (true, Some(spill), Some(head), Some(length)) =
                    (kept, &spill, stored_head, length)
                {
                    // RFC 9111 §3.4: what has come is good as a part, where the rest can be put to it.
                    let (key, version) = (job.key.clone(), Arc::clone(spill.version()));
                    let part = Object::segmented(key, variant, head, version, length);
                    if part.is_combinable() && job.policy.ranges == Ranges::Segments {
                        keep(node, job, &Arc::new(part));
                    }
                }
                return;
            }
            None => break Bytes::new(),
        }
    };
    kept &= received <= node.fills.keep();
    if let Some(spill) = spill.as_mut().filter(|_| kept) {
        spill.push(&last);
        spill.finish();
    }
    writer.finish(&last, |pieces| {
        if let (true, Some(head)) = (kept, stored_head) {
            let key = job.key.clone();
            let object = match (&spill, pieces) {
                (None, Some(pieces)) if received <= layout.size() => {
                    Object::new(key, variant, head, pieces)
                }
                (_, pieces) => {
                    let spill = spill.get_or_insert_with(|| {
                        let version = node.store.new_version(&job.key, variant);
                        let mut spill = Spill::new(node, &version, 0, Some(received));
                        pieces.iter().flatten().for_each(|piece| spill.push(piece));
                        spill.finish();
                        spill
                    });
                    let version = Arc::clone(spill.version());
                    Object::segmented(key, variant, head, version, received)
                }
            };
            let object = Arc::new(object);
            match keep(node, job, &object) {
                true => node.encoder.prepare(node, &object, &job.policy, &job.client),
                false => node.store.mark_uncacheable(&job.key),
            }
        }
        entry.leave();
    });
}
