//! What the operator does to a running name server, and what it tells: drain, explain, the query log.

use std::net::IpAddr;
use std::process::{Command, Output};
use std::time::Duration;

use harness::dice::Dice;
use harness::dns::{Query, Tcp};
use harness::fleet::Fleet;
use harness::process::{Program, Signal};
use harness::wait;
use hickory_proto::rr::RecordType;
use serde_json::Value;

use super::{name_server, unchecked};

const KOREAN: &str = "211.60.0.0/24";

fn sent_to(fleet: &Fleet, subnet: &str) -> Vec<IpAddr> {
    Query::a("www.cdn.test").subnet(subnet).udp(fleet.node("ns1").dns()).addresses()
}

fn ip(fleet: &Fleet, edge: &str) -> Vec<IpAddr> {
    vec![IpAddr::V4(fleet.node(edge).ip())]
}

#[track_caller]
fn code(output: &Output, wanted: i32) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(wanted), "{text}");
    text
}

#[test]
fn drains_move_clients_and_the_last_datacenter_only_goes_by_force() {
    let mut fleet = name_server();
    let geodns = |fleet: &Fleet, args: &[&str]| fleet.run(Program::Geodns, args);
    assert_eq!(sent_to(&fleet, KOREAN), ip(&fleet, "icn-1"));
    code(&geodns(&fleet, &["drain", "icn"]), 0);
    assert_ne!(sent_to(&fleet, KOREAN), ip(&fleet, "icn-1"));
    let refused = code(&geodns(&fleet, &["drain", "nowhere"]), 1);
    assert!(refused.contains("nowhere"), "{refused}");
    code(&geodns(&fleet, &["drain", "fra"]), 0);
    assert_eq!(sent_to(&fleet, KOREAN), ip(&fleet, "iad-1"));
    for last in [&["drain", "iad"][..], &["down", "iad"], &["drain", "--edge", "iad-1"]] {
        let refused = code(&geodns(&fleet, last), 3);
        assert!(refused.contains("iad") && refused.contains("--force"), "{refused}");
        assert_eq!(sent_to(&fleet, KOREAN), ip(&fleet, "iad-1"));
    }
    code(&geodns(&fleet, &["drain", "iad", "--force"]), 0);
    assert!(!sent_to(&fleet, KOREAN).is_empty(), "never an empty answer");
    // What the operator said outlives a reload.
    code(&geodns(&fleet, &["reload"]), 0);
    code(&geodns(&fleet, &["undrain", "iad"]), 0);
    assert_eq!(sent_to(&fleet, KOREAN), ip(&fleet, "iad-1"));
    let status = code(&geodns(&fleet, &["status"]), 0);
    assert!(status.contains("drain"), "{status}");
    for dc in ["icn", "fra"] {
        code(&geodns(&fleet, &["undrain", dc]), 0);
    }
    assert_eq!(sent_to(&fleet, KOREAN), ip(&fleet, "icn-1"));
    fleet.node_mut("ns1").kill();
    code(&geodns(&fleet, &["drain", "icn"]), 1);
}

/// The same decision, for networks of any place and length.
#[test]
fn explain_tells_what_is_answered_for_any_network() {
    let geo = "[geo]\nnetworks = { \"10.1.0.0/16\" = \"iad\", \"2001:db8::/32\" = \"fra\" }";
    let mut fleet = unchecked(geo).write();
    fleet.node_mut("ns1").start();
    let mut dice = Dice::new(0x0e71);
    for n in 0..50 {
        let mut octet = || dice.below(256) as u8;
        let (network, longest) = match n % 5 {
            0 => {
                let high = [0x20 | octet() & 0x1f, octet(), octet(), octet(), octet(), octet()];
                let [a, b, c] = [0, 2, 4].map(|i| u16::from_be_bytes([high[i], high[i + 1]]));
                (IpAddr::from([a, b, c, 0, 0, 0, 0, 0]), 48)
            }
            1 => (IpAddr::from([10, octet() % 3, octet(), 0]), 24),
            _ => (IpAddr::from([octet(), octet(), octet(), 0]), 24),
        };
        let bits = dice.below(longest + 1);
        let masked = match network {
            IpAddr::V4(v4) => IpAddr::from((v4.to_bits() & mask(bits, 32) as u32).to_be_bytes()),
            IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & mask(bits, 128)).to_be_bytes()),
        };
        let subnet = format!("{masked}/{bits}");
        let answer = Query::a("www.cdn.test").subnet(&subnet).udp(fleet.node("ns1").dns());
        let explain = ["explain", "www.cdn.test", "--client", "127.0.0.1", "--subnet", &subnet];
        let explain = [&explain[..], &["--output", "json"]].concat();
        let told: Value = serde_json::from_str(&code(&fleet.run(Program::Geodns, &explain), 0))
            .unwrap_or_else(|error| panic!("{subnet}: {error}"));
        let addresses = answer.addresses();
        let records: Vec<String> =
            addresses.iter().map(|ip| format!("www.cdn.test. 30 IN A {ip}")).collect();
        assert_eq!(told["answer"]["answer"], serde_json::json!(records), "{subnet}: {told}");
        let scope = answer.subnet().unwrap().2;
        assert_eq!(told["answer"]["subnet"]["scope_bits"], scope, "{subnet}: {told}");
        assert_eq!(told["steering"]["scope_bits"], scope, "{subnet}: {told}");
    }
}

fn mask(bits: usize, width: usize) -> u128 {
    if bits == 0 { 0 } else { (u128::MAX << (128 - bits)) >> (128 - width) }
}

#[test]
fn the_query_log_has_a_line_per_query_with_the_reason() {
    let mut fleet = unchecked("[log]\nquery = \"q.log\"").write();
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    Query::a("wWw.cdn.test").subnet(KOREAN).udp(dns);
    Query::a("none.cdn.test").tcp(dns);
    Query::new("static.cdn.test", RecordType::MX).udp(dns);
    Query::a("example.com").udp(dns);
    Query::a("a\"b\u{7f}\n.cdn.test").udp(dns);
    let mut tcp = Tcp::connect(dns);
    tcp.send(&Query::a("static.cdn.test").flags(0x8000).bytes());
    assert!(tcp.receive().is_none());
    Query::a("static.cdn.test").udp(dns);
    let lines = wait::until("seven lines", || {
        let text = std::fs::read_to_string(fleet.dir().join("q.log")).ok()?;
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() == 7).then_some(lines)
    });
    let mut seen: Vec<[String; 5]> = lines
        .iter()
        .map(|line| {
            assert_eq!(line["node"], "ns1");
            assert!(line["time"].as_str().unwrap().ends_with('Z'));
            assert!(line["client"].as_str().unwrap().starts_with("127."));
            ["proto", "name", "type", "rcode", "reason"]
                .map(|field| line[field].as_str().unwrap_or("-").to_owned())
        })
        .collect();
    seen.sort();
    let mut wanted = [
        ["udp", "wWw.cdn.test.", "A", "NOERROR", "first-choice"],
        ["tcp", "none.cdn.test.", "A", "NXDOMAIN", "nxdomain"],
        ["udp", "static.cdn.test.", "MX", "NOERROR", "nodata"],
        ["udp", "example.com.", "A", "REFUSED", "not-authoritative"],
        ["udp", r#"a\"b\127\010.cdn.test."#, "A", "NXDOMAIN", "nxdomain"],
        ["tcp", "", "", "-", "not-a-query"],
        ["udp", "static.cdn.test.", "A", "NOERROR", "static"],
    ];
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
    let steered = lines.iter().find(|line| line["reason"] == "first-choice").unwrap();
    assert_eq!((&steered["policy"], &steered["datacenter"]), (&"web".into(), &"icn".into()));
    assert_eq!(steered["subnet"], KOREAN);
}

#[test]
fn a_reload_says_what_waits_for_the_next_start() {
    let mut fleet = unchecked("[log]\nquery = \"q.log\"").write();
    fleet.node_mut("ns1").start();
    let told = |fleet: &Fleet| {
        let output = fleet.run(Program::Geodns, &["reload", "--node", "ns1"]);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).contains("of [log] change with the next start")
    };
    assert!(!told(&fleet));
    fleet.edit("query = \"q.log\"", "query = \"other.log\"");
    assert!(told(&fleet));
    fleet.edit("query = \"other.log\"", "query = \"q.log\"");
    assert!(!told(&fleet));
}

/// A log that cannot be written costs lines, which are counted, and no query; nor does it keep the program from its
/// end.
#[test]
fn a_query_log_that_is_stuck_holds_up_no_query() {
    for target in ["/dev/full", "pipe"] {
        let mut fleet = unchecked(&format!("[log]\nquery = \"{target}\"")).write();
        let made = Command::new("mkfifo").arg(fleet.dir().join("pipe")).status().unwrap();
        assert!(made.success());
        fleet.node_mut("ns1").start();
        let dns = fleet.node("ns1").dns();
        // More than the pipe and the queue hold.
        let burst: Vec<u8> = (0..50)
            .flat_map(|_| {
                let query = Query::a("static.cdn.test").bytes();
                [&u16::try_from(query.len()).unwrap().to_be_bytes()[..], &query].concat()
            })
            .collect();
        let mut tcp = Tcp::connect(dns);
        for _ in 0..300 {
            tcp.send_bytes(&burst);
            for _ in 0..50 {
                assert_eq!(tcp.receive().expect("an answer").addresses().len(), 2);
            }
        }
        wait::until("lost lines to be counted", || {
            let lost =
                fleet.node("ns1").metrics().sum("geodns_dropped_total", &[("reason", "log-busy")]);
            (lost > 0.0).then_some(())
        });
        fleet.node_mut("ns1").signal(Signal::Hup);
        assert_eq!(Query::a("static.cdn.test").udp(dns).addresses().len(), 2);
        fleet.node_mut("ns1").signal(Signal::Term);
        assert!(fleet.node_mut("ns1").ended(Duration::from_secs(10)).success(), "{target}");
    }
}
