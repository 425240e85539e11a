//! Reload by signal and by API: a checked configuration takes over without a lost request; a wrong one changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::dns::Query;
use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::process::{Program, Signal};
use harness::{secure, wait, wire};

#[test]
fn a_new_configuration_takes_over_without_losing_a_request() {
    const CLIENTS: usize = 4;
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let mut fleet = super::pair(&origin).write();
    fleet.node_mut("icn-p1").start();
    fleet.node_mut("icn-1").start();
    let (http, parent) = (fleet.node("icn-1").http(), fleet.node("icn-p1").http());
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut kept = wire::Wire::connect(http);
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let path = format!("/{client}/{}", n % 50);
                    let request = wire::Request::get("www.cdn.test", &path);
                    // Half of the clients keep their connection, half make a new one each time.
                    let reply =
                        if client % 2 == 0 { kept.exchange(&request) } else { request.send(http) };
                    assert_eq!((reply.status, reply.text().as_str()), (200, "x"));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut host = "www.cdn.test".to_owned();
    for round in 0..20 {
        let before = served.load(Ordering::Relaxed);
        let next = format!("r{round}.cdn.test");
        fleet.edit(
            &format!("hosts = [\"{host}\"]"),
            &format!("hosts = [\"www.cdn.test\", \"{next}\"]"),
        );
        host = format!("www.cdn.test\", \"{next}");
        // The parent first: it must know the host when the edge asks it.
        fleet.node_mut("icn-p1").signal(Signal::Hup);
        wait::until("the parent to serve the new host", || {
            (wire::get(parent, &next, "/new").status == 200).then_some(())
        });
        if round % 2 == 0 {
            fleet.node_mut("icn-1").signal(Signal::Hup);
        } else {
            let reply = fleet.node("icn-1").admin_request("POST", "/v1/reload", "");
            assert!((200..300).contains(&reply.status), "{}: {}", reply.status, reply.text());
        }
        wait::until("the new host to be served", || {
            let reply = wire::get(http, &next, "/new");
            (reply.status == 200).then_some(())
        });
        wait::until("requests to go on", || {
            (served.load(Ordering::Relaxed) >= before + 10).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().is_ok(), "a client lost a request");
    }
    let scrape = fleet.node("icn-1").metrics();
    assert_eq!(scrape.sum("edge_cache_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn a_new_zone_takes_over_without_losing_a_query() {
    let origin = Origin::start();
    let mut fleet = super::pair(&origin).write();
    fleet.node_mut("ns1").start();
    let dns = fleet.node("ns1").dns();
    let zone = std::fs::read_to_string(fleet.dir().join("cdn.test.zone")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let client = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = Query::a("static.cdn.test").udp(dns);
                assert_eq!(answer.answers(), ["static.cdn.test. A 192.0.2.1"]);
                asked += 1;
            }
            asked
        })
    };
    for round in 0..20 {
        let name = format!("r{round}");
        std::fs::write(
            fleet.dir().join("cdn.test.zone"),
            format!("{zone}\n{name} IN A 192.0.2.9\n"),
        )
        .unwrap();
        if round % 2 == 0 {
            fleet.node_mut("ns1").signal(Signal::Hup);
        } else {
            let output = fleet.run(Program::Geodns, &["reload", "--node", "ns1"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        wait::until("the new name to be answered", || {
            let answer = Query::a(&format!("{name}.cdn.test")).udp(dns);
            (answer.addresses().len() == 1).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    let asked = client.join().expect("a query was lost");
    assert!(asked > 20, "{asked} queries");
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x"));
    let mut fleet = super::pair(&origin).write();
    fleet.node_mut("ns1").start();
    fleet.node_mut("icn-1").start();
    fleet.edit("down_after = 2", "down_aftr = 2");
    for (node, program, metric) in [
        ("ns1", Program::Geodns, "geodns_config_last_reload_successful"),
        ("icn-1", Program::EdgeCache, "edge_cache_config_last_reload_successful"),
    ] {
        let reply = fleet.node(node).admin_request("POST", "/v1/reload", "");
        assert_eq!(reply.status, 422, "{node}: {}", reply.text());
        assert!(reply.text().contains("down_aftr"), "{node}: {}", reply.text());
        assert_eq!(fleet.node(node).metrics().sum(metric, &[]), 0.0, "{node}");
        let output = fleet.run(program, &["reload", "--node", node]);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{why}");
        assert_eq!(
            why.matches("unknown key `down_aftr`").count(),
            1,
            "the node's words, once: {why}"
        );
        // What runs can be asked while the file is broken.
        let output = fleet.run(program, &["status", "--node", node]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains(node));
        fleet.node_mut(node).signal(Signal::Hup);
    }
    assert_eq!(fleet.node("icn-1").get("/a").status, 200);
    assert_eq!(Query::a("static.cdn.test").udp(fleet.node("ns1").dns()).answers().len(), 1);
    fleet.edit("down_aftr = 2", "down_after = 3");
    for (node, metric) in [
        ("ns1", "geodns_config_last_reload_successful"),
        ("icn-1", "edge_cache_config_last_reload_successful"),
    ] {
        fleet.node_mut(node).signal(Signal::Hup);
        wait::until("the repaired configuration to be taken", || {
            (fleet.node(node).metrics().sum(metric, &[]) == 1.0).then_some(())
        });
    }
}

#[test]
fn a_broken_zone_on_reload_leaves_the_old_one() {
    let origin = Origin::start();
    let mut fleet = super::pair(&origin).write();
    fleet.node_mut("ns1").start();
    std::fs::write(fleet.dir().join("cdn.test.zone"), "this is no zone\n").unwrap();
    let reply = fleet.node("ns1").admin_request("POST", "/v1/reload", "");
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert!(reply.text().contains("cdn.test.zone"), "{}", reply.text());
    let dns = fleet.node("ns1").dns();
    assert_eq!(Query::a("static.cdn.test").udp(dns).answers(), ["static.cdn.test. A 192.0.2.1"]);
    assert_eq!(fleet.node("ns1").metrics().sum("geodns_config_last_reload_successful", &[]), 0.0);
}

/// A self-signed certificate for the site of the tests and its key, PEM.
fn certificate_and_key() -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(["www.cdn.test".to_owned()]).unwrap();
    [made.cert.pem(), made.signing_key.serialize_pem()]
}

#[test]
fn a_renewed_certificate_takes_over_and_a_broken_one_does_not() {
    let (one, two) = (certificate_and_key(), certificate_and_key());
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let mut fleet = super::pair(&origin).file("www.pem", &one[0]).file("www.key", &one[1]).write();
    fleet.edit(
        "hosts = [\"www.cdn.test\"]",
        "hosts = [\"www.cdn.test\"]\ntls = { certificate_file = \"www.pem\", key_file = \"www.key\" }",
    );
    // A parent without TLS needs no certificate.
    fleet.node_mut("icn-p1").start();
    fleet.node_mut("icn-1").start();
    let https = fleet.node("icn-1").https();
    let shown = || {
        let replies = secure::get(https, "www.cdn.test", &["http/1.1"], &["/a"]);
        assert_eq!(replies[0].status, 200);
        replies[0].certificate.clone()
    };
    let first = shown();
    let reload = |fleet: &Fleet, [certificate, key]: [&str; 2]| {
        std::fs::write(fleet.dir().join("www.pem"), certificate).unwrap();
        std::fs::write(fleet.dir().join("www.key"), key).unwrap();
        let output = fleet.run(Program::EdgeCache, &["reload", "--node", "icn-1"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (broken, word) in
        [(["no certificate", &one[1]], "www.pem"), ([&one[0], "no key"], "www.key")]
    {
        let (code, why) = reload(&fleet, broken);
        assert_eq!(code, Some(78), "{why}");
        assert!(why.contains("meridian.toml:") && why.contains(word), "{why}");
    }
    // One site's certificate with another's key.
    assert_eq!(reload(&fleet, [&one[0], &two[1]]).0, Some(78));
    assert_eq!(shown(), first);
    assert_eq!(reload(&fleet, [&two[0], &two[1]]), (Some(0), String::new()));
    assert_ne!(shown(), first);
}

#[test]
fn sites_come_and_go_with_included_files() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let mut fleet = super::pair(&origin).write();
    fleet.edit("[cluster]", "include = [\"sites/*.toml\"]\n[cluster]");
    fleet.node_mut("icn-1").start();
    let http = fleet.node("icn-1").http();
    let site = fleet.dir().join("sites/more.toml");
    let more = "[site.more]\nhosts = [\"more.cdn.test\"]\nroutes = [{ path = \"/*\", origin = \"static\" }]";
    let status = || wire::get(http, "more.cdn.test", "/a").status;
    assert_eq!(status(), 421);
    std::fs::create_dir(site.parent().unwrap()).unwrap();
    std::fs::write(&site, more).unwrap();
    assert!(fleet.run(Program::EdgeCache, &["reload", "--node", "icn-1"]).status.success());
    assert_eq!(status(), 200);
    std::fs::write(&site, more.replace("hosts", "host")).unwrap();
    let output = fleet.run(Program::EdgeCache, &["reload", "--node", "icn-1"]);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(why.contains("more.toml:2:1: error: unknown key `host`"), "{why}");
    assert_eq!(status(), 200);
    std::fs::remove_file(&site).unwrap();
    assert!(fleet.run(Program::EdgeCache, &["reload", "--node", "icn-1"]).status.success());
    assert_eq!(status(), 421);
}

#[test]
fn a_rotated_log_goes_on_in_a_new_file() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let mut fleet = super::pair(&origin)
        .toml("[log]\naccess = \"{node}.access\"\nquery = \"{node}.query\"")
        .write();
    fleet.node_mut("ns1").start();
    fleet.node_mut("icn-1").start();
    let ask = |fleet: &Fleet, name: &str| match name {
        "ns1" => {
            assert_eq!(Query::a("static.cdn.test").udp(fleet.node("ns1").dns()).answers().len(), 1)
        }
        _ => assert_eq!(fleet.node(name).get("/a").status, 200),
    };
    for (node, file) in [("ns1", "ns1.query"), ("icn-1", "icn-1.access")] {
        let (log, old) = (fleet.dir().join(file), fleet.dir().join("old"));
        let lines = |path: &std::path::Path| {
            std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
        };
        ask(&fleet, node);
        wait::until("a line in the log", || (lines(&log) == 1).then_some(()));
        std::fs::rename(&log, &old).unwrap();
        fleet.node_mut(node).signal(Signal::Hup);
        wait::until("a new file", || log.exists().then_some(()));
        ask(&fleet, node);
        wait::until("a line in the new log", || (lines(&log) == 1).then_some(()));
        assert_eq!(lines(&old), 1);
    }
}
