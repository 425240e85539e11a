//! What a name server believes of its datacenters, over real probes: reports, certificates, flapping, return and
//! overload, and the state that outlives it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::dns::Query;
use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::plan::Plan;
use harness::process::Program;
use harness::wait;
use serde_json::Value;

use super::RECORDS;
use super::failover::{KOREAN, addresses, ip};

/// Two datacenters and a name server with its state file, for edges that report. `policy` and `check` are further
/// lines, `edge` those of both edges.
fn reporting(policy: &str, check: &str, edge: &str) -> Plan {
    Plan::new()
        .datacenter("icn", 37.46, 126.44)
        .datacenter("fra", 50.03, 8.57)
        .nameserver("ns1", "fra")
        .toml("state = \"state.json\"")
        .cache_node("icn-1", "icn", "edge", edge)
        .cache_node("fra-1", "fra", "edge", edge)
        .file("token", "s3cret\n")
        .zone("cdn.test", RECORDS, &[("www", "web")])
        .toml(&format!(
            "[steering.web]\ncheck = \"edge\"\nttl = {{ max = \"30s\", min = \"1s\" }}\n{policy}\n\
             [check.edge]\ninterval = \"200ms\"\ntimeout = \"200ms\"\ndown_after = 2\nup_after = 2\n{check}"
        ))
}

fn report(node: &str, more: &str) -> Script {
    Script::ok(format!("{{\"node\":\"{node}\",\"state\":\"serving\"{more}}}"))
}

/// The admin listeners of both edges, played by scripted origins, and a name server that has seen both up.
fn scripted(policy: &str, edge: &str) -> (Fleet, Origin, Origin) {
    let mut fleet = reporting(policy, "kind = \"report\"", edge).write();
    let [icn, fra] = ["icn-1", "fra-1"].map(|name| {
        // At its place on HTTP nobody asks.
        drop(fleet.node_mut(name).stand_in());
        let origin = Origin::start_on(fleet.node(name).admin());
        origin.route("/v1/report", report(name, ",\"load\":0.1"));
        origin
    });
    fleet.node_mut("ns1").start();
    until_up(&fleet, &["icn", "fra"]);
    (fleet, icn, fra)
}

fn until_up(fleet: &Fleet, datacenters: &[&str]) {
    for dc in datacenters {
        wait::until("a datacenter to be up", || {
            let up = fleet.node("ns1").metrics().sum("geodns_datacenter_up", &[("datacenter", dc)]);
            (up >= 1.0).then_some(())
        });
    }
}

/// Where clients in Korea are sent.
fn until_sent(fleet: &Fleet, edge: &str) {
    let wanted = ip(fleet, edge);
    wait::until("the clients to move", || (addresses(fleet, KOREAN) == wanted).then_some(()));
}

/// The status of the edge `icn-1`.
fn seoul(fleet: &Fleet) -> Value {
    let status = fleet.node("ns1").admin_json("/v1/status");
    let datacenters = status["datacenters"].as_array().unwrap();
    let icn = datacenters.iter().find(|dc| dc["name"] == "icn").unwrap();
    icn["edges"][0].clone()
}

fn table(fleet: &Fleet) -> String {
    let output = fleet.run(Program::Geodns, &["status"]);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn intake(fleet: &Fleet) -> f64 {
    fleet.node("ns1").metrics().sum("geodns_datacenter_intake", &[("datacenter", "icn")])
}

/// Real edges: one that drains gets no clients, and is not down; one that ends is.
#[test]
fn edges_tell_of_themselves() {
    let origin = Origin::start();
    let site = format!(
        "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\n[site.www]\nhosts = [\"www.cdn.test\"]\n\
         routes = [ {{ path = \"/*\", origin = \"static\" }} ]",
        origin.url()
    );
    let mut fleet = reporting("", "kind = \"report\"", "memory = \"64MiB\"").toml(&site).start();
    until_sent(&fleet, "icn-1");
    let reported = wait::until("a report", || seoul(&fleet).get("report").cloned());
    assert_eq!((&reported["node"], &reported["state"]), (&"icn-1".into(), &"serving".into()));
    assert_eq!(reported["protocols"], serde_json::json!(["http/1.1", "h2"]));
    assert!(table(&fleet).contains("speaks http/1.1 h2"), "{}", table(&fleet));
    assert!(fleet.node("ns1").metrics().has("geodns_edge_load"));

    assert_eq!(fleet.node("icn-1").admin_request("POST", "/v1/drain", "").status, 200);
    until_sent(&fleet, "fra-1");
    assert_eq!(seoul(&fleet)["checks"][0]["state"], "up", "it drains, it is not down");
    assert!(table(&fleet).contains("draining"), "{}", table(&fleet));
    assert_eq!(fleet.node("icn-1").admin_request("POST", "/v1/undrain", "").status, 200);
    until_sent(&fleet, "icn-1");
    // All of them: somebody must be answered.
    for edge in ["icn-1", "fra-1"] {
        assert_eq!(fleet.node(edge).admin_request("POST", "/v1/drain", "").status, 200);
    }
    let until_draining = |count: f64| {
        wait::until("so many to drain", || {
            let scrape = fleet.node("ns1").metrics();
            (scrape.sum("geodns_edge_draining", &[]) == count).then_some(())
        });
    };
    until_draining(2.0);
    assert!(!addresses(&fleet, KOREAN).is_empty());
    for edge in ["icn-1", "fra-1"] {
        assert_eq!(fleet.node(edge).admin_request("POST", "/v1/undrain", "").status, 200);
    }
    until_draining(0.0);
    until_sent(&fleet, "icn-1");
    fleet.node_mut("icn-1").kill();
    until_sent(&fleet, "fra-1");
    assert!(seoul(&fleet).get("report").is_none(), "what it last said is no news");
}

#[test]
fn a_report_that_is_none_fails_and_the_token_is_shown() {
    let (fleet, icn, _fra) = scripted("", "admin_token_file = \"token\"");
    let probe = icn.requests("/v1/report").remove(0);
    assert_eq!(probe.field("authorization"), Some("Bearer s3cret"));
    for (bad, why) in [
        (report("fra-1", ""), "a report of `fra-1`"),
        (Script::ok("serving\n"), "this is no report"),
        (Script::ok(format!("{{\"node\":\"icn-1\",\"x\":\"{}\"}}", "x".repeat(70_000))), "HTTP:"),
        (Script::status(401, "{}"), "status 401"),
    ] {
        icn.route("/v1/report", bad);
        until_sent(&fleet, "fra-1");
        let failure = seoul(&fleet)["checks"][0]["failure"].as_str().unwrap_or_default().to_owned();
        assert!(failure.contains(why), "{failure}, not {why}");
        icn.route("/v1/report", report("icn-1", ""));
        until_sent(&fleet, "icn-1");
    }
}

/// Some of the networks near an overloaded datacenter go to the next one, and come back.
#[test]
fn a_datacenter_with_too_much_load_sheds() {
    let (fleet, icn, _fra) = scripted("shed = { above = 0.8, resume = 0.5 }", "");
    let elsewhere = || {
        let seoul = ip(&fleet, "icn-1");
        // All over Asia and the Pacific: those of Korea are the last to go.
        let networks = (0..64).map(|n| format!("1.{}.0.0/24", n * 4));
        networks.filter(|network| addresses(&fleet, network) != seoul).count()
    };
    let before = elsewhere();
    assert_eq!((intake(&fleet), before < 32), (1.0, true), "{before}");
    icn.route("/v1/report", report("icn-1", ",\"load\":0.99"));
    wait::until("half of the clients to go", || (intake(&fleet) < 0.5).then_some(()));
    // Enough: it takes its time for the way back.
    icn.route("/v1/report", report("icn-1", ",\"load\":0.1"));
    assert!(elsewhere() > before);
    assert!(table(&fleet).contains("sheds"), "{}", table(&fleet));
    wait::within(Duration::from_secs(60), "all to be back", || {
        (intake(&fleet) == 1.0 && elsewhere() == before).then_some(())
    });
}

#[test]
fn a_datacenter_that_returns_ramps() {
    let (fleet, icn, _fra) = scripted("ramp = \"6s\"", "");
    assert_eq!(intake(&fleet), 1.0, "the start is no return");
    icn.go_down();
    until_sent(&fleet, "fra-1");
    icn.come_back();
    until_up(&fleet, &["icn"]);
    let shares: Vec<f64> =
        std::iter::repeat_with(|| intake(&fleet)).take_while(|s| *s < 1.0).collect();
    assert!(shares.first().is_some_and(|share| *share < 0.5), "{shares:?}");
    assert!(shares.is_sorted(), "{shares:?}");
    until_sent(&fleet, "icn-1");
}

#[test]
fn who_flaps_is_held_down() {
    let (fleet, icn, _fra) = scripted("", "");
    let held = wait::within(Duration::from_secs(60), "a hold", || {
        icn.go_down();
        until_sent(&fleet, "fra-1");
        icn.come_back();
        let held = seoul(&fleet)["checks"][0].get("held_until").cloned();
        match held {
            Some(held) => Some(held),
            None => {
                until_sent(&fleet, "icn-1");
                None
            }
        }
    });
    assert!(held.as_str().unwrap().ends_with('Z'));
    until_sent(&fleet, "icn-1");
}

/// What was known when it was killed is what it answers with, from its first answer on.
#[test]
fn a_restart_remembers() {
    let (mut fleet, icn, _fra) = scripted("", "");
    icn.go_down();
    until_sent(&fleet, "fra-1");
    let drained = fleet.run(Program::Geodns, &["drain", "--edge", "icn-1", "--for", "1h"]);
    assert!(drained.status.success());
    fleet.node_mut("ns1").kill();
    fleet.node_mut("ns1").start();
    assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "fra-1"));
    let status = fleet.node("ns1").admin_json("/v1/status");
    assert_eq!(status["restored"]["targets"], 2, "{status}");
    let set = &seoul(&fleet)["set"];
    assert!(
        set["mode"] == "drain" && (3000..=3600).contains(&set["left"].as_u64().unwrap()),
        "{set}"
    );
    assert!(table(&fleet).contains("drain, 59m"), "{}", table(&fleet));
}

#[test]
fn an_override_ends_and_a_drain_has_a_finish_line() {
    let (fleet, icn, _fra) = scripted("", "");
    icn.route("/v1/report", report("icn-1", ",\"connections\":3"));
    wait::until("the report", || (seoul(&fleet)["report"]["connections"] == 3).then_some(()));
    let geodns = |args: &[&str]| fleet.run(Program::Geodns, args);
    let drained = geodns(&["drain", "icn", "--wait", "--timeout", "1s"]);
    assert_eq!(drained.status.code(), Some(1), "{drained:?}");
    assert!(String::from_utf8_lossy(&drained.stderr).contains("3 connections are left"));
    let drained = geodns(&["drain", "icn", "--wait", "--below", "3"]);
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    assert_eq!(addresses(&fleet, KOREAN), ip(&fleet, "fra-1"));
    let timed = geodns(&["drain", "icn", "--for", "2s"]);
    assert_eq!(timed.status.code(), Some(0), "{timed:?}");
    assert!(String::from_utf8_lossy(&timed.stdout).contains("until 20"), "{timed:?}");
    until_sent(&fleet, "icn-1");
    assert_eq!(geodns(&["drain", "icn", "--for", "soon"]).status.code(), Some(2));
}

/// A certificate, and its key, that is good for so many days.
fn certificate(days: u64) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["www.cdn.test".to_owned()]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - Duration::from_secs(3600));
    params.not_after = epoch + now + Duration::from_secs(days * 86_400 + 3600);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn https_checks_verify_certificates_and_count_their_days() {
    let origin = Origin::start();
    let (good, good_key) = certificate(20);
    let (other, _) = certificate(20);
    let site = format!(
        "[origin.static]\nservers = [ {{ url = \"{}\" }} ]\n[site.www]\nhosts = [\"www.cdn.test\"]\n\
         tls = {{ certificate_file = \"www.pem\", key_file = \"www.key\" }}\n\
         routes = [ {{ path = \"/*\", origin = \"static\" }} ]",
        origin.url()
    );
    let check = "kind = \"https\"\nhost = \"www.cdn.test\"\nca_file = \"ca.pem\"\nmin_days = 20";
    let mut fleet = reporting("", check, "memory = \"64MiB\"")
        .toml(&site)
        .file("www.pem", &good)
        .file("www.key", &good_key)
        .file("ca.pem", &good)
        .start();
    let failure = |fleet: &Fleet| {
        seoul(fleet)["checks"][0]["failure"].as_str().unwrap_or_default().to_owned()
    };
    until_up(&fleet, &["icn", "fra"]);
    assert_eq!(seoul(&fleet)["checks"][0]["certificate_days"], 20);
    let days = fleet.node("ns1").metrics().sum("geodns_certificate_days", &[("edge", "icn-1")]);
    assert_eq!((days, failure(&fleet)), (20.0, String::new()));
    for (file, text, from, to, why) in [
        (
            "ca.pem",
            good.as_str(),
            "min_days = 20",
            "min_days = 21",
            "ends in 20 days, fewer than 21",
        ),
        ("ca.pem", &other, "min_days = 21", "min_days = 1", "TLS: "),
        ("ca.pem", &good, "host = \"www.cdn.test\"\nca", "host = \"cdn.test\"\nca", "TLS: "),
    ] {
        std::fs::write(fleet.dir().join(file), text).unwrap();
        fleet.edit(from, to);
        fleet.node_mut("ns1").restart();
        wait::until(why, || failure(&fleet).contains(why).then_some(()));
    }
    // A file that is none is refused, and the last good state goes on.
    std::fs::write(fleet.dir().join("ca.pem"), "none").unwrap();
    let reload = fleet.run(Program::Geodns, &["reload"]);
    assert!(!reload.status.success());
    assert!(String::from_utf8_lossy(&reload.stderr).contains("no certificate"), "{reload:?}");
}

/// What a reload takes away is asked no more, and what it leaves is.
#[test]
fn a_removed_check_stops_at_once() {
    let (mut fleet, icn, fra) = scripted("", "");
    fleet.edit("check = \"edge\"", "datacenters = [\"fra\"]\ncheck = \"edge\"");
    let reload = fleet.run(Program::Geodns, &["reload"]);
    assert!(reload.status.success(), "{reload:?}");
    let (before, start) = (icn.count("/v1/report"), fra.count("/v1/report"));
    wait::until("five more probes of the other", || {
        (fra.count("/v1/report") >= start + 5).then_some(())
    });
    // One may have been on its way.
    assert!(icn.count("/v1/report") <= before + 1);
    let asked = Query::a("www.cdn.test").udp(fleet.node("ns1").dns()).addresses();
    assert_eq!(asked, [IpAddr::V4(fleet.node("fra-1").ip())]);
    assert!(!fleet.node("ns1").metrics().has("geodns_edge_up{edge=\"icn-1\""));
}
