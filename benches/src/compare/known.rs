//! Differences that are meant: where a peer decides otherwise than geodns, or where the standards leave the choice.
//! Each names the parts of an answer that it explains, and for which queries. Nothing else may differ.

use std::net::IpAddr;

use super::answer::{Answer, Part};
use super::random::{Asked, Subnet, TWICE, is_unroutable};

/// Whom geodns is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// gdnsd: steering and static zones.
    Gdnsd,
    /// Knot: static zones.
    Knot,
    /// NSD: static zones.
    Nsd,
}

/// A difference that is meant.
pub struct Known {
    /// Its name in the summary.
    pub name: &'static str,
    /// Why both may be as they are.
    pub why: &'static str,
    peers: &'static [Peer],
    parts: &'static [Part],
    holds: fn(&Asked, &Answer, &Answer) -> bool,
}

const ANY: u16 = 255;
const DS: u16 = 43;
const SOA: u16 = 6;
const ALL: &[Peer] = &[Peer::Gdnsd, Peer::Knot, Peer::Nsd];

/// What differs where one of two refuses a query and the other answers it.
const REFUSED: &[Part] = &[
    Part::Rcode,
    Part::Authoritative,
    Part::Truncated,
    Part::Answers,
    Part::Authorities,
    Part::Additionals,
    Part::Subnet,
    Part::Question,
    Part::Edns,
];

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        name: "any",
        why: "RFC 8482 §4: a minimal answer to ANY is one RRset (geodns), HINFO (gdnsd), or everything that there is",
        peers: ALL,
        parts: &[
            Part::Answers,
            Part::Authorities,
            Part::Additionals,
            Part::Truncated,
            Part::Subnet,
        ],
        holds: |asked, ours, theirs| {
            asked.qtype == ANY
                && ours.rcode == theirs.rcode
                && ours.answer_types().len() <= 1
                && same_source(ours, theirs)
        },
    },
    Known {
        name: "negative-scope",
        why: "RFC 7871 §7.4: negative answers are for everybody, scope 0; gdnsd gives the map's scope",
        peers: &[Peer::Gdnsd],
        parts: &[Part::Subnet],
        holds: |_, ours, theirs| {
            ours.answers.is_empty()
                && theirs.answers.is_empty()
                && scope(ours) == Some(0)
                && same_source(ours, theirs)
        },
    },
    Known {
        name: "family-0",
        why: "RFC 7871 §6 knows no family 0; some forwarders send it for \"no client\": geodns takes it as that",
        peers: &[Peer::Gdnsd],
        parts: REFUSED,
        holds: |asked, ours, theirs| {
            asked.subnet == Some(Subnet::NoFamily) && theirs.rcode == 1 && ours.rcode != 1
        },
    },
    Known {
        name: "two-subnets",
        why: "RFC 7871 does not say which of two client subnets counts: geodns refuses the contradiction, gdnsd takes one",
        peers: &[Peer::Gdnsd],
        parts: REFUSED,
        holds: |asked, ours, theirs| {
            asked.subnet == Some(Subnet::Malformed(TWICE)) && ours.rcode == 1 && theirs.rcode != 1
        },
    },
    Known {
        name: "unroutable",
        why: "RFC 6890 networks that the map does not name say nothing of where a client is: geodns goes by the resolver, scope 0",
        peers: &[Peer::Gdnsd],
        parts: &[Part::Answers, Part::Subnet],
        holds: |asked, ours, theirs| {
            let Some(Subnet::Good(address, _)) = asked.subnet else { return false };
            is_unroutable(address) && scope(ours) == Some(0) && same_source(ours, theirs)
        },
    },
    Known {
        name: "alias",
        why: "RFC 1034 §4.3.2 step 3a: geodns goes on at an alias's target, with the last name's response code (RFC 6604); \
              gdnsd leaves all of that to the resolver",
        peers: &[Peer::Gdnsd],
        parts: &[Part::Rcode, Part::Answers, Part::Authorities, Part::Additionals],
        holds: |_, ours, theirs| {
            theirs.rcode == 0
                && theirs.answers.len() == 1
                && theirs.answer_types().contains("5")
                && ours.answers.is_superset(&theirs.answers)
        },
    },
    Known {
        name: "unroutable-border",
        why: "where the map names such a network, those beside it are passed over: geodns's scope ends with the network",
        peers: &[Peer::Gdnsd],
        parts: &[Part::Subnet],
        holds: |asked, ours, theirs| {
            let Some(Subnet::Good(address, _)) = asked.subnet else { return false };
            is_unroutable(address) && scope(ours) > scope(theirs) && same_source(ours, theirs)
        },
    },
    Known {
        name: "teredo",
        why: "gdnsd looks for IPv4 addresses in Teredo (RFC 4380), so that 2001::/32 is a border; they lie in its last 32 bits, \
              where no client subnet reaches",
        peers: &[Peer::Gdnsd],
        parts: &[Part::Subnet],
        holds: |asked, ours, theirs| {
            let Some(Subnet::Good(IpAddr::V6(address), _)) = asked.subnet else { return false };
            address.segments()[0] >> 1 == 0x2000 >> 1 && same_source(ours, theirs)
        },
    },
    Known {
        name: "ds-at-cut",
        why: "RFC 4035 §3.1.4.1: the parent side answers for DS at a delegation; gdnsd refers",
        peers: &[Peer::Gdnsd],
        parts: &[Part::Authoritative, Part::Authorities, Part::Additionals],
        holds: |asked, ours, theirs| {
            asked.qtype == DS
                && ours.authoritative
                && !theirs.authoritative
                && ours.answers.is_empty()
        },
    },
    Known {
        name: "soa-ttl",
        why: "RFC 2308 §3 lowers the TTL of SOA to MINIMUM in negative answers; gdnsd does so in answers for SOA, too",
        peers: &[Peer::Gdnsd],
        parts: &[Part::Answers],
        holds: |asked, ours, theirs| {
            let without_ttl = |answer: &Answer| {
                answer
                    .answers
                    .iter()
                    .map(|text| text.replacen(" 300 ", " 60 ", 1))
                    .collect::<Vec<_>>()
            };
            asked.qtype == SOA && without_ttl(ours) == without_ttl(theirs)
        },
    },
    Known {
        name: "other-zone",
        why: "RFC 1034 §4.3.2 step 3a goes on in any zone of the server (geodns); others stop at the zone's end",
        peers: ALL,
        parts: &[Part::Answers, Part::Authorities],
        holds: |asked, ours, theirs| {
            matches!(asked.name.as_str(), "cross.cmp.test" | "back.other.test")
                && ours.answers.is_superset(&theirs.answers)
        },
    },
    Known {
        name: "optional-additionals",
        why: "addresses of names in RDATA are an offer (RFC 1034 §4.3.2 step 6); geodns adds only glue, which a referral needs",
        peers: &[Peer::Knot, Peer::Nsd],
        parts: &[Part::Additionals],
        holds: |_, ours, _| ours.additionals.is_empty() && !ours.answers.is_empty(),
    },
];

fn scope(answer: &Answer) -> Option<u8> {
    answer.subnet.map(|(_, _, scope)| scope)
}

fn same_source(ours: &Answer, theirs: &Answer) -> bool {
    let source = |answer: &Answer| answer.subnet.map(|(address, source, _)| (address, source));
    source(ours) == source(theirs)
}

/// The names of the known differences that explain `parts`, or the parts that none explains.
pub fn explain(
    peer: Peer,
    asked: &Asked,
    ours: Option<&Answer>,
    theirs: Option<&Answer>,
    parts: &[Part],
) -> Result<Vec<&'static str>, Vec<Part>> {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return Err(parts.to_vec()) };
    let holding: Vec<&Known> = KNOWN
        .iter()
        .filter(|known| known.peers.contains(&peer) && (known.holds)(asked, ours, theirs))
        .collect();
    let unexplained: Vec<Part> = parts
        .iter()
        .filter(|part| !holding.iter().any(|known| known.parts.contains(part)))
        .copied()
        .collect();
    if !unexplained.is_empty() {
        return Err(unexplained);
    }
    let used = holding.iter().filter(|known| known.parts.iter().any(|part| parts.contains(part)));
    Ok(used.map(|known| known.name).collect())
}
