//! The cache's own functions, put together as the node does it, with time as a number and no socket.

use std::sync::Arc;
use std::time::Duration;

use edge_cache::lookup::{Decision, RequestView, Stored, decide, is_origin_error};
use edge_cache::semantics::conditional::{
    Updated, Verdict, add_revalidation, apply_304, evaluate, if_range_holds, select_by_304,
};
use edge_cache::semantics::freshness::Exchange;
use edge_cache::semantics::headers::{for_origin, unsent, without_credentials};
use edge_cache::semantics::range::{self, Resolved};
use edge_cache::semantics::vary::{VariantKey, Vary, VaryLists};
use edge_cache::semantics::{Policy, Profile, Reason, StoredHead, date};
use http::header::DATE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use shared::time::UnixMillis;

use super::fields::Fields;
use super::history::{Request, Rules};
use super::{Answer, Cache, Done, LENGTH, Origin, Told};

/// A response on the shelf; its content is its number.
struct Object {
    id: u64,
    variant: VariantKey,
    head: StoredHead,
}

/// The functions, and the shelf of one URL.
pub(super) struct Functions {
    policy: Policy,
    /// Oldest first.
    shelf: Vec<Arc<Object>>,
    lists: VaryLists,
    uncacheable: bool,
}

impl Functions {
    /// With nothing on the shelf.
    pub(super) fn new(rules: &Rules) -> Self {
        let profile = if rules.by_the_letter { Profile::Rfc } else { Profile::Safe };
        let mut policy = Policy { profile, ..Policy::default() };
        policy.ttl.default = Duration::from_secs(rules.default);
        policy.ttl.min = Duration::from_secs(rules.least);
        policy.ttl.max = Duration::from_secs(rules.most);
        policy.stale.while_revalidate = Duration::from_secs(rules.while_revalidate);
        policy.stale.if_error = Duration::from_secs(rules.if_error);
        policy.stale.beside_s_maxage = rules.beside_s_maxage;
        policy.heuristic = rules.heuristic;
        policy.negative_ttl = vec![(StatusCode::NOT_FOUND, Duration::from_secs(10))];
        Self { policy, shelf: Vec::new(), lists: VaryLists::default(), uncacheable: false }
    }

    /// What a request selects: of several the newest by Date (RFC 9111 §4).
    fn selected(&self, client: &HeaderMap) -> Option<&Arc<Object>> {
        let keys: Vec<_> = self.lists.variants(client).chain([VariantKey::NONE]).collect();
        let matching = self.shelf.iter().filter(|object| keys.contains(&object.variant));
        matching.max_by_key(|object| date::field(&object.head.headers, &DATE))
    }

    fn put(&mut self, object: &Arc<Object>) {
        self.uncacheable = false;
        if object.variant == VariantKey::NONE {
            // Without Vary it answers all requests.
            self.shelf.clear();
            self.lists = VaryLists::default();
        } else {
            self.lists.note(&object.head.vary);
            self.shelf
                .retain(|old| old.variant != object.variant && old.variant != VariantKey::NONE);
        }
        self.shelf.push(Arc::clone(object));
    }

    /// Asks the origin for the store, with what is known; tells what answers the client.
    fn fill(
        &mut self,
        client: &HeaderMap,
        known: &[Arc<Object>],
        fallback: bool,
        behind: bool,
        now: u64,
        origin: &mut Origin<'_>,
    ) -> (Told, u64) {
        let varying: Vec<HeaderName> = match self.policy.profile {
            Profile::Safe => self.lists.names().cloned().collect(),
            Profile::Rfc => Vec::new(),
        };
        let unsent = unsent(client, &self.policy, &varying);
        let varied: Vec<_> =
            varying.iter().filter(|name| client.contains_key(*name)).cloned().collect();
        let mut sent = for_origin(client, Some(&self.policy), &varying);
        let mut client = client.clone();
        if let (true, [object]) = (behind, known) {
            for headers in [&mut sent, &mut client] {
                without_credentials(headers, &self.policy, &object.head.vary);
            }
        }
        let plain = sent.clone();
        let selects =
            |object: &Arc<Object>| object.head.vary.variant(&client) == Some(object.variant);
        let selected = known.iter().all(selects);
        let conditional =
            add_revalidation(&mut sent, known.iter().map(|object| &object.head.headers), selected);
        let (answer, then) = origin(&told(&sent), now);
        let Some(answer) = answer else { return (Told::Failed, then) };
        let answer = from(answer);
        if answer.0 == StatusCode::NOT_MODIFIED && conditional {
            return match self.validated(&client, &varied, known, &answer.1, now, then) {
                Some(object) => {
                    let (status, fields) =
                        (object.head.status.as_u16(), told(&object.head.headers));
                    (Told::Revalidated { id: object.id, status, fields }, then)
                }
                // Nothing that we have: the whole is asked for.
                None => {
                    let (answer, last) = origin(&told(&plain), then);
                    let Some(answer) = answer else { return (Told::Failed, last) };
                    (
                        self.receive(&client, &varied, &unsent, from(answer), fallback, then, last),
                        last,
                    )
                }
            };
        }
        (self.receive(&client, &varied, &unsent, answer, fallback, now, then), then)
    }

    fn validated(
        &mut self,
        client: &HeaderMap,
        varied: &[HeaderName],
        known: &[Arc<Object>],
        fields: &HeaderMap,
        asked: u64,
        answered: u64,
    ) -> Option<Arc<Object>> {
        let at = select_by_304(known.iter().map(|object| &object.head.headers), fields)?;
        let object = known.get(at)?;
        let (asked, answered) = (UnixMillis(asked), UnixMillis(answered));
        match apply_304(&object.head, "/r", client, fields, asked, answered, &self.policy) {
            Updated::Head(mut head) => {
                head.vary = head.vary.with(varied);
                let variant = head.vary.variant(client)?;
                if object.head.vary.variant(client) == Some(object.variant) {
                    self.shelf.retain(|old| !Arc::ptr_eq(old, object));
                }
                let new = Arc::new(Object { id: object.id, variant, head: *head });
                self.put(&new);
                Some(new)
            }
            Updated::UseOnce(head, _) => {
                self.shelf.retain(|old| !Arc::ptr_eq(old, object));
                Some(Arc::new(Object { id: object.id, variant: object.variant, head: *head }))
            }
            Updated::Changed => None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one exchange, each used once")]
    fn receive(
        &mut self,
        client: &HeaderMap,
        varied: &[HeaderName],
        unsent: &[HeaderName],
        response: (StatusCode, HeaderMap),
        fallback: bool,
        asked: u64,
        answered: u64,
    ) -> Told {
        let exchange = exchange(client, &response, asked, answered);
        let head = StoredHead::new(&exchange, &self.policy)
            .ok()
            .filter(|_| !(fallback && is_origin_error(response.0)));
        let vary = Vary::of(&response.1).of_sent(&self.policy).with(varied);
        if head.is_some() && vary.names().iter().any(|name| unsent.contains(name)) {
            self.lists.note(&vary);
            return Told::Fetched { status: response.0.as_u16(), stored: false };
        }
        let (Some(mut head), Some(variant)) = (head, vary.variant(client)) else {
            if !response.0.is_server_error() {
                self.uncacheable = true;
            }
            return Told::Fetched { status: response.0.as_u16(), stored: false };
        };
        head.vary = vary;
        self.put(&Arc::new(Object { id: content(&response.1), variant, head }));
        Told::Fetched { status: response.0.as_u16(), stored: true }
    }
}

/// Answers from a stored response, as `respond` does.
fn answer(
    request: &Request,
    client: &HeaderMap,
    status: StatusCode,
    headers: &HeaderMap,
) -> Answer {
    let method = Method::from_bytes(request.method.as_bytes()).unwrap();
    match evaluate(&method, client, status, headers) {
        Verdict::NotModified => return (304, Vec::new()),
        Verdict::PreconditionFailed => return (412, Vec::new()),
        Verdict::Proceed => {}
    }
    if status != StatusCode::OK || method != Method::GET {
        return (status.as_u16(), Vec::new());
    }
    let resolved = range::parse(client)
        .filter(|_| if_range_holds(client, headers))
        .map_or(Resolved::Full, |specs| range::resolve(&specs, LENGTH));
    let mut parts = match resolved {
        Resolved::Full => return (200, Vec::new()),
        Resolved::Unsatisfiable => return (416, Vec::new()),
        Resolved::Single(part) => vec![part],
        Resolved::Multiple(parts) => parts,
    };
    parts.sort_by_key(|part| part.start);
    (206, parts.iter().map(|part| (part.start, part.end)).collect())
}

fn exchange<'a>(
    request: &'a HeaderMap,
    response: &'a (StatusCode, HeaderMap),
    asked: u64,
    answered: u64,
) -> Exchange<'a> {
    Exchange {
        method: &Method::GET,
        path: "/r",
        request,
        status: response.0,
        response: &response.1,
        request_time: UnixMillis(asked),
        response_time: UnixMillis(answered),
    }
}

impl Cache for Functions {
    fn serve(&mut self, request: &Request, now: u64, origin: &mut Origin<'_>) -> Done {
        let client = from((0, request.fields.clone())).1;
        let method = Method::from_bytes(request.method.as_bytes()).unwrap();
        let view = RequestView { method: &method, headers: &client, has_content: request.content };
        let selected = self.selected(&client).map(Arc::clone);
        let known: Vec<_> = match &selected {
            Some(object) => vec![Arc::clone(object)],
            None => self.shelf.clone(),
        };
        let stored = match &selected {
            Some(object) => Stored::Head { life: object.head.life(), soft_purged: false },
            None if !self.shelf.is_empty() => Stored::OtherVariants,
            None if self.uncacheable => Stored::KnownUncacheable,
            None => Stored::Nothing,
        };
        let reused = |age: Duration, behind| {
            let object = &known[0];
            Told::Reused { id: object.id, age: age.as_secs(), behind }
        };
        let decision = decide(&view, stored, Some(&self.policy), UnixMillis(now));
        let mut then = now;
        let mut answered = None;
        let told = match decision {
            Decision::Hit { age, .. } => reused(age, false),
            Decision::Stale { age, revalidate, .. } => {
                if revalidate {
                    then = self.fill(&client, &known, true, true, now, origin).1;
                }
                reused(age, revalidate)
            }
            Decision::GatewayTimeout { .. } => Told::Refused,
            Decision::Miss { .. } | Decision::Revalidate { .. } => {
                let fallback = match decision {
                    Decision::Revalidate { fallback, .. } => fallback,
                    _ => None,
                };
                let told;
                (told, then) = self.fill(&client, &known, fallback.is_some(), false, now, origin);
                let failed = match &told {
                    Told::Failed => true,
                    Told::Fetched { status, .. } => {
                        is_origin_error(StatusCode::from_u16(*status).unwrap())
                    }
                    _ => false,
                };
                match fallback.filter(|fallback| failed && UnixMillis(then) <= fallback.until) {
                    Some(_) => {
                        let age = known[0].head.current_age(UnixMillis(then)).as_secs();
                        Told::Rescued { id: known[0].id, age }
                    }
                    None => told,
                }
            }
            Decision::Pass { .. } => {
                let answer;
                (answer, then) = origin(&told(&for_origin(&client, None, &[])), now);
                if let Some((status, fields)) = answer {
                    let response = from((status, fields));
                    if edge_cache::lookup::invalidates(&method, response.0) {
                        self.shelf.clear();
                        self.lists = VaryLists::default();
                    }
                    if decision.reason() == Reason::KnownUncacheable {
                        let exchange = exchange(&client, &response, now, then);
                        self.uncacheable = StoredHead::new(&exchange, &self.policy).is_err();
                    }
                }
                Told::Passed
            }
        };
        match &told {
            Told::Reused { .. } | Told::Rescued { .. } => {
                let head = &known[0].head;
                answered = Some(answer(request, &client, head.status, &head.headers));
            }
            Told::Revalidated { status, fields, .. } => {
                let (status, headers) = from((*status, fields.clone()));
                answered = Some(answer(request, &client, status, &headers));
            }
            _ => {}
        }
        let held = self.shelf.iter();
        let held = held.map(|object| (object.id, self::told(&object.head.headers))).collect();
        Done { told, answered, then, held }
    }
}

/// Which content it is, as the origin of these tests says.
fn content(response: &HeaderMap) -> u64 {
    response.get("x-id").unwrap().to_str().unwrap().parse().unwrap()
}

fn from((status, fields): (u16, Fields)) -> (StatusCode, HeaderMap) {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(&value).unwrap());
    }
    (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), headers)
}

fn told(headers: &HeaderMap) -> Fields {
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}
