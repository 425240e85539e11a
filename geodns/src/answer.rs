//! A query's bytes to an answer's bytes: the hot path. Cannot fail, cannot wait, takes no room on the heap.
//!
//! Follows RFC 1034 §4.3.2 over the zones of the snapshot: the name, or the wildcard or the delegation that stands for
//! it; aliases in order within our zones; steered names by [`crate::steer`]; SOA in negative answers. Sockets, logs
//! and counters are the caller's.

mod ahead;
mod chaos;
mod context;
mod derived;
mod https;
mod limits;

pub use ahead::{Reading, call_in};
pub use context::{Client, Context, Server, Transport};
pub use limits::MAX_MESSAGE;
use xxhash_rust::xxh3::xxh3_64;

use crate::cookie;
use crate::edns::Keepalive;
use crate::health::Verdict;
use crate::name::{MAX_NAME_BYTES, wire_length};
use crate::reason::Reason;
use crate::rtype;
use crate::snapshot::Snapshot;
use crate::steer::{self, Asked, Decision};
use crate::wire::{LowerName, QUESTION_NAME, Query, Rcode, Refusal, Response, Section, class};
use crate::world::{DatacenterId, Family, PolicyId};
use crate::zone::{Alias, Found, Node, RDATA_AT, Zone};

/// What became of a query.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The first `length` octets of the buffer are the answer.
    Respond {
        /// Octets.
        length: usize,
        /// For log and metrics.
        facts: Facts,
    },
    /// No answer is to be sent.
    Drop(Reason),
}

impl Outcome {
    /// Octets of the answer; 0 for none.
    pub const fn length(&self) -> usize {
        match self {
            Self::Respond { length, .. } => *length,
            Self::Drop(_) => 0,
        }
    }
}

/// What log and metrics tell of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The response code.
    pub rcode: Rcode,
    /// Why.
    pub reason: Reason,
    /// The policy, when the name is steered.
    pub policy: Option<PolicyId>,
    /// The datacenter, when one was chosen.
    pub datacenter: Option<DatacenterId>,
    /// The scope of the answer.
    pub scope_bits: u8,
    /// Whether the answer is truncated: it did not fit, or the client is over its rate.
    pub truncated: bool,
    /// What the query's cookie says.
    pub cookie: cookie::State,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            rcode: Rcode::NoError,
            reason: Reason::Static,
            policy: None,
            datacenter: None,
            scope_bits: 0,
            truncated: false,
            cookie: cookie::State::Absent,
        }
    }
}

/// Aliases followed in one answer at most.
const MAX_ALIASES: usize = 8;

/// Answers `packet` into `out`, which holds at least [`crate::wire::MIN_BUFFER`] octets.
pub fn answer(
    packet: &[u8],
    client: &Client,
    context: &Context<'_>,
    snapshot: &Snapshot,
    out: &mut [u8],
) -> Outcome {
    let mut name = LowerName::default();
    answer_read(&Reading::new(packet, *client, &mut name), context, snapshot, out)
}

/// As [`answer`], for a query that has been read.
pub fn answer_read(
    reading: &Reading<'_>,
    context: &Context<'_>,
    snapshot: &Snapshot,
    out: &mut [u8],
) -> Outcome {
    if reading.client.address.port() == 0 {
        return Outcome::Drop(Reason::SourcePort);
    }
    match &reading.parsed {
        Ok(query) => respond(query, reading, context, snapshot, out),
        Err(refusal) => refuse(refusal, reading, context, out),
    }
}

#[cold]
fn refuse(
    refusal: &Refusal<'_>,
    reading: &Reading<'_>,
    context: &Context<'_>,
    out: &mut [u8],
) -> Outcome {
    let client = &reading.client;
    let Refusal::Error { echo, rcode, edns, tsig } = refusal else {
        return Outcome::Drop(Reason::NotAQuery);
    };
    let reason = match rcode {
        Rcode::NotImp => Reason::Opcode,
        Rcode::BadVers => Reason::EdnsVersion,
        Rcode::NotAuth => Reason::UnknownKey,
        _ => Reason::Malformed,
    };
    let mut facts = Facts { rcode: *rcode, reason, ..Facts::default() };
    let mut opt = edns.as_ref().map(|edns| {
        let (opt, cookie) = context.opt(edns, client);
        facts.cookie = cookie;
        opt
    });
    if echo.asks_nothing() && facts.cookie != cookie::State::Absent {
        // RFC 7873 §5.4: such a query is for a cookie, or to hear whether one is good.
        let is_bad = facts.cookie == cookie::State::Invalid;
        facts.rcode = if is_bad { Rcode::BadCookie } else { Rcode::NoError };
        facts.reason = Reason::Cookie;
    }
    let limit = limits::size(edns.as_ref(), client.transport);
    let Some(mut response) = Response::begin(out, limit, echo, opt.as_ref()) else {
        return Outcome::Drop(facts.reason);
    };
    if let Err(reason) = limits::rate(reading, context, &mut response, &mut facts, &mut opt) {
        return Outcome::Drop(reason);
    }
    if let Some(opt) = &mut opt {
        opt.error = facts.reason.extended_error();
    }
    let length = match tsig {
        None => response.finish(facts.rcode, false, opt.as_ref()),
        Some(tsig) => response.finish_with_bad_key(facts.rcode, opt.as_ref(), tsig),
    };
    Outcome::Respond { length, facts }
}

fn respond(
    query: &Query<'_>,
    reading: &Reading<'_>,
    context: &Context<'_>,
    snapshot: &Snapshot,
    out: &mut [u8],
) -> Outcome {
    let client = &reading.client;
    let limit = limits::size(query.edns.as_ref(), client.transport);
    let mut facts = Facts::default();
    let mut opt = query.edns.as_ref().map(|edns| {
        let (opt, cookie) = context.opt(edns, client);
        facts.cookie = cookie;
        opt
    });
    let Some(response) = Response::begin(out, limit, &query.echo, opt.as_ref()) else {
        return Outcome::Drop(Reason::NotAQuery);
    };
    let mut answering = Answering {
        response,
        snapshot,
        client,
        context,
        query,
        name: reading.name,
        facts,
        authoritative: false,
    };
    answering.run();
    let Answering { mut response, mut facts, authoritative, .. } = answering;
    facts.truncated = response.is_truncated();
    if context.server.limiter.is_some()
        && let Err(reason) = limits::rate(reading, context, &mut response, &mut facts, &mut opt)
    {
        return Outcome::Drop(reason);
    }
    if let Some(opt) = &mut opt {
        opt.scope_bits = facts.scope_bits;
        opt.error = facts.reason.extended_error();
    }
    // Errors and what rate limiting sends are no word on the zone's data.
    let authoritative = authoritative
        && matches!(facts.rcode, Rcode::NoError | Rcode::NxDomain | Rcode::YxDomain)
        && facts.reason != Reason::RateLimit;
    let length = response.finish(facts.rcode, authoritative, opt.as_ref());
    Outcome::Respond { length, facts }
}

struct Answering<'a, 'o> {
    response: Response<'o>,
    snapshot: &'a Snapshot,
    client: &'a Client,
    context: &'a Context<'a>,
    query: &'a Query<'a>,
    name: &'a LowerName,
    facts: Facts,
    authoritative: bool,
}

/// The name that is being looked up, in lower case: the question's, or the last alias's target.
#[derive(Clone, Copy)]
struct Current<'n> {
    name: &'n [u8],
    hash: u64,
    /// Where the name stands in the answer.
    at: u16,
}

impl Current<'_> {
    /// A pointer to the last `length` octets of the name.
    fn suffix(&self, length: usize) -> u16 {
        let skipped = u16::try_from(self.name.len().saturating_sub(length)).unwrap_or(0);
        self.at.saturating_add(skipped)
    }
}

/// Whether the walk along aliases goes on.
enum Next {
    Done,
    /// With the name that stands here in the answer.
    Follow(u16),
}

impl Answering<'_, '_> {
    fn run(&mut self) {
        if self.query.qclass != class::IN {
            return self.other_class();
        }
        if self.query.edns.as_ref().is_some_and(|edns| edns.keepalive == Keepalive::WithTimeout)
            && self.client.transport.keeps_alive()
        {
            return self.fail(Rcode::FormErr, Reason::Malformed);
        }
        if matches!(self.query.qtype, rtype::AXFR | rtype::IXFR) {
            return self.fail(Rcode::Refused, Reason::Transfer);
        }
        if self.query.qtype == rtype::TXT && self.explained() {
            return;
        }
        let current =
            Current { name: self.name.as_wire(), hash: self.name.hash(), at: QUESTION_NAME };
        if let Next::Follow(at) = self.step(&current, false) {
            self.follow_aliases(at);
        }
    }

    /// Goes on with the name at `at` in the answer, and with those that it leads to.
    fn follow_aliases(&mut self, mut at: u16) {
        let mut targets = [0; MAX_ALIASES];
        let mut octets = [0; MAX_NAME_BYTES];
        for slot in 1..MAX_ALIASES {
            let written = self.response.written().get(usize::from(at)..).unwrap_or_default();
            let length = wire_length(written).unwrap_or(0);
            let (Some(from), Some(name)) = (written.get(..length), octets.get_mut(..length)) else {
                break;
            };
            name.copy_from_slice(from);
            name.make_ascii_lowercase();
            // Names that lead back to one another are told once; whoever asked sees the loop in them.
            let hash = xxh3_64(name);
            if name == self.name.as_wire() || targets.contains(&hash) {
                break;
            }
            if let Some(slot) = targets.get_mut(slot) {
                *slot = hash;
            }
            match self.step(&Current { name, hash, at: 0xc000 | at }, true) {
                Next::Done => return,
                Next::Follow(next) => at = next,
            }
        }
        self.facts.reason = Reason::Alias;
    }

    fn fail(&mut self, rcode: Rcode, reason: Reason) {
        (self.facts.rcode, self.facts.reason) = (rcode, reason);
    }

    /// One name of the chain.
    fn step(&mut self, current: &Current<'_>, aliased: bool) -> Next {
        let zones = &self.snapshot.tables.zones;
        let found = zones.find_hashed(current.name, current.hash, self.query.qtype == rtype::DS);
        if !matches!(found, Found::Foreign) && (aliased || !matches!(found, Found::Delegated(_))) {
            self.authoritative = true;
        }
        match found {
            Found::Node(zone, node) => return self.at_node(zone, node, current, aliased),
            Found::Renamed(zone, node) => return self.rename(zone, node, current),
            Found::Delegated(cut) => self.refer(cut, current),
            Found::Missing(zone) => {
                self.facts.rcode = Rcode::NxDomain;
                self.negative(zone, current, Reason::NxDomain);
            }
            Found::Foreign if aliased => self.facts.reason = Reason::Alias,
            Found::Foreign => self.fail(Rcode::Refused, Reason::NotAuthoritative),
        }
        Next::Done
    }

    fn at_node(
        &mut self,
        zone: &Zone,
        node: Node<'_>,
        current: &Current<'_>,
        aliased: bool,
    ) -> Next {
        let qtype = self.query.qtype;
        if let Some(policy) = node.steered()
            && let Some(family) = Family::of_type(qtype)
        {
            self.steered(policy, family, zone, current, aliased, None);
            return Next::Done;
        }
        if let Some(rrset) = node.rrset(qtype) {
            self.response.put_owned(Section::Answer, rrset.count, rrset.wire, current.at, None);
            return Next::Done;
        }
        if matches!(qtype, rtype::A | rtype::AAAA | rtype::HTTPS)
            && self.derived(qtype, zone, node, current, aliased)
        {
            return Next::Done;
        }
        if qtype == rtype::ANY {
            self.any(zone, node, current, aliased);
            return Next::Done;
        }
        if let Some(alias) = node.rrset(rtype::CNAME) {
            let put = self.response.put_owned(Section::Answer, 1, alias.wire, current.at, None);
            return self.follow(put);
        }
        self.negative(zone, current, Reason::NoData);
        Next::Done
    }

    /// Goes on with the alias whose record was put at `put`, when a pointer reaches that far.
    fn follow(&mut self, put: Option<usize>) -> Next {
        match put.and_then(|at| u16::try_from(at + RDATA_AT).ok()).filter(|at| *at < 0x4000) {
            Some(at) => Next::Follow(at),
            None => {
                self.facts.reason = Reason::Alias;
                Next::Done
            }
        }
    }

    /// RFC 8482 §4.1: one RRset, whichever.
    #[cold]
    fn any(&mut self, zone: &Zone, node: Node<'_>, current: &Current<'_>, aliased: bool) {
        if let Some(rrset) = node.rrsets().next() {
            self.response.put_owned(Section::Answer, rrset.count, rrset.wire, current.at, None);
            self.facts.reason = Reason::MinimalAny;
            return;
        }
        let has_v4 = self.derived(rtype::A, zone, node, current, aliased);
        if has_v4 && self.facts.reason != Reason::NoFamily {
            return;
        }
        self.response.clear();
        if !self.derived(rtype::AAAA, zone, node, current, aliased) && !has_v4 {
            self.negative(zone, current, Reason::NoData);
        }
    }

    /// RFC 6672 §3.2: the DNAME, and a CNAME made from it.
    #[cold]
    fn rename(&mut self, zone: &Zone, node: Node<'_>, current: &Current<'_>) -> Next {
        let Some(dname) = node.rrset(rtype::DNAME) else {
            self.negative(zone, current, Reason::NoData);
            return Next::Done;
        };
        let owner = current.suffix(node.name_length());
        self.response.put_owned(Section::Answer, 1, dname.wire, owner, None);
        let target = dname.first_rdata();
        let kept = current.name.len().saturating_sub(node.name_length());
        let mut record = [0; RDATA_AT + MAX_NAME_BYTES];
        let length = kept + target.len();
        let (Some(prefix), Some(room)) =
            (current.name.get(..kept), record.get_mut(RDATA_AT..RDATA_AT + length))
        else {
            self.fail(Rcode::YxDomain, Reason::NameTooLong);
            return Next::Done;
        };
        if length > MAX_NAME_BYTES {
            self.fail(Rcode::YxDomain, Reason::NameTooLong);
            return Next::Done;
        }
        let (front, back) = room.split_at_mut(kept);
        front.copy_from_slice(prefix);
        back.copy_from_slice(target);
        let [owner_high, owner_low] = current.at.to_be_bytes();
        let [t0, t1, t2, t3] = dname.ttl().to_be_bytes();
        let [n0, n1] = (length as u16).to_be_bytes();
        if let Some(head) = record.first_chunk_mut::<RDATA_AT>() {
            *head = [owner_high, owner_low, 0, 5, 0, 1, t0, t1, t2, t3, n0, n1];
        }
        let whole = record.get(..RDATA_AT + length).unwrap_or_default();
        let put = self.response.put(Section::Answer, 1, whole);
        if self.query.qtype == rtype::CNAME {
            return Next::Done;
        }
        self.follow(put)
    }

    fn refer(&mut self, cut: Node<'_>, current: &Current<'_>) {
        let (Some(referral), Some(servers)) = (cut.referral(), cut.rrset(rtype::NS)) else {
            return;
        };
        let owner = current.suffix(cut.name_length());
        self.response.put_owned(Section::Authority, servers.count, servers.wire, owner, None);
        self.response.put(Section::Additional, referral.glue_count, &referral.glue);
        self.facts.reason = Reason::Referral;
    }

    fn negative(&mut self, zone: &Zone, current: &Current<'_>, reason: Reason) {
        let owner = current.suffix(zone.apex.as_wire().len());
        self.response.put_owned(Section::Authority, 1, &zone.negative, owner, None);
        self.facts.reason = reason;
    }

    fn steered(
        &mut self,
        id: PolicyId,
        family: Family,
        zone: &Zone,
        current: &Current<'_>,
        aliased: bool,
        via: Option<&Alias>,
    ) {
        let name = via.map_or_else(|| current.name, |alias| alias.name.as_wire());
        let Some(decision) =
            decide(self.snapshot, id, family, name, self.client, self.query, |_, _| {})
        else {
            return self.fail(Rcode::ServFail, Reason::DownServFail);
        };
        self.facts.policy = Some(id);
        if aliased && decision.scope_bits > 0 {
            // The alias holds for everybody, this answer does not (RFC 7871 §7.2.1): it is asked for separately.
            self.facts.reason = Reason::Alias;
            return;
        }
        self.facts.datacenter = decision.datacenter;
        self.facts.scope_bits = decision.scope_bits;
        match decision.reason {
            Reason::DownServFail => return self.fail(Rcode::ServFail, decision.reason),
            Reason::NoFamily | Reason::DownNoData => {
                return self.negative(zone, current, decision.reason);
            }
            reason => self.facts.reason = reason,
        }
        let ttl = via.map_or(decision.ttl, |alias| alias.ttl.min(decision.ttl));
        for target in decision.targets() {
            self.response.put_owned(
                Section::Answer,
                target.count,
                &target.records,
                current.at,
                Some(ttl),
            );
        }
    }
}

/// The decision for a steered name, as [`answer`] takes it; `None` for a policy that there is not.
pub fn decide<'s>(
    snapshot: &'s Snapshot,
    id: PolicyId,
    family: Family,
    name: &[u8],
    client: &Client,
    query: &Query<'_>,
    trace: impl FnMut(DatacenterId, Verdict),
) -> Option<Decision<'s>> {
    let (policy, map) = snapshot.tables.policy(id)?;
    let asked = Asked {
        client: client.address.ip(),
        subnet: query.edns.and_then(|edns| edns.subnet),
        family,
        name: xxh3_64(name),
        draw: client.draw,
    };
    Some(steer::decide((id, policy), map, &snapshot.health, &asked, trace))
}

#[cfg(test)]
mod tests;
