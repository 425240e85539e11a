//! What is asked: plain names, names that are not there, steered names by source and by client subnet, with cookies,
//! over TCP.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::load::Ask;
use super::message::{Expected, Query, rtype};
use super::peers::Kind;
use super::world::{APEX, STEERED, host, is_special};
use crate::random::Random;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Random static names.
    Static,
    /// Random names that are not there.
    Nx,
    /// Steered names, by the address that the query came from.
    Source,
    /// Steered names, one client subnet.
    EcsFixed,
    /// Steered names, another client subnet in every query.
    EcsRandom,
    /// Static names with a client cookie. Knot's module answers those with BADCOOKIE instead, so it is not asked.
    Cookie,
    /// Static names over connections that stay.
    Tcp,
}

/// Different queries of a case: more than fit in the fastest caches.
const QUERIES: usize = 1 << 16;

/// The network of the only client subnet of [`Case::EcsFixed`].
const FIXED: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 0);

impl Case {
    /// All, in the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::Static,
        Self::Nx,
        Self::Source,
        Self::EcsFixed,
        Self::EcsRandom,
        Self::Cookie,
        Self::Tcp,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Nx => "nx",
            Self::Source => "source",
            Self::EcsFixed => "ecs-fixed",
            Self::EcsRandom => "ecs-random",
            Self::Cookie => "cookie",
            Self::Tcp => "tcp",
        }
    }

    /// Who can be asked this.
    pub const fn servers(self) -> &'static [Kind] {
        use Kind::{Bind, Echo, Gdnsd, Geodns, Hickory, Knot, KnotGeo, Nsd, Pdns};
        match self {
            Self::Static => &[Geodns, Echo, Gdnsd, Knot, Nsd, Bind, Pdns, Hickory],
            // hickory-server looks through all names for one that is missing: a thousand times what the others take.
            Self::Nx => &[Geodns, Echo, Gdnsd, Knot, Nsd, Bind, Pdns],
            Self::Source | Self::EcsFixed | Self::EcsRandom => {
                &[Geodns, Echo, Gdnsd, KnotGeo, Pdns]
            }
            Self::Cookie => &[Geodns, Echo, Gdnsd, Bind],
            Self::Tcp => &[Geodns, Gdnsd, Knot, Nsd],
        }
    }

    /// The queries over a zone of so many static names.
    pub fn asks(self, names: u64) -> Vec<Ask> {
        let mut random = Random::new(0x6173_6b73 + self as u64);
        (0..QUERIES).map(|_| self.ask(names, &mut random)).collect()
    }

    fn ask(self, names: u64, random: &mut Random) -> Ask {
        let name = |owner: &str| format!("{owner}.{APEX}");
        let steered = |random: &mut Random| {
            let draw = random.below(4) as usize;
            let qtype = if draw < 2 { rtype::A } else { rtype::AAAA };
            Query::new(&name(STEERED[draw % STEERED.len()]), qtype)
        };
        let (query, expected) = match self {
            Self::Static | Self::Tcp => {
                (Query::new(&name(&host(random.below(names))), rtype::A), (0, 1, false))
            }
            Self::Nx => {
                (Query::new(&name(&format!("n{:x}", random.next())), rtype::A), (3, 0, false))
            }
            Self::Source => (steered(random), (0, 1, false)),
            Self::EcsFixed => (steered(random).subnet_v4(FIXED), (0, 1, true)),
            Self::EcsRandom => {
                let subnet = loop {
                    let address = Ipv4Addr::from_bits((random.next() >> 32) as u32);
                    if !is_special(address) {
                        break address;
                    }
                };
                (steered(random).subnet_v4(subnet), (0, 1, true))
            }
            Self::Cookie => {
                let query = Query::new(&name(&host(random.below(names))), rtype::A);
                (query.option(10, &random.next().to_be_bytes()), (0, 1, true))
            }
        };
        let (rcode, answers, edns) = expected;
        Ask { message: query.message(0), expected: Expected { rcode, answers, edns } }
    }

    /// The case's queries as dnsperf reads them, where it can ask them.
    pub fn as_dnsperf(self, names: u64) -> Option<String> {
        let options = !matches!(self, Self::Static | Self::Nx | Self::Source);
        if options {
            return None;
        }
        let mut out = String::new();
        for ask in self.asks(names) {
            let mut rest = ask.message.get(12..)?;
            while let Some((&length @ 1.., after)) = rest.split_first() {
                let (label, after) = after.split_at_checked(usize::from(length))?;
                out.push_str(std::str::from_utf8(label).ok()?);
                out.push('.');
                rest = after;
            }
            out.push_str(if rest.get(2) == Some(&1) { " A\n" } else { " AAAA\n" });
        }
        Some(out)
    }
}

/// Where queries come from: addresses in all of 127.0.0.0/8, so that the source alone decides where a steered name
/// leads, and so that limits by client have many clients to count.
pub fn sources() -> Vec<Ipv4Addr> {
    let mut random = Random::new(0x736f_7572);
    let mut octet = |bound: u64| 1 + random.below(bound) as u8;
    (0..4096).map(|_| Ipv4Addr::new(127, octet(253), octet(253), octet(253))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsperf_gets_the_same_names() {
        let text = Case::Static.as_dnsperf(10).unwrap();
        assert_eq!(text.lines().count(), QUERIES);
        assert!(text.lines().all(|line| line.starts_with('h') && line.ends_with(".bench.test. A")));
        assert!(Case::Source.as_dnsperf(10).unwrap().contains("img.bench.test. AAAA\n"));
        assert!(Case::EcsRandom.as_dnsperf(10).is_none());
    }

    #[test]
    fn random_subnets_are_many() {
        let asks = Case::EcsRandom.asks(10);
        let different: std::collections::HashSet<&[u8]> =
            asks.iter().map(|ask| &ask.message[ask.message.len() - 3..]).collect();
        assert!(different.len() > QUERIES * 99 / 100, "{}", different.len());
    }
}
