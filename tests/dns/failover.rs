//! Health that moves clients: a datacenter that dies leaves the answers in time and returns, and no answer is ever
//! empty because of health.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use harness::dns::Query;
use harness::fleet::Fleet;
use harness::origin::{Gate, Origin, Script};
use harness::plan::Plan;
use harness::wait;

use super::{RECORDS, STEERING};

/// `interval × down_after + 1 s` of the tests' check.
pub(super) const BOUND: Duration = Duration::from_millis(200 * 2 + 1000);

pub(super) const KOREAN: &str = "211.60.0.0/24";
const GERMAN: &str = "91.12.0.0/24";

/// Two datacenters with one edge each, played by scripted origins, and a name server that has seen both up.
pub(super) fn two_datacenters(more: &str) -> (Fleet, Origin, Origin) {
    let mut fleet = Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .datacenter("fra", 50.03, 8.57)
        .nameserver("ns1", "icn")
        .edge("icn-1", "icn")
        .edge("fra-1", "fra")
        .zone("cdn.test", RECORDS, &[("www", "web")])
        .toml(&format!("{STEERING}{more}"))
        .write();
    let icn = fleet.node_mut("icn-1").stand_in();
    let fra = fleet.node_mut("fra-1").stand_in();
    fleet.node_mut("ns1").start();
    for dc in ["icn", "fra"] {
        wait::until("a datacenter to be seen up", || {
            let up = fleet.node("ns1").metrics().sum("geodns_datacenter_up", &[("datacenter", dc)]);
            (up >= 1.0).then_some(())
        });
    }
    (fleet, icn, fra)
}

pub(super) fn addresses(fleet: &Fleet, subnet: &str) -> Vec<IpAddr> {
    let answer = Query::a("www.cdn.test").subnet(subnet).udp(fleet.node("ns1").dns());
    let addresses = answer.addresses();
    assert!(!addresses.is_empty(), "health must never empty an answer");
    addresses
}

pub(super) fn ip(fleet: &Fleet, edge: &str) -> Vec<IpAddr> {
    vec![IpAddr::V4(fleet.node(edge).ip())]
}

/// Asks for the Korean client until it is sent there; how long that took.
fn moved(fleet: &Fleet, edge: &str, since: Instant) -> Duration {
    let wanted = ip(fleet, edge);
    wait::until("the client to move", || (addresses(fleet, KOREAN) == wanted).then_some(()));
    since.elapsed()
}

#[test]
fn a_datacenter_that_dies_leaves_in_time_and_returns() {
    let (fleet, icn, _fra) = two_datacenters("");
    assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "icn-1"));
    let died = Instant::now();
    icn.go_down();
    let took = moved(&fleet, "fra-1", died);
    assert!(took <= BOUND, "it took {took:?}, more than {BOUND:?}");
    assert_eq!(addresses(&fleet, GERMAN), ip(&fleet, "fra-1"), "others stay");
    icn.come_back();
    moved(&fleet, "icn-1", Instant::now());
}

/// T-03 of the fault tests: accepted, never answered.
#[test]
fn a_datacenter_that_is_silent_leaves_in_time() {
    let (fleet, icn, _fra) = two_datacenters("");
    let gate = Gate::new();
    let silent = Instant::now();
    icn.route("/.meridian/health", Script::ok("late").hold(&gate));
    let took = moved(&fleet, "fra-1", silent);
    // The last check that was still good may have begun just before.
    assert!(took <= BOUND + Duration::from_millis(200), "it took {took:?}");
    let waiting = icn.most_open();
    assert!(waiting <= 4, "{waiting} probes at once to one silent edge");
    gate.open();
    moved(&fleet, "icn-1", Instant::now());
}

#[test]
fn a_bad_status_counts_as_down_and_one_failure_does_not() {
    let (fleet, icn, _fra) = two_datacenters("");
    icn.once("/.meridian/health", Script::status(500, "once"));
    let before = icn.count("/.meridian/health");
    wait::until("three more probes", || {
        assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "icn-1"), "one failure is not enough");
        (icn.count("/.meridian/health") >= before + 3).then_some(())
    });
    icn.route("/.meridian/health", Script::status(503, "ill"));
    moved(&fleet, "fra-1", Instant::now());
}

/// Lets so many checks pass that what fails next is no part of what failed before: failures within two rounds of
/// interval and time-out (800 ms here) count as one event, in which the name server suspects itself.
fn events_apart(alive: &Origin) {
    let before = alive.count("/.meridian/health");
    wait::until("six more checks", || {
        (alive.count("/.meridian/health") >= before + 6).then_some(())
    });
}

/// When most turn bad at once the state before that stands, and in it a datacenter that died earlier was dead.
#[test]
fn suspecting_the_monitor_does_not_bring_back_who_died_before() {
    let mut fleet = Plan::new()
        .three_datacenters()
        .nameserver("ns1", "icn")
        .edge("icn-1", "icn")
        .edge("fra-1", "fra")
        .edge("iad-1", "iad")
        .zone("cdn.test", RECORDS, &[("www", "web")])
        .toml(STEERING)
        .write();
    let [icn, fra, iad] = ["icn-1", "fra-1", "iad-1"].map(|edge| fleet.node_mut(edge).stand_in());
    fleet.node_mut("ns1").start();
    wait::until("the Korean client to be sent to Seoul", || {
        (addresses(&fleet, KOREAN) == ip(&fleet, "icn-1")).then_some(())
    });
    icn.go_down();
    wait::until("the Korean client to leave Seoul", || {
        (addresses(&fleet, KOREAN) != ip(&fleet, "icn-1")).then_some(())
    });
    events_apart(&fra);
    fra.go_down();
    iad.go_down();
    let watched = Instant::now();
    while watched.elapsed() < BOUND {
        assert_ne!(addresses(&fleet, KOREAN), ip(&fleet, "icn-1"), "Seoul was down before");
    }
}

#[test]
fn when_all_are_down_the_last_good_answer_goes_on() {
    let (fleet, icn, fra) = two_datacenters("");
    icn.go_down();
    moved(&fleet, "fra-1", Instant::now());
    events_apart(&fra);
    fra.go_down();
    let last_good = ip(&fleet, "fra-1");
    let watched = Instant::now();
    // Longer than it takes to find the last one down: the answer stays what it was.
    while watched.elapsed() < BOUND {
        assert_eq!(addresses(&fleet, KOREAN), last_good);
        assert_eq!(addresses(&fleet, GERMAN), last_good);
    }
    icn.come_back();
    moved(&fleet, "icn-1", Instant::now());
}

#[test]
fn tcp_checks_see_a_closed_port() {
    let (mut fleet, icn, _fra) = two_datacenters("");
    fleet.edit("kind = \"http\"", "kind = \"tcp\"");
    fleet.node_mut("ns1").restart();
    moved(&fleet, "icn-1", Instant::now());
    icn.route("/.meridian/health", Script::status(503, "only http would mind"));
    let before = icn.connections();
    wait::until("five more probes", || (icn.connections() >= before + 5).then_some(()));
    assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "icn-1"));
    let died = Instant::now();
    icn.go_down();
    let took = moved(&fleet, "fra-1", died);
    assert!(took <= BOUND, "it took {took:?}, more than {BOUND:?}");
}

#[test]
fn probes_ask_for_what_the_check_says() {
    let (_fleet, icn, _fra) = two_datacenters("");
    let probe = icn.requests("/.meridian/health").remove(0);
    assert_eq!((probe.method.as_str(), probe.field("host")), ("GET", Some("www.cdn.test")));
}
