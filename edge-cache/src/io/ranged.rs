//! Answers that need a part of an object: what is asked for them, and from where their bytes come.

use std::future::poll_fn;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use shared::io::clock;

use super::body::ResponseBody;
use super::fetch::Fetched;
use super::fill_head::{Origin, ResponseHead};
use super::fills::FillReader;
use super::join::{Asking, Filled, Target};
use super::part::{PartHead, Refetch};
use super::pool::FetchError;
use super::pull::{NotReady, Pull, Ready};
use super::respond::{self, Marks, Representation};
use super::serve::Context;
use super::telemetry::{Exchange, Held};
use crate::segment::plan::{Ask, first_ask};
use crate::semantics::conditional::{Verdict, evaluate, if_range_holds};
use crate::semantics::headers::strip_hop_by_hop;
use crate::semantics::range::{self, ByteRange, Resolved};
use crate::semantics::reason::{Fwd, Outcome};
use crate::semantics::{Ranges, Reason};
use crate::store::Object;

impl Context<'_> {
    /// The part to ask for, of a stored object or of what is not known yet; `None`: the whole.
    pub(super) fn ask(&self, target: Target<'_>, stored: Option<&Arc<Object>>) -> Option<Ask> {
        let store = &self.node().store;
        let in_parts = target.policy.ranges == Ranges::Segments
            && self.request.method == Method::GET
            && !store.is_unsegmented(target.key);
        let specs = range::parse(&self.request.headers).filter(|_| in_parts)?;
        let layout = store.layout();
        let Some(object) = stored else { return Some(first_ask(&specs, layout)) };
        if store.is_whole(object) {
            return None;
        }
        let first = match range::resolve(&specs, object.length()) {
            Resolved::Full => return None,
            Resolved::Single(part) => layout.index(part.start),
            Resolved::Multiple(parts) => parts.first().map_or(0, |part| layout.index(part.start)),
            Resolved::Unsatisfiable => 0,
        };
        Some(Ask::Run { first, last: first })
    }

    /// Whether a part is wanted of an object that was too large to be stored whole.
    pub(super) fn is_part_of_too_large(&self, target: Target<'_>) -> bool {
        self.node().store.is_too_large(target.key) && self.ask(target, None).is_some()
    }

    /// Answers from a stored object. What is missing of it is fetched; before anything is sent, that its first bytes are
    /// of the same version.
    pub(super) async fn answer_from_object(
        &self,
        mut exchange: Box<Exchange>,
        target: Target<'_>,
        object: &Arc<Object>,
        marks: &Marks<'_>,
    ) -> Filled {
        let node = self.node();
        if node.under.is_some() && marks.hit && object.asked.is_due() {
            node.store.offer(object);
        }
        let encoded = self.encoding(object);
        let object = encoded.as_ref().unwrap_or(object);
        let Some(pull) = Pull::object(node, object) else {
            // A part of it has gone just now, and it cannot be put together again.
            node.store.remove_version(object);
            return Filled::Again { exchange, alone: false };
        };
        let mut response = respond::answer(
            &self.asked(),
            Representation {
                status: object.status(),
                headers: &object.shared_fields(),
                length: Some(object.length()),
                content: pull.or_from(self.refetch(target, object)),
            },
        );
        let marks = match poll_fn(|cx| response.body_mut().poll_ready(cx)).await {
            Ok(ready @ (Ready::Here | Ready::Below)) => {
                if ready == Ready::Below {
                    exchange.held = Some(Held::Disk);
                }
                if exchange.reason == Reason::Fresh && !node.store.is_whole(object) {
                    exchange.reason = Reason::FreshPart;
                }
                Marks { ..*marks }
            }
            Ok(Ready::Fetched { collapsed }) => {
                exchange.reason = Reason::PartialMiss;
                if collapsed {
                    node.telemetry.collapsed.inc();
                }
                let (hit, fwd, stored) = (false, Some(Fwd::Partial), true);
                Marks { hit, fwd, stored, collapsed, ..*marks }
            }
            Err(NotReady::Changed) => return Filled::Again { exchange, alone: false },
            Err(NotReady::Failed(error)) => return self.not_ready(exchange, &error),
        };
        if exchange.outcome.is_none() {
            exchange.outcome = Some(exchange.reason.outcome());
        }
        self.between_tiers(&mut response, object.fence(), &object.fields());
        Filled::Response(respond::finish(exchange, &node.name, response, &marks))
    }

    /// The answer where what is missing of an object could not be had.
    fn not_ready(&self, mut exchange: Box<Exchange>, error: &FetchError) -> Filled {
        exchange.upstream = Some(Arc::clone(&error.upstream));
        let (reason, upstream) = (error.reason, Some(&*error.upstream));
        let node = &self.node().name;
        let response = respond::error(exchange, node, reason, upstream, Some(Fwd::Partial));
        Filled::Response(self.headless(response))
    }

    /// How what is missing of an object is fetched, where that can be.
    fn refetch(&self, target: Target<'_>, object: &Arc<Object>) -> Option<Box<Refetch>> {
        (object.is_combinable() && object.version().is_some()).then(|| {
            let job = self.job(target, Vec::new(), false);
            Box::new(Refetch { job, object: Arc::clone(object), since: target.since })
        })
    }

    /// The same for a body that is on its way, for a client that lags behind what is stored of it.
    pub(super) fn refetch_of_fill(
        &self,
        target: Target<'_>,
        head: &ResponseHead,
    ) -> Option<Box<Refetch>> {
        let (version, length) = (head.version.as_ref()?, head.length?);
        let stored = head.stored.as_ref().ok()?.clone();
        let (key, version) = (target.key.clone(), Arc::clone(version));
        let object = Object::segmented(key, head.variant, stored, version, length);
        self.refetch(target, &Arc::new(object))
    }

    /// The bytes of a representation that this request needs, from the first to the last; `None`: none, or all.
    fn needed(&self, from: &Object) -> Option<ByteRange> {
        let (request, stored) = (&self.request.headers, &from.fields());
        let whole = ByteRange { start: 0, end: from.length().saturating_sub(1) };
        match evaluate(&self.request.method, request, from.status(), stored) {
            Verdict::Proceed => {}
            Verdict::NotModified | Verdict::PreconditionFailed => return None,
        }
        let specs = range::parse(request).filter(|_| if_range_holds(request, stored));
        match range::resolve(&specs.unwrap_or_default(), from.length()) {
            Resolved::Full => Some(whole),
            Resolved::Single(part) => Some(part),
            Resolved::Multiple(parts) => {
                let start = parts.iter().map(|part| part.start).min()?;
                let end = parts.iter().map(|part| part.end).max()?;
                Some(ByteRange { start, end })
            }
            Resolved::Unsatisfiable => None,
        }
    }

    /// Answers with a part that a fill brings, and with what else is needed.
    pub(super) async fn part(
        &self,
        mut exchange: Box<Exchange>,
        asking: &Asking<'_>,
        part: &PartHead,
        reader: FillReader,
        collapsed: bool,
    ) -> Filled {
        let object = &part.object;
        if collapsed && object.vary().variant(&self.request.headers) != Some(object.variant()) {
            return Filled::Again { exchange, alone: false };
        }
        let inside =
            |needed: ByteRange| part.taken.start <= needed.start && needed.end <= part.taken.end;
        if !part.is_stored && !self.needed(object).is_none_or(inside) {
            return Filled::Again { exchange, alone: false };
        }
        exchange.upstream = Some(Arc::clone(&part.origin.upstream));
        exchange.outcome = Some(Outcome::Miss);
        let now = clock::steady();
        let pull = Pull::part(self.node(), object, reader, part.taken, part.is_stored);
        let mut response = respond::answer(
            &self.asked(),
            Representation {
                status: object.status(),
                headers: &object.shared_fields(),
                length: Some(object.length()),
                content: pull.or_from(self.refetch(asking.target, object)),
            },
        );
        match poll_fn(|cx| response.body_mut().poll_ready(cx)).await {
            Ok(_) => {}
            Err(NotReady::Changed) => return Filled::Again { exchange, alone: false },
            Err(NotReady::Failed(error)) => return self.not_ready(exchange, &error),
        }
        self.between_tiers(&mut response, object.fence(), &object.fields());
        let marks = Marks {
            fwd: asking.reason.fwd(),
            fwd_status: Some(StatusCode::PARTIAL_CONTENT),
            ttl: Some(object.remaining_millis(now) / 1000),
            age: part.has_age.then(|| object.current_age(now)),
            stored: part.is_stored,
            collapsed,
            before: &part.origin.cache_status,
            ..Marks::default()
        };
        Filled::Response(respond::finish(exchange, &self.node().name, response, &marks))
    }

    /// Answers with a part that is for this client alone.
    pub(super) fn private_part(
        &self,
        mut exchange: Box<Exchange>,
        asking: &Asking<'_>,
        fetched: Fetched,
    ) -> Filled {
        let mut headers = fetched.response.headers().clone();
        let specs = range::parse(&self.request.headers)
            .filter(|_| if_range_holds(&self.request.headers, &headers));
        let (Some(part), Some(specs)) = (fetched.part, specs) else {
            return Filled::Again { exchange, alone: true };
        };
        let Resolved::Single(wanted) = range::resolve(&specs, part.complete) else {
            return Filled::Again { exchange, alone: true };
        };
        if wanted.start < part.sent.start || wanted.end > part.sent.end {
            return Filled::Again { exchange, alone: true };
        }
        exchange.upstream = Some(Arc::clone(&fetched.upstream));
        exchange.reason = fetched.not_stored.unwrap_or(asking.reason);
        exchange.outcome = Some(Outcome::Miss);
        strip_hop_by_hop(&mut headers);
        headers.insert(CONTENT_RANGE, range::content_range(wanted, part.complete));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(wanted.length()));
        let skip = wanted.start - part.sent.start;
        let body = ResponseBody::upstream_part(fetched.response.into_body(), skip, wanted.length());
        let mut response = respond::response(StatusCode::PARTIAL_CONTENT, headers, body);
        self.between_tiers(&mut response, fetched.fence, &HeaderMap::new());
        let marks = Marks { fwd: asking.reason.fwd(), ..Marks::default() };
        Filled::Response(respond::finish(exchange, &self.node().name, response, &marks))
    }

    /// Answers when the next server has no byte of the part that was asked for.
    pub(super) fn unsatisfied(
        &self,
        mut exchange: Box<Exchange>,
        asking: &Asking<'_>,
        complete: Option<u64>,
        origin: &Origin,
        collapsed: bool,
    ) -> Filled {
        let specs = range::parse(&self.request.headers).unwrap_or_default();
        let resolved = complete.map(|complete| range::resolve(&specs, complete));
        // What was asked for begins before what the client wants: with no byte of that, there is none of this.
        let is_nothing = resolved.is_none_or(|resolved| resolved == Resolved::Unsatisfiable);
        if !is_nothing || self.request.headers.contains_key(http::header::IF_RANGE) {
            self.node().store.mark_unsegmented(asking.target.key);
            return Filled::Again { exchange, alone: false };
        }
        exchange.upstream = Some(Arc::clone(&origin.upstream));
        exchange.outcome = Some(Outcome::Miss);
        let response = respond::unsatisfiable(complete);
        let marks = Marks {
            fwd: asking.reason.fwd(),
            fwd_status: Some(StatusCode::RANGE_NOT_SATISFIABLE),
            collapsed,
            ..Marks::default()
        };
        Filled::Response(respond::finish(exchange, &self.node().name, response, &marks))
    }
}
