//! A node without its sockets: probes, the operator, reloads, files on disk.

use std::path::Path;

use shared::config::LogTarget;
use shared::metrics::Counter;

use super::*;
use crate::explain::{Request, explain};
use crate::io::dnstap::Tap;
use crate::io::load::load;
use crate::name::Name;

pub(in crate::io) const CONFIG: &str = r#"
[datacenter.icn]
location = [37.46, 126.44]
[datacenter.fra]
location = [50.03, 8.57]
[nameserver.ns1]
listen = ["127.0.0.53:5353"]
admin = "127.0.0.53:8053"
state = "state.json"
[edge.icn-1]
datacenter = "icn"
address = ["192.0.2.1"]
http = ["127.0.1.1:8080"]
admin = "127.0.1.1:9090"
[edge.fra-1]
datacenter = "fra"
address = ["192.0.2.2"]
http = ["127.0.2.1:8080"]
admin = "127.0.2.1:9090"
[zone."cdn.test"]
file = "cdn.test.zone"
steer = { www = "web" }
[steering.web]
check = "edge"
[check.edge]
kind = "http"
"#;

pub(in crate::io) const ZONE: &str =
    "$TTL 60\n@ SOA ns1 h 1 2 3 4 5\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.53\nns2 A 192.0.2.54\n";

pub(in crate::io) fn write(dir: &Path, config: &str, zone: &str) {
    std::fs::write(dir.join("meridian.toml"), config).unwrap();
    std::fs::write(dir.join("cdn.test.zone"), zone).unwrap();
}

pub(in crate::io) fn start(dir: &Path) -> Arc<Node> {
    let path = dir.join("meridian.toml");
    let loading = load(&path).unwrap_or_else(|problems| panic!("{}", listing(&problems)));
    let log = JsonLog::open(&LogTarget::Off, Counter::default()).unwrap();
    Node::new("ns1", path, loading, Arc::new(Registry::new()), log, Tap::default()).unwrap()
}

/// Where a client in Asia is sent.
fn datacenter(node: &Node) -> String {
    let request = Request {
        name: Name::parse_absolute("www.cdn.test").unwrap(),
        qtype: 1,
        client: "1.208.0.1".parse().unwrap(),
        subnet: None,
    };
    let explained = explain(&node.served.load_full().snapshot, &request).unwrap();
    explained.steering.unwrap().datacenter.unwrap()
}

fn probe(node: &Node, edge: &str, results: &str) {
    for result in results.chars() {
        let probed = if result == '+' { Probed::good() } else { Probed::bad("refused") };
        node.record(&("edge".to_owned(), edge.to_owned()), probed);
    }
}

#[test]
fn probes_move_clients_and_bring_them_back() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    probe(&node, "icn-1", "+");
    probe(&node, "fra-1", "+");
    assert_eq!(datacenter(&node), "icn");
    probe(&node, "icn-1", "--");
    assert_eq!(datacenter(&node), "icn");
    probe(&node, "icn-1", "-");
    assert_eq!(datacenter(&node), "fra");
    let text = node.registry.render();
    assert!(text.contains("geodns_datacenter_up{datacenter=\"icn\"} 0\n"), "{text}");
    assert!(text.contains("geodns_edge_up{edge=\"icn-1\",check=\"edge\"} 0\n"), "{text}");
    probe(&node, "icn-1", "++");
    assert_eq!(datacenter(&node), "icn");
}

#[test]
fn the_operators_word_is_kept_and_never_takes_the_last_one_unforced() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    let drain =
        |name, force| node.set_override(Subject::Datacenter(name), Mode::Drain, None, force);
    assert!(drain("icn", false).is_ok());
    assert_eq!(datacenter(&node), "fra");
    assert!(matches!(drain("fra", false), Err(OverrideError::LastHealthy(_))));
    assert!(matches!(
        node.set_override(Subject::Edge("fra-1"), Mode::Down, None, false),
        Err(OverrideError::LastHealthy(_))
    ));
    assert!(matches!(drain("nowhere", false), Err(OverrideError::Unknown(_))));
    assert_eq!(datacenter(&node), "fra");
    drop(node);

    let again = start(dir.path());
    assert_eq!(datacenter(&again), "fra", "kept over a restart");
    probe(&again, "fra-1", "+");
    assert!(again.set_override(Subject::Datacenter("fra"), Mode::Drain, None, true).is_ok());
    assert_eq!(datacenter(&again), "fra", "the last good answer goes on");
    for name in ["icn", "fra"] {
        let auto = again.set_override(Subject::Datacenter(name), Mode::Auto, None, false);
        assert_eq!(auto, Ok(None));
    }
    assert_eq!(datacenter(&again), "icn");
}

#[test]
fn a_damaged_state_file_is_told_and_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    std::fs::write(dir.path().join("state.json"), "{").unwrap();
    let path = dir.path().join("meridian.toml");
    let loading = load(&path).unwrap_or_else(|problems| panic!("{}", listing(&problems)));
    let log = JsonLog::off();
    let result = Node::new("ns1", path, loading, Arc::new(Registry::new()), log, Tap::default());
    assert!(result.err().unwrap().contains("damaged"));
}

#[test]
fn a_reload_keeps_what_is_known_of_edges() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    probe(&node, "fra-1", "+");
    probe(&node, "icn-1", "-");
    assert_eq!(datacenter(&node), "fra");
    write(dir.path(), CONFIG, &format!("{ZONE}new A 192.0.2.9\n"));
    node.replace(load(&node.config_path).unwrap_or_else(|p| panic!("{}", listing(&p)))).unwrap();
    assert_eq!(datacenter(&node), "fra");
    let served = node.served.load_full();
    assert_eq!(served.snapshot.tables.zones.names(), 5, "apex, ns1, ns2, new, www");
    assert_eq!(node.state().generation, 2);
}

/// Reloads that nobody scrapes between leave nothing behind, and no count is lost with them.
#[test]
fn reloads_do_not_pile_up_counts() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    let outcome = crate::answer::Outcome::Drop(crate::reason::Reason::NotAQuery);
    for _ in 0..20 {
        let stats = Arc::clone(&node.served.load_full().stats);
        let mut batch = metrics::Batch::default();
        stats.note(crate::answer::Transport::Udp, &outcome, &mut batch);
        stats.add(&mut batch);
        node.replace(load(&node.config_path).unwrap_or_else(|p| panic!("{}", listing(&p))))
            .unwrap();
    }
    assert!(node.state().stats.len() <= 3, "{}", node.state().stats.len());
    let dropped = node.registry.render();
    assert!(dropped.contains("geodns_dropped_total{reason=\"not-a-query\"} 20\n"), "{dropped}");
}

#[test]
fn what_is_wrong_is_found_at_once_and_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let databases = CONFIG.to_owned() + "[geo]\ndatabases = [\"broken.mmdb\", \"missing.mmdb\"]\n";
    write(dir.path(), &databases, &format!("{ZONE}www A 192.0.2.9\nx CNAME y\nx A 192.0.2.8\n"));
    std::fs::write(dir.path().join("broken.mmdb"), "not a database").unwrap();
    let problems =
        load(&dir.path().join("meridian.toml")).err().map(|problems| listing(&problems)).unwrap();
    for part in [
        "www.cdn.test. is steered and has A",
        "cdn.test.zone:8:",
        "stands alone",
        "broken.mmdb",
        "missing.mmdb",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
    write(dir.path(), CONFIG, &format!("{ZONE}x A nonsense\n"));
    let problems =
        load(&dir.path().join("meridian.toml")).err().map(|problems| listing(&problems)).unwrap();
    assert!(
        problems.contains("cdn.test.zone:7: error: A: `nonsense` is not an IPv4 address"),
        "{problems}"
    );
}

/// Another start within the time in which the last run is believed.
#[test]
fn a_restart_goes_on_with_what_was_known() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    probe(&node, "fra-1", "+");
    probe(&node, "icn-1", "+---");
    assert_eq!(datacenter(&node), "fra");
    node.save();
    drop(node);

    let again = start(dir.path());
    assert!(again.state().monitor.first_round_is_done(), "nobody need wait");
    assert_eq!(datacenter(&again), "fra");
    assert_eq!(again.state().restored.map(|restored| restored.targets), Some(2));
    probe(&again, "icn-1", "++");
    assert_eq!(datacenter(&again), "icn");
    drop(again);

    // What is damaged of it is done without; the operator's word is not among that.
    let path = dir.path().join("state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"down\"", "\"sideways\"")).unwrap();
    let damaged = start(dir.path());
    assert!(!damaged.state().monitor.first_round_is_done());
    assert_eq!(datacenter(&damaged), "icn", "nothing known: the benefit of the doubt");
}

#[test]
fn the_state_is_saved_after_changes_and_not_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    let save = node.save_if_due().expect("there is no file yet");
    assert!(node.save_if_due().is_none());
    // An order is written at once, and what was begun before it does not overwrite it.
    let drain = Subject::Datacenter("icn");
    assert!(node.set_override(drain, Mode::Drain, None, false).is_ok());
    save.write().unwrap();
    assert_eq!(datacenter(&start(dir.path())), "fra");
}

#[test]
fn an_override_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    let drain = Subject::Datacenter("icn");
    let given = node.set_override(drain, Mode::Drain, Some(Duration::from_millis(1)), false);
    let until = given.unwrap().unwrap().until.unwrap();
    while node.now() < until {
        std::thread::yield_now();
    }
    assert_eq!(datacenter(&node), "fra", "until somebody lets time pass");
    node.tick();
    assert_eq!(datacenter(&node), "icn");
    assert_eq!(node.state().overrides, Overrides::default());
    // Over before a start: it is not taken up again.
    assert_eq!(datacenter(&start(dir.path())), "icn");
}

/// Whatever the order in which they go, the last one that is up of any family is only taken by force.
#[test]
fn no_combination_of_orders_takes_the_last_healthy_one() {
    let dir = tempfile::tempdir().unwrap();
    let v6 = CONFIG.replace("[\"192.0.2.1\"]", "[\"192.0.2.1\", \"2001:db8::1\"]");
    let (icn, fra) = (Subject::Datacenter("icn"), Subject::Datacenter("fra"));
    let (icn_1, fra_1) = (Subject::Edge("icn-1"), Subject::Edge("fra-1"));
    use Mode::{Down, Drain, Up};
    for (config, before, order, taken) in [
        (CONFIG, vec![], (icn, Drain), true),
        (CONFIG, vec![(icn, Drain)], (fra, Drain), false),
        (CONFIG, vec![(icn, Drain)], (fra, Down), false),
        (CONFIG, vec![(icn_1, Down)], (fra, Drain), false),
        (CONFIG, vec![(icn, Down)], (fra_1, Drain), false),
        (CONFIG, vec![(icn_1, Drain)], (fra_1, Down), false),
        (CONFIG, vec![(icn, Drain)], (icn_1, Down), true),
        (CONFIG, vec![(icn, Drain)], (icn, Down), true),
        (CONFIG, vec![(icn, Drain)], (fra_1, Up), true),
        // Only Seoul has IPv6.
        (&v6, vec![], (icn, Drain), false),
        (&v6, vec![], (icn_1, Down), false),
        (&v6, vec![], (fra, Drain), true),
    ] {
        let _ = std::fs::remove_file(dir.path().join("state.json"));
        write(dir.path(), config, ZONE);
        let node = start(dir.path());
        for (subject, mode) in &before {
            assert!(node.set_override(*subject, *mode, None, false).is_ok());
        }
        let result = node.set_override(order.0, order.1, None, false);
        assert_eq!(result.is_ok(), taken, "{before:?}, then {order:?}: {result:?}");
        assert!(node.set_override(order.0, order.1, None, true).is_ok(), "by force");
    }
    // A datacenter that is up only because the operator says so.
    let _ = std::fs::remove_file(dir.path().join("state.json"));
    write(dir.path(), CONFIG, ZONE);
    let node = start(dir.path());
    probe(&node, "icn-1", "-");
    probe(&node, "fra-1", "-");
    assert!(node.set_override(icn, Up, None, false).is_ok());
    assert!(node.set_override(icn, Mode::Auto, None, false).is_err());
}

/// While this node doubts its own view, what stands is no reason to take what really answers.
#[test]
fn a_doubted_datacenter_does_not_count_as_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let third = CONFIG.replace("[nameserver.ns1]", "[datacenter.iad]\nlocation = [38.9, -77.4]\n[edge.iad-1]\ndatacenter = \"iad\"\naddress = [\"192.0.2.3\"]\nhttp = [\"127.0.3.1:8080\"]\nadmin = \"127.0.3.1:9090\"\n[nameserver.ns1]");
    write(dir.path(), &third, ZONE);
    let node = start(dir.path());
    for edge in ["icn-1", "fra-1", "iad-1"] {
        probe(&node, edge, "+");
    }
    for edge in ["fra-1", "iad-1"] {
        probe(&node, edge, "---");
    }
    assert!(node.state().monitor.suspicion().is_some());
    let order = |name| node.set_override(Subject::Datacenter(name), Mode::Drain, None, false);
    assert!(matches!(order("icn"), Err(OverrideError::LastHealthy(_))));
    assert!(order("fra").is_ok());
}

/// TTLs in bounds of 5 and 60 s, with what could change the answers next. The check alone would allow 58 s.
#[test]
fn a_ttl_ends_before_whatever_could_change_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let slow = CONFIG
        .replace("kind = \"http\"", "kind = \"http\"\ninterval = \"29s\"\nhold_down = \"1h\"");
    let ttl = |node: &Node| {
        let served = node.served.load_full();
        served.snapshot.health.family(0, Family::V4).unwrap().ttl
    };
    let drained = |secs: Option<u64>| {
        let _ = std::fs::remove_file(dir.path().join("state.json"));
        write(dir.path(), &slow, ZONE);
        let node = start(dir.path());
        probe(&node, "icn-1", "+");
        probe(&node, "fra-1", "+");
        let length = secs.map(Duration::from_secs);
        let given = node.set_override(Subject::Edge("icn-1"), Mode::Drain, length, false);
        assert!(given.is_ok());
        ttl(&node)
    };
    assert_eq!(drained(None), 58, "three failures, the first at once");
    assert_eq!(drained(Some(7200)), 58);
    // Half a second and more goes to the tick.
    assert_eq!(drained(Some(31)), 30);
    assert_eq!(drained(Some(6)), 5);
    assert_eq!(drained(Some(1)), 5);

    let ramp = slow.replace("check = \"edge\"", "check = \"edge\"\nramp = \"80s\"");
    let _ = std::fs::remove_file(dir.path().join("state.json"));
    write(dir.path(), &ramp, ZONE);
    let node = start(dir.path());
    probe(&node, "icn-1", "+");
    probe(&node, "fra-1", "+");
    assert_eq!(ttl(&node), 58);
    probe(&node, "icn-1", "-");
    assert_eq!(ttl(&node), 5, "between states");
    probe(&node, "icn-1", "--");
    assert_eq!(ttl(&node), 29, "two successes");
    probe(&node, "icn-1", "++");
    assert_eq!(ttl(&node), 5, "the next step of the ramp");
    // Falls again: held down for 87 s, but the other one could fall before.
    probe(&node, "icn-1", "---++");
    assert!(node.state().monitor.next_end("edge", node.now()).is_some());
    assert_eq!(ttl(&node), 58);
}
