//! A request that waits for a fetch: its own, which it begins, or another's, which it joins.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AGE, RANGE};
use http::{Method, Response, StatusCode};
use shared::io::clock;
use shared::time::UnixMillis;

use super::body::ResponseBody;
use super::fetch::Fetched;
use super::fill_task::{FillHead, FillReader, Joined, ResponseHead, Since};
use super::part::{Slot, Wanting};
use super::pool::FetchError;
use super::pull::Pull;
use super::respond::{self, Marks, Representation};
use super::serve::Context;
use super::telemetry::Exchange;
use crate::fill::Answer;
use crate::key::CacheKey;
use crate::lookup::{Fallback, is_origin_error};
use crate::segment::plan::Ask;
use crate::semantics::headers::with_listed;
use crate::semantics::reason::Outcome;
use crate::semantics::{Policy, Reason};
use crate::store::Object;

/// What waiting for a fill came to.
pub(super) enum Filled {
    Response(Response<ResponseBody>),
    /// The answer was not for this request: look again. `alone`: and wait for nobody.
    Again {
        exchange: Box<Exchange>,
        alone: bool,
    },
}

/// What a request is for.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) policy: &'a Arc<Policy>,
    pub(super) key: &'a CacheKey,
    pub(super) query: Option<&'a str>,
    /// What was known of purges before the store was asked.
    pub(super) since: Since,
}

/// A decision to ask the next server, and what may answer in its place.
pub(super) struct Asking<'a> {
    pub(super) target: Target<'a>,
    /// What part is asked for; none: the whole.
    pub(super) ask: Option<Ask>,
    pub(super) reason: Reason,
    pub(super) stale: Option<(&'a Arc<Object>, Fallback)>,
}

impl Context<'_> {
    pub(super) async fn fill(
        &self,
        mut exchange: Box<Exchange>,
        asking: &Asking<'_>,
        known: Vec<Arc<Object>>,
        alone: bool,
    ) -> Filled {
        let node = self.node();
        let Target { key, since, .. } = asking.target;
        let joined = if alone {
            Joined::Begun(node.fills.alone(since))
        } else {
            let headers = &self.request.headers;
            let selected =
                asking.stale.as_ref().map(|(object, _)| *object).or_else(|| known.first());
            let variant = match selected {
                Some(object) if object.vary().variant(headers) == Some(object.variant()) => {
                    object.variant()
                }
                _ => node.store.expected_variant(key, headers),
            };
            let slot = asking.ask.map_or(Slot::Whole, Slot::of);
            node.fills.join(&node.store, key, variant, headers, selected, since, slot)
        };
        // Interim responses are for the client that the fetch is made for.
        let mut interim = None;
        let (reader, begun) = match joined {
            Joined::Stored => return Filled::Again { exchange, alone: false },
            Joined::Reader(reader, begun) => (reader, Some(begun)),
            Joined::Begun(task) => {
                let mut job = self.job(asking.target, known, asking.stale.is_some());
                job.part = asking.ask.map(|ask| Wanting { ask, of: None });
                job.divisible = !alone;
                interim = self.early.sink();
                job.wanted.interim = interim.clone();
                (task.start(node, job), None)
            }
        };
        let collapsed = begun.is_some();
        let patience = asking.stale.as_ref().and_then(|(_, fallback)| fallback.after_wait);
        let answer = self.early.relay(interim.as_deref(), wait(&reader, patience)).await;
        let Some(answer) = answer else {
            // The fetch goes on without this client.
            return self.stale(exchange, asking, Reason::StaleAfterWait, None).await;
        };
        let Some(answer) = answer else {
            // The fetch was given up without an answer. Of all who wait the first to look again begins the next one.
            return Filled::Again { exchange, alone: false };
        };
        match answer {
            Answer::Released => Filled::Again { exchange, alone: true },
            // What it waited for began before it came. The next fetch does not: one is for all who wait now.
            Answer::TooLate => Filled::Again { exchange, alone: false },
            Answer::Failed(error) => {
                if self.may_be_stale(asking) {
                    return self.stale(exchange, asking, Reason::StaleIfError, None).await;
                }
                exchange.upstream = Some(Arc::clone(&error.upstream));
                let fwd = asking.reason.fwd();
                let response =
                    respond::error(exchange, &node.name, error.reason, Some(&error.upstream), fwd);
                Filled::Response(self.headless(response))
            }
            // An error that may not be kept is an error all the same (RFC 5861 §4).
            Answer::Private(fetched)
                if is_origin_error(fetched.response.status()) && self.may_be_stale(asking) =>
            {
                let status = Some(fetched.response.status());
                self.stale(exchange, asking, Reason::StaleIfError, status).await
            }
            // The whole was fetched, and is not kept: the part that was asked for is asked of the origin.
            Answer::Private(fetched) if fetched.part.is_some() => {
                self.private_part(exchange, asking, *fetched)
            }
            Answer::Private(fetched)
                if !alone
                    && asking.ask.is_none()
                    && self.request.method == Method::GET
                    && fetched.response.status() == StatusCode::OK
                    && self.request.headers.contains_key(RANGE) =>
            {
                Filled::Again { exchange, alone: true }
            }
            Answer::Private(fetched) => {
                exchange.reason = fetched.not_stored.unwrap_or(asking.reason);
                exchange.outcome = Some(Outcome::Miss);
                Filled::Response(self.answer_from_upstream(exchange, *fetched, asking.reason))
            }
            // It has turned out to have been purged before this request came, or since. Who began the fetch has the
            // newest that could be had.
            Answer::Shared(head)
                if begun.is_some_and(|begun| {
                    !head.is_usable(&node.store, key, asking.target.since.needed, begun)
                }) =>
            {
                Filled::Again { exchange, alone: false }
            }
            Answer::Shared(head) => {
                if collapsed {
                    node.telemetry.collapsed.inc();
                }
                self.shared(exchange, asking, &head, reader, collapsed).await
            }
        }
    }

    /// Answers with what a fill gives to all.
    async fn shared(
        &self,
        mut exchange: Box<Exchange>,
        asking: &Asking<'_>,
        head: &FillHead,
        reader: FillReader,
        collapsed: bool,
    ) -> Filled {
        let headers = &self.request.headers;
        let now = clock::steady();
        match head {
            FillHead::Revalidated { object, gone, origin } => {
                // Who began the fetch is whom the 304 speaks to, whatever it says of other requests.
                if collapsed && object.vary().variant(headers) != Some(object.variant()) {
                    return Filled::Again { exchange, alone: true };
                }
                exchange.upstream = Some(Arc::clone(&origin.upstream));
                exchange.reason = gone.unwrap_or(Reason::Revalidated);
                let marks = Marks {
                    fwd: asking.reason.fwd(),
                    fwd_status: Some(StatusCode::NOT_MODIFIED),
                    ttl: gone.is_none().then(|| object.remaining_millis(now) / 1000),
                    age: Some(object.current_age(now)),
                    stored: gone.is_none(),
                    collapsed,
                    before: &origin.cache_status,
                    ..Marks::default()
                };
                self.answer_from_object(exchange, asking.target, object, &marks).await
            }
            FillHead::Part(part) => self.part(exchange, asking, part, reader, collapsed).await,
            FillHead::Unsatisfied { complete, origin } => {
                self.unsatisfied(exchange, asking, *complete, origin, collapsed)
            }
            FillHead::LookAgain => Filled::Again { exchange, alone: false },
            FillHead::Response(head) => {
                if collapsed && head.vary.variant(headers) != Some(head.variant) {
                    return Filled::Again { exchange, alone: false };
                }
                if is_origin_error(head.status) && self.may_be_stale(asking) {
                    let status = Some(head.status);
                    return self.stale(exchange, asking, Reason::StaleIfError, status).await;
                }
                Filled::Response(
                    self.answer_from_fill(exchange, asking, head, reader, collapsed, now),
                )
            }
        }
    }

    fn answer_from_fill(
        &self,
        mut exchange: Box<Exchange>,
        asking: &Asking<'_>,
        head: &ResponseHead,
        reader: FillReader,
        collapsed: bool,
        now: UnixMillis,
    ) -> Response<ResponseBody> {
        exchange.upstream = Some(Arc::clone(&head.origin.upstream));
        exchange.outcome = Some(Outcome::Miss);
        let own = match &head.stored {
            Ok(stored) if !collapsed => with_listed(&stored.headers, &head.headers),
            _ => None,
        };
        let (fields, age, ttl) = match &head.stored {
            Ok(stored) => {
                let age = stored.current_age(now);
                // Straight from the origin it has none; from a cache before us it goes on counting.
                let counts = head.headers.contains_key(AGE);
                (&stored.headers, counts.then_some(age), Some(stored.remaining_millis(now) / 1000))
            }
            Err(reason) => {
                exchange.reason = *reason;
                (&head.headers, None, None)
            }
        };
        let response = respond::answer(
            &self.asked(),
            Representation {
                status: head.status,
                headers: own.as_ref().unwrap_or(fields),
                length: head.length,
                content: Pull::fill(self.node(), head.version.as_ref(), reader, head.length)
                    .or_from(self.refetch_of_fill(asking.target, head)),
            },
        );
        let mut response = response;
        self.between_tiers(&mut response, head.fence, fields);
        let marks = Marks {
            fwd: asking.reason.fwd(),
            ttl,
            age,
            stored: head.stored.is_ok(),
            collapsed,
            before: if head.stored.is_ok() { &head.origin.cache_status } else { &[] },
            ..Marks::default()
        };
        respond::finish(exchange, &self.node().name, response, &marks)
    }

    fn may_be_stale(&self, asking: &Asking<'_>) -> bool {
        asking.stale.as_ref().is_some_and(|(_, fallback)| clock::steady() <= fallback.until)
    }

    /// Answers with what is stored, though it is stale.
    async fn stale(
        &self,
        mut exchange: Box<Exchange>,
        asking: &Asking<'_>,
        reason: Reason,
        status: Option<StatusCode>,
    ) -> Filled {
        let Some((object, _)) = &asking.stale else {
            return Filled::Again { exchange, alone: true };
        };
        exchange.reason = reason;
        let now = clock::steady();
        let marks = Marks {
            fwd: reason.fwd(),
            fwd_status: status,
            ttl: Some(object.remaining_millis(now) / 1000),
            age: Some(object.current_age(now)),
            ..Marks::default()
        };
        self.answer_from_object(exchange, asking.target, object, &marks).await
    }
}

type FillAnswer = Answer<FillHead, Fetched, FetchError>;

/// Waits for a fill's answer, as long as the fetch may take, or as long as patience lasts. Within: `None` when the fetch
/// was given up without one.
async fn wait(reader: &FillReader, patience: Option<Duration>) -> Option<Option<FillAnswer>> {
    let answer = poll_fn(|cx| reader.poll_answer(cx));
    match patience {
        None => Some(answer.await),
        Some(patience) => tokio::time::timeout(patience, answer).await.ok(),
    }
}
