//! What geodns and its peers serve when they are compared: every kind of name that a zone can have, and a map whose
//! networks lie in one another.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::world::{Network, World, Zone, four_datacenters, is_special, zone_head};
use crate::random::Random;

/// The zone that queries are about.
pub const APEX: &str = "cmp.test";
/// Another zone of the same servers, for aliases that lead there.
pub const OTHER: &str = "other.test";
/// The steered owners.
pub const STEERED: [&str; 3] = ["www", "img.cdn", "*.geo"];

/// Names of every kind, in forms that all servers read.
const RECORDS: &str = "\
txt TXT \"one\" \"two words\"
txt 60 A 192.0.2.70
mx MX 10 h1
mx MX 20 mail.example.org.
_sip._tcp SRV 1 2 5060 h2
naptr NAPTR 100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:a@example.org!\" .
ptr PTR h3.cmp.test.
both A 192.0.2.71
both A 192.0.2.72
both AAAA 2001:db8::71
six AAAA 2001:db8::72
a.b.ent A 192.0.2.73
*.wild A 192.0.2.74
*.wild TXT \"wild\"
here.wild A 192.0.2.75
deep.below.wild A 192.0.2.76
*.cwild CNAME h4
*.star.in A 192.0.2.77
alias CNAME h1
c1 CNAME c2
c2 CNAME c3
c3 CNAME both
toext CNAME www.example.org.
tonx CNAME nothing
towild CNAME x.wild
towildnx CNAME x.here.wild
tocut CNAME host.sub
toent CNAME ent
cross CNAME host.other.test.
sub NS ns.sub
sub NS ns2.sub
ns.sub A 192.0.2.80
ns.sub AAAA 2001:db8::80
ns2.sub A 192.0.2.81
ext NS ns.example.net.
deepcut.x NS ns.sub
";

/// What only servers of all of DNS read.
const MORE_RECORDS: &str = "\
caa CAA 0 issue \"ca.example.org\"
sub DS 12345 13 2 49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4ACAAAA
old DNAME new
new A 192.0.2.90
a.new A 192.0.2.91
b.new CNAME a.new
todname CNAME a.old
outname DNAME example.org.
svc SVCB 1 . alpn=h2 port=8443
web HTTPS 1 . alpn=h2,h3
unknown TYPE65280 \\# 4 0a000001
hinfo HINFO \"cpu\" \"os\"
sshfp SSHFP 1 1 dd465c09cfa51fb45020cc83316fff21b9ec74ac
tlsa TLSA 3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971
dot\\.ted A 192.0.2.92
sp\\032ace A 192.0.2.93
";

fn zone(steered: &[&str], more: &str) -> Zone {
    let mut records = zone_head(APEX);
    records.push_str(RECORDS);
    records.push_str(more);
    for n in 1..=100 {
        let _ = writeln!(records, "h{n} A 10.9.8.{n}");
        if n % 3 == 0 {
            let _ = writeln!(records, "h{n} AAAA 2001:db8:9::{n}");
        }
    }
    // Answers of 0.5, 1, 1.2 and more kilobytes, at the limits of truncation.
    for n in 1..=40 {
        let filler = "x".repeat(n * 3 % 200 + 1);
        for line in 0..n {
            let _ = writeln!(records, "big{n} TXT \"{line} {filler}\"");
        }
    }
    if !steered.is_empty() {
        let _ = writeln!(records, "togeo CNAME www");
        let _ = writeln!(records, "togeo2 CNAME x.geo");
    }
    Zone {
        apex: APEX.to_owned(),
        records,
        steered: steered.iter().map(|owner| (*owner).to_owned()).collect(),
    }
}

fn other() -> Zone {
    let records = format!("{}host A 192.0.2.99\nback CNAME h1.cmp.test.\n", zone_head(OTHER));
    Zone { apex: OTHER.to_owned(), records, steered: Vec::new() }
}

/// Static names and steered ones, for gdnsd.
pub fn steered(seed: u64) -> World {
    World {
        datacenters: four_datacenters(),
        networks: nested(seed, 3_000, 1_000),
        zones: vec![zone(&STEERED, ""), other()],
    }
}

/// The same with datacenters that have no IPv6.
pub fn steered_v4(seed: u64) -> World {
    let mut world = steered(seed);
    world.datacenters.iter_mut().for_each(|datacenter| datacenter.v6 = None);
    world
}

/// Static names of every kind, for Knot and NSD.
pub fn static_only() -> World {
    World {
        datacenters: four_datacenters(),
        networks: Vec::new(),
        zones: vec![zone(&[], MORE_RECORDS), other()],
    }
}

/// Steered names on a map that a cache has use of: few networks, large ones.
pub fn coarse(seed: u64) -> World {
    World {
        datacenters: four_datacenters(),
        networks: nested(seed, 25, 8),
        zones: vec![zone(&STEERED, ""), other()],
    }
}

/// Networks at random, many of them inside others. Their lengths stay within the caps of scopes. None is given twice, and
/// no two are the halves of one: gdnsd merges halves that lead to the same place, and if the whole is listed, too, takes
/// either.
fn nested(seed: u64, v4: usize, v6: usize) -> Vec<Network> {
    let mut random = Random::new(seed);
    let mut networks: Vec<Network> = Vec::new();
    let mut taken = std::collections::HashSet::new();
    let mut add = |address: IpAddr, bits: u8, random: &mut Random| {
        if !taken.contains(&(other_half(address, bits), bits)) && taken.insert((address, bits)) {
            networks.push(Network { address, bits, datacenter: random.below(4) as usize });
        }
    };
    let mut before = Vec::new();
    while before.len() < v4 {
        let bits = 8 + random.below(17) as u8;
        // Every other one lies in an earlier one.
        let base = match before.len() {
            some @ 1.. if random.below(2) == 0 => before[random.below(some as u64) as usize],
            _ => (random.next() >> 32) as u32,
        };
        let mixed = base ^ (random.next() >> 32) as u32 >> (bits / 2 + 4);
        let start = mixed & (u32::MAX << (32 - bits));
        // Neither the first nor the last address is nobody's: what is nobody's is left to one rule of ours.
        let last = Ipv4Addr::from_bits(start | !(u32::MAX << (32 - bits)));
        if !is_special(Ipv4Addr::from_bits(start)) && !is_special(last) {
            before.push(start);
            add(Ipv4Addr::from_bits(start).into(), bits, &mut random);
        }
    }
    let mut before = Vec::new();
    while before.len() < v6 {
        let bits = 20 + random.below(29) as u8;
        let base = match before.len() {
            some @ 1.. if random.below(2) == 0 => before[random.below(some as u64) as usize],
            // 2400::/6 and around: away from 6to4, Teredo and documentation.
            _ => 0x2400_u128 << 112 | u128::from(random.next() >> 6) << 64,
        };
        let mixed = base ^ u128::from(random.next() >> 20) << 64 >> (bits / 2);
        let start = mixed & (u128::MAX << (128 - bits));
        before.push(start);
        add(Ipv6Addr::from_bits(start).into(), bits, &mut random);
    }
    for n in 1..=100 {
        add(Ipv4Addr::new(127, n, 0, 0).into(), 16, &mut random);
    }
    networks
}

fn other_half(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ 1 << (32 - bits)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ 1 << (128 - bits)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_aligned_and_lie_in_one_another() {
        let networks = nested(1, 2_000, 500);
        let start = |network: &Network| match network.address {
            IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (128, v6.to_bits()),
        };
        let mut inside = 0;
        for network in &networks {
            let (width, at) = start(network);
            assert_eq!(at & ((1 << (width - u32::from(network.bits))) - 1), 0, "{network:?}");
            inside += usize::from(networks.iter().any(|other| {
                let (other_width, other_at) = start(other);
                width == other_width
                    && other.bits < network.bits
                    && (at ^ other_at) >> (width - u32::from(other.bits)) == 0
            }));
        }
        assert!(inside > networks.len() / 5, "{inside} of {}", networks.len());
    }
}
