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
