//! Why a client gets what it gets: the decision that serves, told in full.
//!
//! Runs the very [`answer`] and [`decide`] of the hot path on the query that a resolver would send, and adds what the
//! hot path has no use for: what is known of the client's network, distances, and the state of every edge.

mod brief;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use brief::{Brief, brief};
use serde::{Deserialize, Serialize};
use shared::health::State;
use shared::prefix::Prefix;
use shared::time::UnixMillis;

use crate::answer::{Client, Context, Outcome, Server, Transport, answer, decide};
use crate::health::{Facts, Intake, Mode, Verdict};
use crate::map::{self, Matched, Whose};
use crate::name::Name;
use crate::present::{Presented, present};
use crate::reason::Reason;
use crate::rtype;
use crate::service::{Lack, Service};
use crate::snapshot::{Snapshot, Tables};
use crate::steer::Decision;
use crate::wire::{self, Query};
use crate::world::{DatacenterId, EdgeId, Family, Policy, PolicyId, RuleBy};
use crate::zone::Found;

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name asked for.
    pub name: Name,
    /// The type asked for.
    pub qtype: u16,
    /// Where the query comes from.
    pub client: IpAddr,
    /// The client subnet in it.
    pub subnet: Option<Prefix>,
}

/// The explanation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The name asked for.
    pub name: String,
    /// The type asked for.
    pub r#type: String,
    /// Where the query comes from.
    pub client: IpAddr,
    /// The client subnet in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Prefix>,
    /// Names that lead from the name asked for to the one whose records are answered: CNAME and ALIAS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Steering, when the name is steered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<Steering>,
    /// HTTPS records of the name, when they were asked for and it is steered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<String>,
    /// The reason's code.
    pub reason: String,
    /// The reason in words.
    pub explanation: String,
    /// The answer itself.
    pub answer: Presented,
}

/// How the policy decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Steering {
    /// The policy.
    pub policy: String,
    /// The address that decided.
    pub decided_by: IpAddr,
    /// Whether that is the client subnet's or the client's own.
    pub decided_by_subnet: bool,
    /// What is known of the address, a line for each fact.
    pub known: Vec<String>,
    /// The network that what decided is said of.
    pub network: Prefix,
    /// What decided the order of datacenters.
    pub matched: String,
    /// Datacenters in the client's order.
    pub candidates: Vec<Candidate>,
    /// The one that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// The code of the decision's reason.
    pub reason: String,
    /// Seconds.
    pub ttl: u32,
    /// What the TTL ends by.
    pub ttl_because: String,
    /// SCOPE PREFIX-LENGTH.
    pub scope_bits: u8,
}

/// A datacenter in the client's order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub datacenter: String,
    /// Great-circle distance from the client's place, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance_km: Option<u32>,
    /// What was found when it was considered; none when one before it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The same in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The share of its clients that it takes, in percent, while that is not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_percent: Option<u32>,
    /// Its edges and their states.
    pub edges: Vec<String>,
}

/// Explains one query at one state of the world.
///
/// # Errors
/// A bug of ours: an answer that cannot be decoded.
pub fn explain(snapshot: &Snapshot, request: &Request) -> Result<Explained, String> {
    let packet = wire::write_query(0, &request.name, request.qtype, request.subnet);
    let client =
        Client { address: SocketAddr::new(request.client, 53), transport: Transport::Tcp, draw: 0 };
    // The query asks for nothing that the server keeps of its own.
    let server = Server::default();
    let context = Context { server: &server, now: UnixMillis(0) };
    let mut out = vec![0; crate::answer::MAX_MESSAGE];
    let (length, facts) = match answer(&packet, &client, &context, snapshot, &mut out) {
        Outcome::Respond { length, facts } => (length, facts),
        Outcome::Drop(reason) => return Err(format!("not answered: {}", reason.explanation())),
    };
    let presented = present(out.get(..length).unwrap_or_default())?;
    let (leads, aliases) = leads_to(snapshot, request);
    let query = wire::parse(&packet).ok();
    let steering = query.and_then(|query| {
        let leads = leads.as_ref()?;
        let decided = |family| steering(snapshot, &query, &client, family, leads);
        match (Family::of_type(request.qtype), request.qtype) {
            (Some(family), _) => decided(family),
            // An HTTPS record has the addresses of both families: told is the one that the record follows.
            (None, rtype::HTTPS) => decided(Family::V4)
                .filter(|told| told.datacenter.is_some())
                .or_else(|| decided(Family::V6)),
            _ => None,
        }
    });
    let https = leads.filter(|_| request.qtype == rtype::HTTPS);
    let https = https.map(|leads| https_text(snapshot, leads.policy));
    Ok(Explained {
        name: request.name.to_string(),
        r#type: rtype::Shown(request.qtype).to_string(),
        client: request.client,
        subnet: request.subnet,
        aliases,
        steering,
        https,
        reason: facts.reason.as_str().to_owned(),
        explanation: facts.reason.explanation().to_owned(),
        answer: presented,
    })
}

/// A steered name, asked for itself or through others.
struct Leads {
    name: Name,
    policy: PolicyId,
    /// What an ALIAS on the way allows.
    most_ttl: u32,
}

/// The steered name that the name asked for is or leads to, and the aliases in between.
fn leads_to(snapshot: &Snapshot, request: &Request) -> (Option<Leads>, Vec<String>) {
    let asked = request.name.to_lower();
    let mut name = asked.clone();
    let mut aliases = Vec::new();
    for _ in 0..8 {
        let Found::Node(_, node) = snapshot.tables.zones.find(name.as_wire(), false) else { break };
        if let Some((alias, target)) = node.alias() {
            aliases.extend(alias.through.iter().chain([&alias.name]).map(Name::to_string));
            let leads = |policy| Leads { name: alias.name.clone(), policy, most_ttl: alias.ttl };
            return (target.steered().map(leads), aliases);
        }
        if let Some(policy) = node.steered() {
            return (Some(Leads { name, policy, most_ttl: u32::MAX }), aliases);
        }
        let target =
            node.rrset(rtype::CNAME).and_then(|alias| Name::from_wire(alias.first_rdata()));
        let Some(target) = target.map(|target| target.to_lower()) else { break };
        if target == asked || aliases.contains(&target.to_string()) {
            break;
        }
        aliases.push(target.to_string());
        name = target;
    }
    (None, aliases)
}

/// Whether a policy's names have HTTPS records, and why not.
fn https_text(snapshot: &Snapshot, policy: PolicyId) -> String {
    let Tables { services, world, .. } = &*snapshot.tables;
    let name = |edge: EdgeId| world.edges.get(usize::from(edge)).map_or("", |edge| &edge.name);
    match (services.of(policy), services.lack(policy)) {
        (Some(Service { port: None }), _) => "on the port of the scheme".to_owned(),
        (Some(Service { port: Some(port) }), _) => format!("on port {port}"),
        (None, Some(Lack::Listener(edge))) => {
            format!("none: edge {} does not listen for https", name(edge))
        }
        (None, Some(Lack::Port(edge))) => {
            format!("none: edge {} listens for https on another port than the others", name(edge))
        }
        (None, Some(Lack::Certificate)) => {
            "none: a site of this policy's names has no `tls`, only a self-signed certificate"
                .to_owned()
        }
        (None, _) => "none: the policy has no edges".to_owned(),
    }
}

fn steering(
    snapshot: &Snapshot,
    query: &Query<'_>,
    client: &Client,
    family: Family,
    leads: &Leads,
) -> Option<Steering> {
    let (policy_id, name) = (leads.policy, leads.name.as_wire());
    let (policy, _) = snapshot.tables.policy(policy_id)?;
    let world = &snapshot.tables.world;
    let mut seen: Vec<(DatacenterId, Verdict)> = Vec::new();
    let decision =
        decide(snapshot, policy_id, family, name, client, query, |datacenter, verdict| {
            seen.push((datacenter, verdict));
        })?;
    let by = decision.decided_by;
    let known = map::explain(world, policy, &snapshot.tables.geography, by, decision.whose);
    let from = known.description.place.as_ref().and_then(|place| place.place.location);
    let not_seen = known.list.datacenters.iter().filter(|id| !seen.iter().any(|(s, _)| s == *id));
    let order = seen.iter().map(|(id, verdict)| (*id, Some(*verdict)));
    let candidates = order.chain(not_seen.map(|id| (*id, None))).map(|(id, verdict)| Candidate {
        datacenter: world.datacenter_name(id).to_owned(),
        distance_km: from
            .and_then(|from| map::distance_km(world, from, id))
            .map(|distance| distance.round() as u32),
        verdict: verdict.map(|verdict| verdict_text(verdict).to_owned()),
        code: verdict.and_then(code),
        // Who is out takes nobody: its share is that of its return.
        takes_percent: takes_percent(snapshot.health.intakes(policy_id), id)
            .filter(|_| verdict.is_none_or(Verdict::can_take)),
        edges: edges(snapshot, policy, id),
    });
    Some(Steering {
        policy: policy.name.clone(),
        decided_by: by,
        decided_by_subnet: decision.whose == Whose::Subnet,
        known: known.description.to_string().lines().map(str::to_owned).collect(),
        network: known.network,
        matched: matched_text(snapshot, policy, known.matched),
        candidates: candidates.collect(),
        datacenter: decision.datacenter.map(|id| world.datacenter_name(id).to_owned()),
        reason: decision.reason.as_str().to_owned(),
        ttl: decision.ttl.min(leads.most_ttl),
        ttl_because: match decision.ttl > leads.most_ttl {
            true => "the TTL of the ALIAS, or of what it leads through".to_owned(),
            false => ttl_text(policy, &decision).to_owned(),
        },
        scope_bits: decision.scope_bits,
    })
}

fn matched_text(snapshot: &Snapshot, policy: &Policy, matched: Matched) -> String {
    match matched {
        Matched::Network(id) => {
            format!(
                "the operator's network puts {} first",
                snapshot.tables.world.datacenter_name(id)
            )
        }
        Matched::Rule(index) => {
            let about = match policy.rules.get(index).map(|rule| rule.by) {
                Some(RuleBy::Subnet) => ", about client subnets",
                Some(RuleBy::Resolver) => ", about resolvers' addresses",
                Some(RuleBy::Any) | None => "",
            };
            format!("rule {} of the policy{about}", index + 1)
        }
        Matched::Distance(from) => format!("distance from {from}"),
        Matched::Nowhere => "the place is not known: datacenters as they are listed".to_owned(),
        Matched::Listed => "datacenters as they are listed".to_owned(),
        Matched::Weighted => "a draw by weight, stable for the network".to_owned(),
    }
}

/// What the TTL of a decision ends by: see `health`.
const fn ttl_text(policy: &Policy, decision: &Decision<'_>) -> &'static str {
    let all_down = matches!(decision.reason, Reason::LastGood | Reason::AllDown | Reason::Fallback);
    match decision.ttl {
        _ if decision.datacenter.is_none() => "no address is answered",
        ttl if all_down && ttl == policy.ttl_min => "the policy's `min`: no datacenter is up",
        ttl if ttl == policy.ttl_max => "the policy's `max`: no change is nearer",
        ttl if ttl == policy.ttl_min => "the policy's `min`: a change may be that near",
        _ => "the nearest moment at which the answer could change",
    }
}

/// While a datacenter returns or sheds load: how much of its clients it takes.
fn takes_percent(intakes: &[Intake], datacenter: DatacenterId) -> Option<u32> {
    let intake = intakes.get(usize::from(datacenter)).filter(|i| **i != Intake::default())?;
    Some((intake.returned.min(1.0 - intake.shed) * 100.0).round() as u32)
}

/// The verdict as JSON has it.
fn code(verdict: Verdict) -> Option<String> {
    serde_json::to_value(verdict).ok()?.as_str().map(str::to_owned)
}

const fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Up => "up",
        Verdict::Down => "down: none of its edges is up",
        Verdict::TooFew => "down: fewer edges are up than min_up wants",
        Verdict::ForcedDown => "taken down by the operator",
        Verdict::Draining => "drained",
        Verdict::NoFamily => "has no address of this family",
        Verdict::Substitute => "not up, but answered since no datacenter is",
        Verdict::Returning => "returns, and does not take this client yet",
        Verdict::Shedding => "has too much load, and gave this client up",
        Verdict::Full => "has all the clients that it may have",
    }
}

fn edges(snapshot: &Snapshot, policy: &Policy, datacenter: DatacenterId) -> Vec<String> {
    let facts = &snapshot.health.facts;
    let edges = snapshot.tables.world.edges_of(datacenter);
    edges.map(|(id, edge)| format!("{}: {}", edge.name, edge_text(facts, policy, id))).collect()
}

fn edge_text(facts: &Facts, policy: &Policy, edge: EdgeId) -> String {
    match facts.edges.get(usize::from(edge)).copied().unwrap_or_default() {
        Mode::Auto => {}
        Mode::Up => return "up, set by the operator".to_owned(),
        Mode::Down => return "down, set by the operator".to_owned(),
        Mode::Drain => return "drained by the operator".to_owned(),
    }
    let Some(seen) = facts.observed(policy.check, edge) else {
        return "presumed up: not checked".to_owned();
    };
    let state = match seen.state {
        _ if seen.draining => "drained at the edge",
        State::Unknown => "presumed up: not checked yet",
        State::Up => "up",
        State::Down => "down",
    };
    match &seen.failure {
        Some(failure) => format!("{state} (last check: {failure})"),
        None => state.to_owned(),
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} for {}", self.name, self.r#type, self.client)?;
        if let Some(subnet) = self.subnet {
            write!(f, ", client subnet {subnet}")?;
        }
        writeln!(f)?;
        for alias in &self.aliases {
            writeln!(f, "  alias of    {alias}")?;
        }
        if let Some(steering) = &self.steering {
            write!(f, "{steering}")?;
        }
        if let Some(https) = &self.https {
            writeln!(f, "  HTTPS       {https}")?;
        }
        writeln!(f, "  reason      {}: {}", self.reason, self.explanation)?;
        writeln!(f, "  answer      {} ({})", self.answer.rcode, self.answer.flags.join(" "))?;
        for record in self.answer.answer.iter().chain(&self.answer.authority) {
            writeln!(f, "    {record}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  policy      {}", self.policy)?;
        let whose =
            if self.decided_by_subnet { "the client subnet" } else { "the client's address" };
        writeln!(f, "  decided by  {} ({whose})", self.decided_by)?;
        for fact in &self.known {
            writeln!(f, "  known       {fact}")?;
        }
        writeln!(f, "  matched     {}: {}", self.network, self.matched)?;
        for (index, candidate) in self.candidates.iter().enumerate() {
            write!(f, "  {:>9}.  {:<12}", index + 1, candidate.datacenter)?;
            if let Some(distance) = candidate.distance_km {
                write!(f, " {distance:>6} km")?;
            }
            write!(f, "  {}", candidate.verdict.as_deref().unwrap_or("not considered"))?;
            match candidate.takes_percent {
                Some(percent) => writeln!(f, "; takes {percent} % of its clients")?,
                None => writeln!(f)?,
            }
            for edge in &candidate.edges {
                writeln!(f, "                {edge}")?;
            }
        }
        match &self.datacenter {
            Some(datacenter) => write!(f, "  chosen      {datacenter}")?,
            None => write!(f, "  chosen      none")?,
        }
        writeln!(f, ", TTL {} s, scope /{}", self.ttl, self.scope_bits)?;
        writeln!(f, "  TTL by      {}", self.ttl_because)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Intake;
    use crate::testing::{self, FRA};
    use crate::world::Rule;

    fn explained(edges_down: &[u16], name: &str, rtype: &str, subnet: Option<&str>) -> Explained {
        let all = testing::snapshot(testing::world(&[FRA], |_| {}), &[("10.1.0.0/16", "fra")]);
        let snapshot = all.with_health(testing::down(&all.tables.world, edges_down));
        let request = Request {
            name: Name::parse_absolute(name).unwrap(),
            qtype: rtype::parse(rtype).unwrap(),
            client: "1.208.0.1".parse().unwrap(),
            subnet: subnet.map(|net| net.parse().unwrap()),
        };
        explain(&snapshot, &request).unwrap()
    }

    #[test]
    fn an_edge_that_drains_by_itself_is_told_so() {
        let all = testing::snapshot(testing::world(&[FRA], |_| {}), &[]);
        let mut facts = testing::down(&all.tables.world, &[]);
        facts.observed[0].iter_mut().take(2).flatten().for_each(|seen| seen.draining = true);
        facts.intakes = vec![vec![Intake { returned: 0.05, shed: 0.0 }; 3]];
        let request = Request {
            name: Name::parse_absolute("www.cdn.test").unwrap(),
            qtype: rtype::parse("A").unwrap(),
            client: "1.208.0.1".parse().unwrap(),
            subnet: None,
        };
        let explained = explain(&all.with_health(facts), &request).unwrap();
        let first = &explained.steering.as_ref().unwrap().candidates[0];
        assert_eq!(first.verdict.as_deref(), Some("drained"));
        assert_eq!(first.edges, ["icn-1: drained at the edge", "icn-2: drained at the edge"]);
        assert_eq!(first.takes_percent, None, "it takes nobody");
    }

    #[test]
    fn a_failover_is_told_with_its_candidates() {
        let explained = explained(&[0, 1], "www.cdn.test", "A", None);
        let steering = explained.steering.clone().unwrap();
        assert_eq!(steering.datacenter.as_deref(), Some("fra"));
        let order: Vec<_> = steering
            .candidates
            .iter()
            .map(|c| {
                (
                    c.datacenter.as_str(),
                    c.verdict.as_deref().unwrap_or("-"),
                    c.distance_km.is_some(),
                )
            })
            .collect();
        let down = "down: none of its edges is up";
        assert_eq!(order, [("icn", down, true), ("fra", "up", true), ("iad", "-", true)]);
        assert_eq!(steering.candidates[0].edges, ["icn-1: down", "icn-2: down"]);
        let text = explained.to_string();
        for part in ["APNIC", "failover", "fra", "TTL 20 s, scope /0", "192.0.1.1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        // What the API sends is what the command prints.
        let sent = serde_json::to_vec(&explained).unwrap();
        let received: Explained = serde_json::from_slice(&sent).unwrap();
        assert_eq!(received.to_string(), text);
    }

    #[test]
    fn the_network_that_decided_is_named() {
        let steering = explained(&[], "www.cdn.test", "A", Some("10.1.2.0/24")).steering.unwrap();
        assert!(steering.decided_by_subnet);
        assert_eq!(
            (steering.network.to_string(), steering.scope_bits),
            ("10.1.0.0/16".to_owned(), 16)
        );
        assert_eq!(steering.matched, "the operator's network puts fra first");
    }

    #[test]
    fn aliases_that_lead_in_a_circle_are_told_once() {
        assert_eq!(explained(&[], "Loop1.cdn.test", "A", None).aliases, ["loop2.cdn.test."]);
        assert!(explained(&[], "self.cdn.test", "A", None).aliases.is_empty());
    }

    #[test]
    fn families_aliases_and_static_names_are_told() {
        let six = explained(&[], "www.cdn.test", "AAAA", None);
        assert_eq!(six.reason, "other-family");
        let alias = explained(&[], "alias.cdn.test", "A", None);
        assert_eq!(
            (alias.aliases, alias.steering.is_some()),
            (vec!["www.cdn.test.".to_owned()], true)
        );
        let fixed = explained(&[], "nope.cdn.test", "A", None);
        assert_eq!((fixed.reason.as_str(), fixed.answer.rcode.as_str()), ("nxdomain", "NXDOMAIN"));
        assert!(fixed.steering.is_none());
    }

    #[test]
    fn rules_say_whose_address_they_are_about() {
        let world = testing::world(&[], |policy| {
            let rule = |by, to| Rule { by, to: vec![to], ..Rule::default() };
            policy.rules = vec![rule(RuleBy::Subnet, FRA), rule(RuleBy::Resolver, testing::IAD)];
        });
        let snapshot = testing::snapshot(world, &[]);
        for (subnet, part) in [
            (Some("80.0.0.0/20"), "rule 1 of the policy, about client subnets"),
            (None, "rule 2 of the policy, about resolvers' addresses"),
        ] {
            let request = Request {
                name: Name::parse_absolute("www.cdn.test").unwrap(),
                qtype: rtype::A,
                client: "1.208.0.1".parse().unwrap(),
                subnet: subnet.map(|net| net.parse().unwrap()),
            };
            let told = explain(&snapshot, &request).unwrap().to_string();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn what_a_datacenter_takes_of_its_clients_is_told() {
        let all = testing::snapshot(
            testing::world(&[], |policy| policy.ramp = std::time::Duration::from_secs(60)),
            &[],
        );
        let mut facts = testing::down(&all.tables.world, &[]);
        facts.intakes[0][usize::from(testing::ICN)] = Intake { returned: 0.0, shed: 0.0 };
        let snapshot = all.with_health(facts);
        let request = Request {
            name: Name::parse_absolute("flat.cdn.test").unwrap(),
            qtype: rtype::HTTPS,
            client: "1.208.0.1".parse().unwrap(),
            subnet: Some("1.208.0.0/24".parse().unwrap()),
        };
        let told = explain(&snapshot, &request).unwrap();
        let steering = told.steering.as_ref().unwrap();
        let first = &steering.candidates[0];
        assert_eq!((first.datacenter.as_str(), first.code.as_deref()), ("icn", Some("returning")));
        assert_eq!(first.takes_percent, Some(0));
        assert_eq!((told.reason.as_str(), steering.reason.as_str()), ("ramp", "ramp"));
        let text = told.to_string();
        for part in [
            "alias of    www.cdn.test.",
            "returns, and does not take this client yet; takes 0 % of its clients",
            "TTL 20 s",
            "the nearest moment at which the answer could change",
            "HTTPS       on the port of the scheme",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
