//! `whatif`: what it foretells is what then happens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Output;

use harness::dice::Dice;
use harness::dns::Query;
use harness::fleet::Fleet;
use harness::process::Program;
use harness::wait;
use serde_json::Value;

use super::unchecked;

#[track_caller]
fn code(output: &Output, wanted: i32) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(wanted), "{text}");
    text
}

#[track_caller]
fn whatif(fleet: &Fleet, args: &[&str]) -> Value {
    let args = [&["whatif", "--output", "json"], args].concat();
    let output = fleet.run(Program::Geodns, &args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A datacenter's share of IPv4 clients, before and after.
fn share(report: &Value, datacenter: &str) -> (f64, f64) {
    let split = &report["splits"][0];
    assert_eq!(split["family"], "IPv4", "{report}");
    let shares = split["datacenters"].as_array().unwrap();
    let found = shares.iter().find(|share| share["datacenter"] == datacenter);
    found.map_or((0.0, 0.0), |s| (s["before"].as_f64().unwrap(), s["after"].as_f64().unwrap()))
}

/// How many of the networks go to each edge.
fn ask_for(fleet: &Fleet, networks: &[String]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for network in networks {
        let answer = Query::a("www.cdn.test").subnet(network).udp(fleet.node("ns1").dns());
        let [address] = answer.addresses()[..] else { panic!("{network}: {answer:?}") };
        *counts.entry(address).or_default() += 1;
    }
    counts
}

#[test]
fn a_log_foretells_what_a_drain_does() {
    let mut fleet = unchecked("[log]\nquery = \"queries.json\"").write();
    fleet.node_mut("ns1").start();
    let mut dice = Dice::new(0x5eed);
    let networks: Vec<String> = (0..300)
        .map(|_| {
            let [a, b, c] = [1 + dice.below(222), dice.below(256), dice.below(256)];
            format!("{}.{b}.{c}.0/24", if a == 127 { 80 } else { a })
        })
        .collect();
    let before = ask_for(&fleet, &networks);
    // What is not steered, and what is no line of a query log.
    Query::a("static.cdn.test").udp(fleet.node("ns1").dns());
    let path = fleet.dir().join("queries.json");
    let lines = || std::fs::read_to_string(&path).map_or(0, |text| text.lines().count());
    wait::until("every query in the log", || (lines() == networks.len() + 1).then_some(()));
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("half a li\n");
    std::fs::write(&path, text).unwrap();
    let log = path.to_str().unwrap();
    let report = whatif(&fleet, &["--log", log, "--drain", "icn", "--total", "10Gbps"]);
    let read = &report["asked"]["log"];
    assert_eq!(read["queries"], networks.len(), "{report}");
    assert_eq!((&read["not_steered"], &read["unreadable"]), (&1.into(), &1.into()), "{report}");
    code(&fleet.run(Program::Geodns, &["drain", "icn"]), 0);
    let after = ask_for(&fleet, &networks);
    for (datacenter, edge) in [("icn", "icn-1"), ("fra", "fra-1"), ("iad", "iad-1")] {
        let of = |counts: &BTreeMap<IpAddr, usize>| {
            let count = counts.get(&fleet.node(edge).ip().into()).copied().unwrap_or(0);
            count as f64 / networks.len() as f64
        };
        let foretold = share(&report, datacenter);
        assert!((foretold.0 - of(&before)).abs() < 1e-9, "{datacenter}: {report} {before:?}");
        assert!((foretold.1 - of(&after)).abs() < 1e-9, "{datacenter}: {report} {after:?}");
    }
    // Another file is no query log, and says so.
    let config = fleet.config();
    let refused = fleet.run(Program::Geodns, &["whatif", "--log", config.to_str().unwrap()]);
    assert!(code(&refused, 1).contains("no query log"));
}

#[test]
fn a_rehearsal_begins_with_what_runs_when_it_is_asked_to() {
    let mut fleet = unchecked("[datacenter.sin]\nlocation = [1.36, 103.99]\ncapacity = \"1Gbps\"\n[edge.sin-1]\ndatacenter = \"sin\"\naddress = [\"192.0.2.9\"]\nhttp = [\"127.0.9.9:80\"]\nadmin = \"127.0.9.9:1\"").write();
    let offline = fleet.run(Program::Geodns, &["whatif", "--live"]);
    assert!(code(&offline, 1).contains("ns1"));
    fleet.node_mut("ns1").start();
    code(&fleet.run(Program::Geodns, &["drain", "icn"]), 0);
    let live = whatif(&fleet, &["--live", "--up", "icn"]);
    let (before, after) = share(&live, "icn");
    assert!(before == 0.0 && after > 0.1, "{live}");
    // From the files alone nothing is known of the drain; what is over its capacity is told.
    let table = fleet.run(Program::Geodns, &["whatif", "--down", "icn", "--total", "30Gbps"]);
    let table = code(&table, 0);
    assert!(table.contains("OVER CAPACITY: sin") && table.contains("icn -> sin"), "{table}");
    for wrong in [&["--down", "nope"][..], &["--weight", "icn"], &["--total", "much"]] {
        code(&fleet.run(Program::Geodns, &[&["whatif"], wrong].concat()), 2);
    }
}

#[test]
fn another_configuration_is_rehearsed_before_it_is_taken() {
    let fleet = unchecked("").write();
    let other = fleet.dir().join("other.toml");
    let text = fleet.text().replace("order = \"nearest\"", "order = \"listed\"");
    std::fs::write(&other, &text).unwrap();
    let other = other.to_str().unwrap();
    let report = whatif(&fleet, &["--config-b", other]);
    // Listed by name: Frankfurt first.
    assert_eq!(share(&report, "fra").1, 1.0, "{report}");
    assert!(share(&report, "iad").0 > 0.2, "{report}");
    let report = whatif(&fleet, &["--config-b", other, "--down", "fra"]);
    assert_eq!(
        (share(&report, "fra").1, share(&report, "iad").1),
        (0.0, 1.0 - share(&report, "icn").1)
    );
    std::fs::write(other, "nonsense").unwrap();
    code(&fleet.run(Program::Geodns, &["whatif", "--config-b", other]), 78);
}
