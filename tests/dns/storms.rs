//! Health and reloads while clients ask: nothing is lost, failures are seen in time, what flaps moves nobody.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::dns::Query;
use harness::origin::{Gate, Script};
use harness::process::Signal;
use harness::wait;

use super::failover::{BOUND, KOREAN, addresses, ip, two_datacenters};

const HEALTH: &str = "/.meridian/health";

/// A client that asks without a pause, and fails when one answer is missing or empty.
struct Asking {
    stop: Arc<AtomicBool>,
    /// How often it asked, and when it was last sent to the edge watched.
    thread: JoinHandle<(u64, Instant)>,
}

impl Asking {
    fn of(dns: SocketAddr, watched: IpAddr, tcp: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut last) = (0, Instant::now());
            while !stopping.load(Ordering::Relaxed) {
                let query = Query::a("www.cdn.test").subnet(KOREAN);
                let answer = if tcp { query.tcp(dns) } else { query.udp(dns) };
                let addresses = answer.addresses();
                assert!(!addresses.is_empty(), "health must never empty an answer");
                if addresses.contains(&watched) {
                    last = Instant::now();
                }
                asked += 1;
            }
            (asked, last)
        });
        Self { stop, thread }
    }

    #[track_caller]
    fn end(self) -> (u64, Instant) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a query was lost")
    }
}

#[test]
fn a_datacenter_that_dies_under_load_leaves_in_time() {
    let (fleet, icn, _fra) = two_datacenters("");
    let (dns, dead) = (fleet.node("ns1").dns(), ip(&fleet, "icn-1")[0]);
    let clients: Vec<Asking> = (0..3).map(|n| Asking::of(dns, dead, n == 2)).collect();
    let died = Instant::now();
    icn.go_down();
    wait::until("the clients to move", || (addresses(&fleet, KOREAN) != [dead]).then_some(()));
    // Twice as long as it may take: nobody is sent back.
    while died.elapsed() < BOUND * 2 {
        assert_ne!(addresses(&fleet, KOREAN), [dead]);
    }
    for client in clients {
        let (asked, last) = client.end();
        let took = last.saturating_duration_since(died);
        assert!(took <= BOUND, "one of {asked} answers still led there after {took:?}");
        assert!(asked as u128 > died.elapsed().as_millis() / 20, "{asked} queries are no load");
    }
}

/// Reloads that come faster than a check takes neither lose a query, nor keep a failure from being seen, nor make
/// checks more frequent.
#[test]
fn a_storm_of_reloads_loses_no_query_and_hides_no_failure() {
    let (mut fleet, icn, _fra) = two_datacenters("");
    let (dns, silent) = (fleet.node("ns1").dns(), ip(&fleet, "icn-1")[0]);
    let clients: Vec<Asking> = (0..2).map(|n| Asking::of(dns, silent, n == 1)).collect();
    let generation = |fleet: &harness::fleet::Fleet| {
        fleet.node("ns1").admin_json("/v1/status")["generation"].as_u64()
    };
    let (began, probes) = (Instant::now(), icn.count(HEALTH));
    while generation(&fleet) < Some(30) {
        fleet.node_mut("ns1").signal(Signal::Hup);
    }
    let (asked, most) = (icn.count(HEALTH) - probes, began.elapsed().as_millis() / 180 + 2);
    assert!(asked as u128 <= most, "{asked} probes, {most} in their intervals");
    let gate = Gate::new();
    icn.route(HEALTH, Script::ok("late").hold(&gate));
    let since = Instant::now();
    while addresses(&fleet, KOREAN) == [silent] {
        fleet.node_mut("ns1").signal(Signal::Hup);
        assert!(since.elapsed() < BOUND * 2, "a silent edge is still answered");
    }
    gate.open();
    for client in clients {
        assert!(client.end().0 > 30);
    }
    assert_eq!(fleet.node("ns1").metrics().sum("geodns_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn an_edge_that_fails_every_other_check_moves_nobody() {
    let (fleet, icn, _fra) = two_datacenters("");
    for _ in 0..5 {
        icn.once(HEALTH, Script::status(500, "now and then"));
        let before = icn.count(HEALTH);
        wait::until("two more checks", || {
            assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "icn-1"));
            (icn.count(HEALTH) >= before + 2).then_some(())
        });
    }
    let up = fleet.node("ns1").metrics().sum("geodns_datacenter_up", &[("datacenter", "icn")]);
    assert_eq!(up, 1.0);
}

#[test]
fn a_check_that_is_removed_stops_at_once() {
    let (mut fleet, icn, _fra) = two_datacenters("");
    icn.route(HEALTH, Script::status(503, "ill"));
    wait::until("the clients to move", || {
        (addresses(&fleet, KOREAN) == ip(&fleet, "fra-1")).then_some(())
    });
    fleet.edit("check = \"edge\"\n", "");
    let reply = fleet.node("ns1").admin_request("POST", "/v1/reload", "");
    assert!((200..300).contains(&reply.status), "{}", reply.text());
    // What nobody checks counts as up, and at once.
    assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "icn-1"));
    let (probes, since) = (icn.count(HEALTH), Instant::now());
    while since.elapsed() < Duration::from_millis(600) {
        assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "icn-1"));
    }
    // One may have been under way.
    assert!(icn.count(HEALTH) <= probes + 1);

    assert!(!fleet.node("ns1").metrics().has("geodns_edge_up"), "no longer reported");
}
