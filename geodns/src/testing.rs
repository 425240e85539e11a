//! A small world for the tests of several modules: three datacenters, the built-in geography, one zone.

use std::path::Path;
use std::time::Duration;

use shared::geo::{self, Coordinates};
use shared::health::State;

use crate::health::{Facts, Observed};
use crate::name::Name;
use crate::service::{Service, Services};
use crate::snapshot::{Snapshot, Tables};
use crate::world::{AllDown, Datacenter, Ecs, Edge, Order, Pick, Policy, World};
use crate::zone::{Builder, Location, Steered, Zones, file};

pub(crate) const ICN: u16 = 0;
pub(crate) const FRA: u16 = 1;
pub(crate) const IAD: u16 = 2;

/// Clients whose nearest datacenter by the built-in geography is the one named.
pub(crate) const IN_ASIA: &str = "1.208.0.0";
pub(crate) const IN_EUROPE: &str = "80.0.0.0";

/// Two edges in each datacenter, all with IPv4; `v6` of the datacenters have IPv6, too.
pub(crate) fn world(v6: &[u16], change: impl Fn(&mut Policy)) -> World {
    let mut world = World { checks: vec!["edge".to_owned()], ..World::default() };
    for (name, lat, lon) in [("icn", 37.46, 126.44), ("fra", 50.03, 8.57), ("iad", 38.95, -77.45)] {
        let location = Coordinates::new(lat, lon).unwrap();
        world.datacenters.push(Datacenter {
            name: name.to_owned(),
            location,
            bias: 0,
            weight: 1,
            capacity: None,
        });
    }
    for datacenter in [ICN, FRA, IAD] {
        for n in 1..=2 {
            let mut addresses = vec![format!("192.0.{datacenter}.{n}").parse().unwrap()];
            if v6.contains(&datacenter) {
                addresses.push(format!("2001:db8:{datacenter}::{n}").parse().unwrap());
            }
            let name = format!("{}-{n}", world.datacenter_name(datacenter));
            world.edges.push(Edge { name, datacenter, addresses, weight: 1 });
        }
    }
    let mut policy = Policy {
        name: "web".to_owned(),
        datacenters: vec![ICN, FRA, IAD],
        order: Order::Nearest,
        rules: Vec::new(),
        answers: 2,
        pick: Pick::All,
        check: Some(0),
        min_up: 0.5,
        ttl_min: 5,
        ttl_max: 60,
        all_down: AllDown::LastGood,
        ecs: Ecs { enabled: true, max_v4: 24, max_v6: 56 },
        max_share: Vec::new(),
        bounded_load: 1.25,
        ramp: Duration::ZERO,
        shed: None,
    };
    change(&mut policy);
    world.policies.push(policy);
    world
}

/// Zone `cdn.test`: `www` and `*.img` are steered.
pub(crate) fn zones() -> Zones {
    let text = "\
$TTL 300
@ SOA ns1 hostmaster 7 1h 10m 2w 60
@ NS ns1
@ NS ns2
ns1 A 192.0.2.53
ns2 A 192.0.2.54
www TXT hello
static A 192.0.2.80
alias CNAME www
chain1 CNAME chain2
chain2 CNAME static
loop1 CNAME loop2
loop2 CNAME loop1
self CNAME self
*.spin CNAME a.spin
long0 CNAME long1
long1 CNAME long2
long2 CNAME long3
long3 CNAME long4
long4 CNAME long5
long5 CNAME long6
long6 CNAME long7
long7 CNAME long8
long8 CNAME static
dangling CNAME nowhere
away CNAME www.example.
*.wild TXT wildcard
deep.a.b TXT below
sub NS ns.sub
ns.sub A 192.0.2.7
old DNAME new
x.new A 192.0.2.99
flat 40 ALIAS alias
flat MX 10 static
chained 500 ALIAS flat
fixed 200 ANAME static
*.many ALIAS a.img
to-flat CNAME flat
quoted TXT \"a \\\"b\\\\\" \\255
odd TYPE62347 \\# 2 abcd
big TXT \"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"
big TXT \"1123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"
big TXT \"2123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"
big TXT \"3123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"
big TXT \"4123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"
";
    let apex = Name::parse_absolute("cdn.test").unwrap();
    let (records, problems) = file::read(Path::new("z"), &apex, &|_| Ok(text.into()));
    assert!(problems.is_empty(), "{problems:?}");
    let steered = ["www", "*.img"].map(|owner| Steered {
        owner: Name::parse(owner.as_bytes(), Some(&apex)).unwrap(),
        policy: 0,
    });
    let mut builder = Builder::default();
    builder.add(&apex, records, &steered, Location { file: "z".into(), line: 0 });
    let (zones, problems) = builder.build();
    assert!(problems.is_empty(), "{problems:?}");
    zones
}

/// The world with these operator's networks, everything presumed up.
pub(crate) fn snapshot(world: World, networks: &[(&str, &str)]) -> Snapshot {
    let networks = networks.iter().map(|(net, dc)| (net.parse().unwrap(), (*dc).to_owned()));
    let geography = geo::World::new(networks, &[]);
    let services = Services::uniform(&world, Some(Service { port: None }));
    Snapshot::presumed_up(Tables::new(world, zones(), geography).with_services(services))
}

/// Facts in which the edges at these positions are down and all others up.
pub(crate) fn down(world: &World, edges: &[u16]) -> Facts {
    let mut facts = Facts::unknown(world);
    for (id, seen) in (0..).zip(facts.observed[0].iter_mut()) {
        *seen = Some(Observed {
            state: if edges.contains(&id) { State::Down } else { State::Up },
            draining: false,
            soonest_change: Duration::from_secs(20),
            failure: None,
        });
    }
    facts
}
