//! What all servers serve: datacenters, a map of networks, a zone, the same on every run.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::random::Random;

/// A datacenter with one edge.
#[derive(Clone, Debug)]
pub struct Datacenter {
    /// Its name.
    pub name: &'static str,
    /// The A record that steered names get.
    pub v4: Ipv4Addr,
    /// The AAAA record; a world's datacenters have all of them one, or none.
    pub v6: Option<Ipv6Addr>,
}

/// A client network and the datacenter that it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: IpAddr,
    /// Its length in bits.
    pub bits: u8,
    /// An index into the datacenters.
    pub datacenter: usize,
}

/// A zone: what is in its file, and what is steered.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The apex, without the last dot.
    pub apex: String,
    /// The master file without steered names.
    pub records: String,
    /// Owners relative to the apex.
    pub steered: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct World {
    /// In the order of preference for clients of no listed network.
    pub datacenters: Vec<Datacenter>,
    /// The map.
    pub networks: Vec<Network>,
    /// The zones.
    pub zones: Vec<Zone>,
}

/// TTL of steered answers, in seconds.
pub const STEERED_TTL: u32 = 60;

/// The apex of the benchmark's zone.
pub const APEX: &str = "bench.test";

/// The steered names of the benchmark's zone.
pub const STEERED: [&str; 2] = ["www", "img"];

/// Four datacenters: `dc-a` to `dc-d`.
pub fn four_datacenters() -> Vec<Datacenter> {
    let datacenter = |(name, n)| Datacenter {
        name,
        v4: Ipv4Addr::new(192, 0, 2, n),
        v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n))),
    };
    [("dc-a", 1), ("dc-b", 2), ("dc-c", 3), ("dc-d", 4)].map(datacenter).to_vec()
}

/// Networks that nobody on the Internet has (RFC 6890): a server may look past such a client subnet.
pub fn is_special(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// So many disjoint IPv4 networks of 16 to 24 bits (up to about 100,000 fit), spread over the unicast space with gaps between them, and one for
/// each 127.N.0.0/16, so that queries on loopback are steered by their source, too. No network is given to the first
/// datacenter: it gets everybody else.
pub fn networks(count: usize, datacenters: usize) -> Vec<Network> {
    let mut random = Random::new(0x6d61_7070);
    let mut draw = |bound: usize| random.below(bound as u64) as usize;
    let mut networks: Vec<Network> = (1..=254)
        .map(|n| Network {
            address: Ipv4Addr::new(127, n, 0, 0).into(),
            bits: 16,
            datacenter: n as usize % datacenters,
        })
        .filter(|network| network.datacenter != 0)
        .collect();
    // As in routing tables, most are small: 24 bits are as frequent as all others together.
    const BITS: [u8; 16] = [16, 17, 18, 19, 20, 20, 21, 22, 24, 24, 24, 24, 24, 24, 24, 24];
    // What a network takes on average, with what is lost by aligning it.
    const TAKEN: u64 = 18_000;
    let end = 224u64 << 24;
    let gap = (2 * (end * 4 / 5 / count.max(1) as u64).saturating_sub(TAKEN)).max(1);
    let mut from = 1u64 << 24;
    while networks.len() < count && from < end {
        let bits = BITS[draw(BITS.len())];
        let size = 1u64 << (32 - bits);
        from = from.div_ceil(size) * size;
        let address = Ipv4Addr::from_bits(u32::try_from(from).unwrap_or(u32::MAX));
        from += size;
        if !is_special(address) {
            let datacenter = 1 + draw(datacenters - 1);
            networks.push(Network { address: address.into(), bits, datacenter });
            from += draw(gap as usize) as u64;
        }
    }
    networks
}

/// The name of static host number `n`, relative to the apex.
pub fn host(n: u64) -> String {
    format!("h{n:07}")
}

/// The benchmark's world: a zone of so many static names and the steered ones, and a map of so many networks.
pub fn bench(names: u64, networks_count: usize) -> World {
    let mut records = zone_head(APEX);
    for n in 0..names {
        let [_, b, c, d] = (n as u32).to_be_bytes();
        let _ = writeln!(records, "{} A 10.{b}.{c}.{d}", host(n));
    }
    let datacenters = four_datacenters();
    let networks = networks(networks_count, datacenters.len());
    let steered = STEERED.map(str::to_owned).to_vec();
    World { datacenters, networks, zones: vec![Zone { apex: APEX.to_owned(), records, steered }] }
}

/// SOA, name servers and their addresses, as every zone needs them.
pub fn zone_head(apex: &str) -> String {
    format!(
        "$ORIGIN {apex}.\n$TTL 300\n\
         @ SOA ns1 hostmaster 1 3600 600 86400 60\n\
         @ NS ns1\n@ NS ns2\nns1 A 192.0.2.53\nns2 A 192.0.2.54\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_disjoint_nobodys_are_left_out_and_every_datacenter_but_the_first_has_some() {
        let networks = networks(100_000, 4);
        assert_eq!(networks.len(), 100_000);
        let mut ranges: Vec<(u64, u64)> = networks
            .iter()
            .map(|network| {
                let IpAddr::V4(v4) = network.address else { panic!("IPv6") };
                let start = u64::from(v4.to_bits());
                assert!(!is_special(v4) || v4.is_loopback(), "{v4}");
                assert_eq!(start % (1 << (32 - network.bits)), 0, "{v4}/{}", network.bits);
                (start, start + (1 << (32 - network.bits)))
            })
            .collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        for datacenter in 0..4 {
            let count = networks.iter().filter(|n| n.datacenter == datacenter).count();
            assert_eq!(count > 20_000, datacenter > 0, "{datacenter}: {count}");
        }
    }

    #[test]
    fn the_zone_has_a_line_per_name() {
        let world = bench(1_000, 1_000);
        let lines = world.zones[0].records.lines().filter(|line| line.starts_with('h'));
        assert_eq!(lines.count(), 1_000);
    }
}
