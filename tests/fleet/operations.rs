//! What operators look at: liveness, readiness, metrics, status, logs; and what a wrong configuration gets them.

use harness::dns::Query;
use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::process::Program;
use harness::{wait, wire};

const BOTH: [(&str, Program); 2] = [("ns1", Program::Geodns), ("icn-1", Program::EdgeCache)];

fn two(origin: &Origin) -> Fleet {
    let mut fleet = super::pair(origin).write();
    fleet.node_mut("ns1").start();
    fleet.node_mut("icn-1").start();
    fleet
}

#[test]
fn the_admin_listener_serves_what_the_contract_names() {
    let origin = Origin::start();
    let fleet = two(&origin);
    for (name, _) in BOTH {
        let node = fleet.node(name);
        let host = node.admin().to_string();
        for path in ["/livez", "/readyz"] {
            assert_eq!(wire::get(node.admin(), &host, path).status, 200, "{name}{path}");
        }
        let metrics = wire::get(node.admin(), &host, "/metrics");
        let kind = metrics.field("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/plain"), "{name}: {kind}");
        assert!(node.admin_json("/v1/status").is_object());
        assert_eq!(wire::get(node.admin(), &host, "/v1/none").status, 404);
        let wrong = wire::Request::new("DELETE", &host, "/v1/status").send(node.admin());
        assert_eq!(wrong.status, 405, "{name}");
        let problem = wrong.field("content-type").unwrap_or_default();
        assert!(problem.starts_with("application/problem+json"), "{name}: {problem}");
    }
}

#[test]
fn metrics_have_the_names_of_the_contract() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("x").cache_control("max-age=60"));
    let fleet = two(&origin);
    fleet.node("icn-1").get("/a");
    Query::a("static.cdn.test").udp(fleet.node("ns1").dns());
    let families: [(&str, &[&str]); 2] = [
        (
            "ns1",
            &[
                "geodns_queries_total",
                "geodns_datacenter_up",
                "geodns_config_last_reload_successful",
                "geodns_probe_duration_seconds_count",
            ],
        ),
        (
            "icn-1",
            &[
                "edge_cache_requests_total",
                "edge_cache_request_duration_seconds_count",
                "edge_cache_bytes_total",
                "edge_cache_store_bytes",
                "edge_cache_store_objects",
                "edge_cache_evictions_total",
                "edge_cache_origin_requests_total",
                "edge_cache_collapsed_total",
                "edge_cache_config_last_reload_successful",
            ],
        ),
    ];
    for (name, families) in families {
        wait::until("every family to be there", || {
            let scrape = fleet.node(name).metrics();
            families.iter().all(|family| scrape.has(family)).then_some(())
        });
    }
    let store = fleet.node("icn-1").metrics();
    assert_eq!(store.sum("edge_cache_store_objects", &[("tier", "memory")]), 1.0);
    assert!(store.sum("edge_cache_store_bytes", &[("tier", "memory")]) >= 1.0);
}

#[test]
fn status_prints_a_table() {
    let origin = Origin::start();
    let fleet = two(&origin);
    for (name, program) in BOTH {
        let output = fleet.run(program, &["status", "--node", name]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(name) && text.lines().count() >= 3, "{text}");
        let output = fleet.run(program, &["status", "--node", name, "--output", "json"]);
        // geodns may be asked for several nodes at once, and gives a list.
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json.is_object() || json.get(0).is_some(), "{json}");
    }
}

#[test]
fn requests_and_queries_are_logged_as_json_lines() {
    let origin = Origin::start();
    origin.route("/logged", Script::ok("x").cache_control("max-age=60"));
    let mut fleet = super::pair(&origin)
        .toml("[log]\naccess = \"{node}.access.log\"\nquery = \"{node}.query.log\"")
        .write();
    fleet.node_mut("ns1").start();
    fleet.node_mut("icn-1").start();
    fleet.node("icn-1").get("/logged?secret=1");
    Query::a("static.cdn.test").udp(fleet.node("ns1").dns());
    for (file, word) in [("icn-1.access.log", "/logged"), ("ns1.query.log", "static.cdn.test")] {
        let line = wait::until("a line in the log", || {
            let log = std::fs::read_to_string(fleet.dir().join(file)).ok()?;
            log.lines().find(|line| line.contains(word)).map(str::to_owned)
        });
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(json.is_object(), "{file}: {line}");
    }
}

#[test]
fn check_says_what_is_wrong_and_exits_78() {
    let origin = Origin::start();
    let mut fleet = super::pair(&origin).write();
    for program in [Program::Geodns, Program::EdgeCache] {
        let output = fleet.run(program, &["check"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    fleet.edit("down_after = 2", "down_aftr = 2");
    for program in [Program::Geodns, Program::EdgeCache] {
        let output = fleet.run(program, &["check"]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("down_aftr") && text.contains("down_after"), "{text}");
        assert!(text.contains("meridian.toml:"), "file, line and column: {text}");
    }
    for (node, _) in BOTH {
        assert_eq!(fleet.node_mut(node).start_and_fail().code(), Some(78));
    }
}

#[test]
fn a_broken_zone_or_database_is_refused_at_check_and_start() {
    let origin = Origin::start();
    for (broken, geo, word) in [
        ("zone", "", "cdn.test.zone"),
        ("database", "[geo]\ndatabases = [\"broken.mmdb\"]", "broken.mmdb"),
        ("absent database", "[geo]\ndatabases = [\"absent.mmdb\"]", "absent.mmdb"),
    ] {
        let mut fleet = super::pair(&origin).toml(geo).file("broken.mmdb", "no database").write();
        if broken == "zone" {
            std::fs::write(fleet.dir().join("cdn.test.zone"), "@ IN SOA nonsense\n").unwrap();
        }
        let output = fleet.run(Program::Geodns, &["check"]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(78), "{broken}: {text}");
        assert!(text.contains(word), "{broken}: {text}");
        assert_eq!(fleet.node_mut("ns1").start_and_fail().code(), Some(78), "{broken}");
        assert!(fleet.node("ns1").log().contains(word), "{broken}: {}", fleet.node("ns1").log());
    }
}

#[test]
fn a_node_that_is_not_in_the_configuration_is_refused() {
    let origin = Origin::start();
    let fleet = super::pair(&origin).write();
    for program in [Program::Geodns, Program::EdgeCache] {
        let output = fleet.run(program, &["serve", "--node", "nobody"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(2 | 78)), "{:?} {text}", output.status);
        assert!(text.contains("nobody"), "{text}");
    }
    for program in [Program::Geodns, Program::EdgeCache] {
        assert_eq!(program.run(&["--no-such-option"]).status.code(), Some(2));
        assert!(program.run(&["--help"]).status.success());
    }
}
