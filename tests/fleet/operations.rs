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

/// The problems of `check --output json`.
fn problems(fleet: &Fleet, program: Program) -> (Option<i32>, Vec<serde_json::Value>) {
    let output = fleet.run(program, &["check", "--output", "json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(json["ok"] == true, output.status.success(), "{text}");
    (output.status.code(), json["problems"].as_array().unwrap().clone())
}

#[test]
fn check_tells_scripts_where_each_problem_is() {
    let origin = Origin::start();
    let mut fleet = super::pair(&origin)
        .toml("[site.tls]\nhosts = [\"tls.cdn.test\"]\nroutes = [{ path = \"/*\", origin = \"static\" }]")
        .toml("tls = { certificate_file = \"absent.pem\", key_file = \"absent.key\" }")
        .write();
    std::fs::write(fleet.dir().join("cdn.test.zone"), "$TTL 60\n@ SOA nonsense\n").unwrap();
    // A zone's mistakes are for the name servers, a certificate's for the cache nodes.
    for (program, file, line, word) in [
        (Program::Geodns, "cdn.test.zone", 2, "SOA"),
        (Program::EdgeCache, "meridian.toml", 0, "absent.pem"),
    ] {
        let (code, problems) = problems(&fleet, program);
        assert_eq!(code, Some(78), "{problems:?}");
        let found = problems.iter().find(|problem| {
            problem["file"].as_str().is_some_and(|name| name.ends_with(file))
                && problem["message"].as_str().is_some_and(|text| text.contains(word))
        });
        let found = found.unwrap_or_else(|| panic!("{word} of {file} in {problems:#?}"));
        assert_eq!(found["severity"], "error");
        let at = found["line"].as_u64().unwrap();
        assert!(line == 0 && at > 1 || at == line, "{found}");
    }
    fleet.edit("down_after = 2", "down_aftr = 2");
    for program in [Program::Geodns, Program::EdgeCache] {
        let (code, problems) = problems(&fleet, program);
        assert_eq!((code, problems.len()), (Some(78), 1), "{problems:#?}");
        assert_eq!(problems[0]["column"], 1);
        assert!(problems[0]["note"].as_str().unwrap().contains("down_after"));
    }
}

/// Every line of `/metrics` is a comment or a sample of a family that has a help and a type, no name or URL of a
/// request is a label, and a family's samples have the same labels.
#[test]
fn metrics_are_well_formed() {
    let origin = Origin::start();
    origin.route("/a-secret-path", Script::ok("x").cache_control("max-age=60"));
    let fleet = two(&origin);
    fleet.node("icn-1").get("/a-secret-path");
    Query::a("static.cdn.test").udp(fleet.node("ns1").dns());
    Query::a("a-secret-name.cdn.test").udp(fleet.node("ns1").dns());
    for (name, _) in BOTH {
        let node = fleet.node(name);
        let text = wire::get(node.admin(), &node.admin().to_string(), "/metrics").text();
        assert!(!text.contains("a-secret"), "{text}");
        let (mut help, mut family, mut kind) = (String::new(), String::new(), String::new());
        let mut labels: std::collections::BTreeMap<String, Vec<String>> = Default::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').unwrap();
                assert!(words.len() > 5, "{line}");
                help = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, type_) = rest.split_once(' ').unwrap();
                assert_eq!(help, name, "a type follows its help");
                assert!(["counter", "gauge", "histogram"].contains(&type_), "{line}");
                assert_eq!(type_ == "counter", name.ends_with("_total"), "{line}");
                (family, kind) = (name.to_owned(), type_.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let (sample, pairs) = series.split_once('{').unwrap_or((series, "}"));
                let suffix = sample.strip_prefix(family.as_str());
                let suffixes: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffix.is_some_and(|suffix| suffixes.contains(&suffix)), "{line}");
                let pairs = pairs.strip_suffix('}').unwrap();
                let names: Vec<String> = pairs
                    .split("\",")
                    .filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()))
                    .filter(|label| label != "le")
                    .collect();
                let first = labels.entry(family.clone()).or_insert_with(|| names.clone());
                assert_eq!(*first, names, "{line}");
            }
        }
        assert!(labels.len() > 5, "{name}: {labels:?}");
    }
}

#[test]
fn commands_answer_scripts_in_json() {
    let origin = Origin::start();
    let fleet = two(&origin);
    for (program, node, commands) in [
        (
            Program::Geodns,
            "ns1",
            [
                &["undrain", "fra"][..],
                &["reload"],
                &["explain", "www.cdn.test", "--client", "192.0.2.1"],
            ],
        ),
        (
            Program::EdgeCache,
            "icn-1",
            [&["undrain"][..], &["reload"], &["explain", "http://www.cdn.test/a"]],
        ),
    ] {
        for command in commands {
            let args = [command, &["--node", node, "--output", "json"]].concat();
            let output = fleet.run(program, &args);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_str::<serde_json::Value>(&text)
                .unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"));
        }
        for shell in ["bash", "zsh", "fish"] {
            let output = program.run(&["completions", shell]);
            assert!(output.stdout.len() > 1000 && output.stderr.is_empty(), "{shell}");
        }
        // Nobody runs under this name, or at all: what is wrong goes to standard error alone.
        let output = fleet.run(program, &["status", "--node", "nobody"]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
        assert!(String::from_utf8_lossy(&output.stderr).contains("nobody"));
    }
}

#[test]
fn a_taken_port_is_named_with_its_key() {
    let origin = Origin::start();
    let fleet = two(&origin);
    for (node, program) in BOTH {
        let output = fleet.run(program, &["serve", "--node", node]);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{why}");
        let address = fleet.node(node).admin().to_string();
        assert!(why.contains(&address) && why.contains("`admin`"), "{why}");
    }
}
