//! A shared cache as the RFCs describe it, slow and obvious: a list of all exchanges that it has kept, searched from end
//! to end for every request. It knows one URL. Where the RFCs leave a choice it tells all that is allowed, and what the
//! operator's rules add is said beside them.
//!
//! Times are milliseconds since 1970, dates whole seconds.

use super::Asked;
use super::fields::{
    self, Fields, Value, date_field, delta, directives, entity_tag, has, lines, members,
};
use super::history::{Request, Rules};

/// An exchange that has been kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Which content it has.
    pub(super) id: u64,
    pub(super) request: Fields,
    /// What of that the origin was sent.
    pub(super) sent: Fields,
    pub(super) status: u16,
    /// The response's fields, Age among them.
    pub(super) fields: Fields,
    pub(super) asked: u64,
    pub(super) answered: u64,
}

/// What may be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Answer with this content, so many seconds old; asking behind the client's back, or not.
    Reuse { id: u64, age: u64, behind: bool },
    /// Ask the origin, and answer with what it says. Should it fail, this content answers until then.
    Ask { id: Option<u64>, stale_until: Option<u64> },
    /// Hand the request on untouched.
    Pass,
    /// 504.
    Refuse,
}

/// Whether a response is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Must,
    May,
    Never,
}

/// The cache.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) rules: Rules,
    pub(super) kept: Vec<Kept>,
    /// A recent answer could not be kept: the next request may be handed on untouched.
    pub(super) marked: bool,
    /// Fields that answers have named in Vary: only these leave the safe profile beside those of its list.
    pub(super) named: Vec<String>,
}

/// The directives that count, from whichever field.
#[derive(Clone, Debug, Default)]
struct Says {
    list: Vec<(String, Option<String>)>,
    targeted: bool,
}

impl Says {
    /// Bare, or with an argument that is no list of field names.
    fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(known, _)| known == name)
    }

    /// `no-cache` and `private`: with field names they speak of those fields only (RFC 9111 §5.2.2.4, §5.2.2.7).
    fn has_bare(&self, name: &str) -> bool {
        self.list.iter().any(|(known, argument)| known == name && argument.is_none())
    }

    /// The shortest that is said; what is no number is 0 (RFC 9111 §4.2.1: the first, or stale).
    fn seconds(&self, name: &str) -> Option<u64> {
        let said = self.list.iter().filter(|(known, _)| known == name);
        said.map(|(_, argument)| argument.as_deref().and_then(delta).unwrap_or(0)).min()
    }

    fn of(response: &Fields) -> Self {
        if let Some(list) = targeted(response) {
            return Self { list, targeted: true };
        }
        Self { list: directives(response, "cache-control"), targeted: false }
    }
}

/// RFC 9213 §2.1: a targeted field that is valid and not empty takes the place of Cache-Control.
fn targeted(response: &Fields) -> Option<Vec<(String, Option<String>)>> {
    let members = fields::dictionary(response, "cdn-cache-control")?;
    let mut list = Vec::new();
    for (name, value) in &members {
        let number = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"];
        list.push(match (number.contains(&name.as_str()), value) {
            (true, Value::Number(seconds)) => (name.clone(), Some((*seconds).max(0).to_string())),
            // A directive of another type than RFC 9111 gives it makes the field invalid.
            (true, _) => return None,
            (false, Value::Flag(false)) => continue,
            (false, _) => (name.clone(), None),
        });
    }
    (!members.is_empty()).then_some(list)
}

/// Statuses whose caching is defined (RFC 9110 §15).
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=206 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// RFC 9110 §15.1.
fn is_cacheable_unasked(status: u16) -> bool {
    [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status)
}

/// RFC 5861 §4.
pub(super) fn is_failure(status: u16) -> bool {
    matches!(status, 0 | 500 | 502 | 503 | 504)
}

/// How two requests agree in the fields that a Vary names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Agreement {
    No,
    /// By a normalisation that is known to be harmless, which a cache may or may not know (RFC 9111 §4.1).
    InMeaning,
    ByTheLetter,
}

impl Reference {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, kept: Vec::new(), marked: false, named: Vec::new() }
    }

    /// RFC 9111 §4.2.3, in milliseconds.
    pub(super) fn age(kept: &Kept, now: u64) -> u64 {
        let date = date_field(&kept.fields, "date").map(|date| date * 1000);
        let received = kept.answered / 1000 * 1000;
        let apparent = date.map_or(0, |date| received.saturating_sub(date));
        let said = lines(&kept.fields, "age").first().and_then(|line| line.split(',').next());
        let said = said.and_then(|text| delta(text.trim())).unwrap_or(0) * 1000;
        let corrected = said + (kept.answered - kept.asked);
        apparent.max(corrected) + (now - kept.answered)
    }

    /// RFC 9111 §4.2.1 and §4.2.2, in seconds; and what the operator's bounds make of it. `None`: may not be kept.
    fn lifetime(&self, status: u16, response: &Fields, answered: u64) -> Option<u64> {
        let says = Says::of(response);
        let rules = &self.rules;
        let sent = date_field(response, "date").unwrap_or(answered / 1000);
        let expires = || match says.targeted {
            true => None,
            false if !has(response, "expires") => None,
            // §5.3: what is no date has passed.
            false => Some(date_field(response, "expires").map_or(0, |at| at.saturating_sub(sent))),
        };
        let explicit =
            says.seconds("s-maxage").or_else(|| says.seconds("max-age")).or_else(expires);
        if let Some(seconds) = explicit {
            let seconds = seconds.max(rules.least).min(rules.most);
            // An operator's minimum does not speak against `no-cache`.
            return Some(if says.has_bare("no-cache") { 0 } else { seconds });
        }
        let zero_if = |seconds| if says.has_bare("no-cache") { 0 } else { seconds };
        // The operator's negative lifetime.
        if status == 404 {
            return Some(zero_if(10));
        }
        let unasked = is_cacheable_unasked(status)
            && (rules.by_the_letter || ![405, 414, 501].contains(&status));
        if !unasked && !says.has("public") {
            return None;
        }
        let modified = date_field(response, "last-modified").filter(|_| rules.heuristic);
        let implicit = match modified {
            Some(modified) => (sent.saturating_sub(modified) / 10).min(86_400),
            None => rules.default,
        };
        Some(zero_if(implicit.min(rules.most)))
    }

    /// Until how many seconds past its lifetime it may be used: for `window` the name of the directive.
    fn stale_window(&self, kept: &Kept, window: &str, of_rules: u64) -> u64 {
        let says = Says::of(&kept.fields);
        let shared = says.has("s-maxage");
        // §4.2.4, §5.2.2.2, §5.2.2.8, §5.2.2.10.
        let forbidden = says.has("must-revalidate")
            || says.has("proxy-revalidate")
            || says.has_bare("no-cache")
            || (shared && !self.rules.beside_s_maxage);
        match says.seconds(window) {
            // Nobody is served an error a second time for want of a better one.
            _ if forbidden || is_failure(kept.status) => 0,
            Some(seconds) => seconds,
            None if shared => 0,
            None => of_rules,
        }
    }

    /// RFC 9111 §3. `failing`: content is kept that may answer for an origin that fails.
    pub(super) fn keep(&self, kept: &Kept, method: &str, failing: bool) -> Keep {
        let says = Says::of(&kept.fields);
        let asked = directives(&kept.request, "cache-control");
        let letter = self.rules.by_the_letter;
        let never = method != "GET" && method != "HEAD"
            || (letter && asked.iter().any(|(name, _)| name == "no-store"))
            || (says.has("no-store") && !says.has("must-understand"))
            || (says.has("must-understand") && !is_understood(kept.status))
            || says.has_bare("private")
            // §3.5.
            || (has(&kept.request, "authorization")
                && !says.has("public") && !says.has("s-maxage") && !says.has("must-revalidate"))
            || lines(&kept.fields, "vary").iter().any(|line| members(line).contains(&"*".to_owned()))
            // The safe profile.
            || (!letter && has(&kept.fields, "set-cookie") && !lists(&kept.fields, "set-cookie"))
            || (failing && is_failure(kept.status));
        if never {
            return Keep::Never;
        }
        let Some(lifetime) = self.lifetime(kept.status, &kept.fields, kept.answered) else {
            return Keep::Never;
        };
        // What is old when it comes is worth keeping only for what it may become; and what varies by a field that the origin
        // was not sent is of use to few.
        let varies = lines(&kept.fields, "vary").into_iter().flat_map(members);
        let unsent = varies
            .map(|name| name.to_ascii_lowercase())
            .any(|name| has(&kept.request, &name) && !has(&kept.sent, &name));
        let old = lifetime * 1000 <= Self::age(kept, kept.answered);
        if old || unsent { Keep::May } else { Keep::Must }
    }

    /// RFC 9111 §4.1.
    fn agreement(&self, kept: &Kept, request: &Fields) -> Agreement {
        let mut agreement = Agreement::ByTheLetter;
        for name in lines(&kept.fields, "vary").iter().flat_map(|line| members(line)) {
            let name = name.to_ascii_lowercase();
            let value = |fields: &Fields| {
                let joined = lines(fields, &name).join(",");
                let list: Vec<String> = joined.split(',').map(|m| m.trim().to_owned()).collect();
                has(fields, &name).then(|| list.join(","))
            };
            let (old, new) = (value(&kept.request), value(request));
            if old == new {
                continue;
            }
            let fold =
                |value: &Option<String>| value.as_ref().map(|value| value.to_ascii_lowercase());
            let same = match name.as_str() {
                "accept-language" => fold(&old) == fold(&new),
                // Which codings of those that it knows are accepted: all that it sends on.
                "accept-encoding" => codings(&old) == codings(&new),
                _ => false,
            };
            if !same {
                return Agreement::No;
            }
            agreement = agreement.min(Agreement::InMeaning);
        }
        // In the safe profile a field that other responses name may have made a difference here, too, without being named.
        let differs = |name: &String| lines(&kept.request, name) != lines(request, name);
        if !self.rules.by_the_letter && self.named.iter().any(differs) {
            agreement = agreement.min(Agreement::InMeaning);
        }
        agreement
    }

    /// All that may be done with a request now.
    pub(super) fn ways(&self, request: &Request, now: u64) -> Vec<Way> {
        let conditions = ["if-match", "if-unmodified-since"];
        let for_the_origin =
            self.rules.by_the_letter && conditions.iter().any(|name| has(&request.fields, name));
        if !matches!(request.method, "GET" | "HEAD") || request.content || for_the_origin {
            return vec![Way::Pass];
        }
        let mut ways = Vec::new();
        // §4: the most recent one by Date. What agrees in meaning only may count or not.
        let date = |kept: &Kept| date_field(&kept.fields, "date").unwrap_or(kept.answered / 1000);
        let agreeing = |least: Agreement| {
            let kept = self.kept.iter();
            kept.filter(move |kept| self.agreement(kept, &request.fields) >= least)
        };
        let newest = agreeing(Agreement::ByTheLetter).map(date).max();
        if newest.is_none() {
            ways.push(self.unless_only_cached(request, Way::Ask { id: None, stale_until: None }));
            if self.marked && !self.only_cached(request) {
                ways.push(Way::Pass);
            }
        }
        let selectable = |kept: &&Kept| newest.is_none_or(|newest| date(kept) >= newest);
        for kept in agreeing(Agreement::InMeaning).filter(selectable) {
            ways.extend(self.ways_with(kept, request, now));
        }
        ways
    }

    /// What the client's directives say, where they count (§5.2.1, §5.4).
    fn asked(&self, request: &Request) -> Vec<(String, Option<String>)> {
        if !self.rules.by_the_letter {
            return Vec::new();
        }
        let mut asked = directives(&request.fields, "cache-control");
        if !has(&request.fields, "cache-control") {
            asked = directives(&request.fields, "pragma");
            asked.retain(|(name, _)| name == "no-cache");
        }
        asked
    }

    fn only_cached(&self, request: &Request) -> bool {
        self.asked(request).iter().any(|(name, _)| name == "only-if-cached")
    }

    fn unless_only_cached(&self, request: &Request, way: Way) -> Way {
        if self.only_cached(request) { Way::Refuse } else { way }
    }

    fn ways_with(&self, kept: &Kept, request: &Request, now: u64) -> Vec<Way> {
        let says = Says::of(&kept.fields);
        let asked = self.asked(request);
        let asks = |name: &str| asked.iter().find(|(known, _)| known == name);
        let number =
            |name: &str| asks(name).map(|(_, argument)| argument.as_deref().and_then(delta));
        let age = Self::age(kept, now);
        let lifetime = self.lifetime(kept.status, &kept.fields, kept.answered).unwrap_or(0) * 1000;
        let left = lifetime as i64 - age as i64;
        let over = u64::try_from(-left).unwrap_or(0);
        let reuse = |behind| Way::Reuse { id: kept.id, age: age / 1000, behind };
        let rules = &self.rules;

        // Should the origin fail (RFC 5861 §4).
        let if_error = self.stale_window(kept, "stale-if-error", rules.if_error) * 1000;
        let stale_until = (if_error > 0 && over <= if_error).then(|| now + (if_error - over));
        let ask = self.unless_only_cached(request, Way::Ask { id: Some(kept.id), stale_until });
        if says.has_bare("no-cache") || asks("no-cache").is_some() {
            return vec![ask];
        }
        let too_old = number("max-age").is_some_and(|limit| age / 1000 > limit.unwrap_or(0));
        if too_old {
            // RFC 8246 §2: a reload of what is fresh and immutable.
            let spared = left > 0 && says.has("immutable");
            return if spared { vec![ask, reuse(false)] } else { vec![ask] };
        }
        let min_fresh = number("min-fresh").flatten();
        if left > 0 {
            let short = min_fresh.is_some_and(|wanted| (left as u64) < wanted * 1000);
            return vec![if short { ask } else { reuse(false) }];
        }
        // RFC 5861 §3; in the safe profile on the operator's word, too.
        let unasked = if rules.by_the_letter { 0 } else { rules.while_revalidate };
        let window = self.stale_window(kept, "stale-while-revalidate", unasked) * 1000;
        if min_fresh.is_none() && window > 0 && over <= window {
            return vec![reuse(true)];
        }
        // §5.2.1.2, unless forbidden (§4.2.4).
        let forbidden =
            says.has("must-revalidate") || says.has("proxy-revalidate") || says.has("s-maxage");
        let tolerated = match asks("max-stale") {
            Some((_, None)) => !says.has("s-maxage") || rules.beside_s_maxage || !forbidden,
            Some((_, Some(limit))) => over <= delta(limit).unwrap_or(0) * 1000,
            None => false,
        };
        let tolerated = tolerated && !forbidden && !is_failure(kept.status);
        vec![if tolerated && min_fresh.is_none() { reuse(false) } else { ask }]
    }

    /// The ones that a 304 speaks of (§4.3.4), by id; and whether it may be taken to speak of the only one, though it
    /// names no validator.
    pub(super) fn meant(
        &self,
        known: Option<u64>,
        sent: &Fields,
        not_modified: &Fields,
    ) -> Vec<u64> {
        // Those that were asked about: their tags were sent, or their date was.
        let tags: Vec<String> =
            lines(sent, "if-none-match").into_iter().flat_map(members).collect();
        let since = lines(sent, "if-modified-since");
        let asked: Vec<&Kept> = self
            .kept
            .iter()
            .filter(|kept| {
                lines(&kept.fields, "etag").iter().any(|tag| tags.iter().any(|sent| sent == tag))
                    || (known == Some(kept.id)
                        && lines(&kept.fields, "last-modified").iter().any(|d| since.contains(d)))
            })
            .collect();
        let tag = match lines(not_modified, "etag")[..] {
            [only] => entity_tag(only),
            _ => None,
        };
        let own = |kept: &Kept| lines(&kept.fields, "etag").first().and_then(|tag| entity_tag(tag));
        let same = |kept: &&&Kept| match &tag {
            Some((false, opaque)) => own(kept).is_some_and(|own| own == (false, opaque.clone())),
            Some((true, opaque)) => own(kept).is_some_and(|own| own.1 == *opaque),
            None => match date_field(not_modified, "last-modified") {
                Some(date) => date_field(&kept.fields, "last-modified") == Some(date),
                None => asked.len() == 1,
            },
        };
        asked.iter().filter(same).map(|kept| kept.id).collect()
    }

    /// What is kept of a response after a 304 (§3.2).
    pub(super) fn freshened(
        old: &Kept,
        request: &Fields,
        fields: &Fields,
        by: &Asked,
        by_the_letter: bool,
    ) -> Kept {
        let mut kept = old.clone();
        let strong = lines(&kept.fields, "etag").first().and_then(|tag| entity_tag(tag));
        let keeps_tag = strong.is_some_and(|(weak, _)| !weak);
        // It is as old as the 304 says.
        kept.fields.retain(|(name, _)| name != "age");
        if date_field(fields, "date").is_none() {
            kept.fields.retain(|(name, _)| name != "date");
        }
        for (name, _) in fields {
            let spared = match name.as_str() {
                "content-length" | "content-encoding" | "content-range" => true,
                "date" => date_field(fields, "date").is_none(),
                // A strong tag of the content that is kept is not replaced by a weaker word for it.
                "etag" => keeps_tag || entity_tag(lines(fields, "etag")[0]).is_none(),
                // One client's, in the safe profile.
                "set-cookie" => !by_the_letter,
                _ => false,
            };
            if !spared {
                kept.fields.retain(|(known, _)| known != name);
                let new =
                    lines(fields, name).into_iter().map(|value| (name.clone(), value.to_owned()));
                kept.fields.extend(new);
            }
        }
        Kept {
            sent: by.sent.clone(),
            request: request.clone(),
            asked: by.asked,
            answered: by.answered,
            ..kept
        }
    }
}

/// Whether `no-cache` or `private` name a field, which then is not kept while the rest is.
fn lists(response: &Fields, name: &str) -> bool {
    directives(response, "cache-control").iter().any(|(directive, argument)| {
        let argument = argument.as_deref().unwrap_or_default();
        (directive == "no-cache" || directive == "private")
            && members(argument).contains(&name.to_owned())
    })
}

/// The codings that Accept-Encoding accepts, of those that the cache sends on.
fn codings(value: &Option<String>) -> Vec<&'static str> {
    let accepted = |coding: &&'static str| {
        let list = value.as_deref().unwrap_or_default();
        list.split(',').any(|member| member.trim() == *coding)
    };
    ["br", "gzip", "zstd"].into_iter().filter(accepted).collect()
}

/// What a client's conditions and ranges make of a kept response: the status, and the bytes (RFC 9110 §13, §14).
pub(super) fn answered(
    request: &Request,
    status: u16,
    fields: &Fields,
    length: u64,
) -> (u16, Vec<(u64, u64)>) {
    if !(200..300).contains(&status) {
        return (status, Vec::new());
    }
    let own = match lines(fields, "etag")[..] {
        [first, ..] => entity_tag(first),
        [] => None,
    };
    let listed = |name: &str, strong: bool| {
        lines(&request.fields, name).into_iter().flat_map(members).any(|member| {
            member == "*"
                || entity_tag(&member).zip(own.clone()).is_some_and(|(listed, own)| {
                    listed.1 == own.1 && !(strong && (listed.0 || own.0))
                })
        })
    };
    let asked = &request.fields;
    let modified = date_field(fields, "last-modified");
    // RFC 9110 §13.2.2, step by step.
    if has(asked, "if-match") {
        if !listed("if-match", true) {
            return (412, Vec::new());
        }
    } else if let Some(since) = date_field(asked, "if-unmodified-since")
        && modified.is_some_and(|modified| modified > since)
    {
        return (412, Vec::new());
    }
    if has(asked, "if-none-match") {
        if listed("if-none-match", false) {
            return (304, Vec::new());
        }
    } else if let Some(since) = date_field(asked, "if-modified-since")
        && modified.or_else(|| date_field(fields, "date")).is_some_and(|modified| modified <= since)
    {
        return (304, Vec::new());
    }
    let [range] = lines(asked, "range")[..] else { return (status, Vec::new()) };
    if request.method != "GET" || status != 200 {
        return (status, Vec::new());
    }
    if let [condition] = lines(asked, "if-range")[..] {
        let holds = match entity_tag(condition) {
            Some((weak, opaque)) => !weak && own == Some((false, opaque)),
            // §13.1.5, §8.8.2.2: exactly, and only where it is strong.
            None => {
                let date = date_field(fields, "date");
                let strong = modified.zip(date).is_some_and(|(modified, date)| date > modified);
                strong && fields::parse_date(condition) == modified
            }
        };
        if !holds {
            return (status, Vec::new());
        }
    }
    parts(range, length).map_or((status, Vec::new()), |parts| match parts[..] {
        [] => (416, parts),
        _ => (206, parts),
    })
}

/// The bytes that a Range means, one by one: those that are asked for, as stretches in ascending order. `None`: it means
/// nothing.
fn parts(range: &str, length: u64) -> Option<Vec<(u64, u64)>> {
    let set = range.to_ascii_lowercase();
    let specs = members(set.strip_prefix("bytes=")?);
    let mut wanted = vec![false; usize::try_from(length).unwrap()];
    for spec in &specs {
        let (first, last) = spec.split_once('-')?;
        let (first, last) = match (first.is_empty(), last.is_empty()) {
            (true, true) => return None,
            (true, false) => (length.saturating_sub(last.parse().ok()?), length),
            (false, true) => (first.parse().ok()?, length),
            (false, false) => (first.parse().ok()?, last.parse().ok()?),
        };
        if first > last {
            return None;
        }
        for (at, wanted) in wanted.iter_mut().enumerate() {
            *wanted |= (first..=last).contains(&(at as u64));
        }
    }
    if specs.is_empty() {
        return None;
    }
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for (at, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted) {
        let at = at as u64;
        match stretches.last_mut() {
            Some((_, end)) if *end + 1 == at => *end = at,
            _ => stretches.push((at, at)),
        }
    }
    Some(stretches)
}
