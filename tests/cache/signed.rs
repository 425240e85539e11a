//! Signed URLs and cookies, and who is served by network and country: hits are protected, too, and shared all the same.

use harness::fleet::Fleet;
use harness::origin::{Origin, Script};
use harness::plan::Plan;
use harness::process::Program;
use harness::wire::{Reply, Request};
use shared::geo::mmdb_writer::Writer;

use super::{HOST, STRICT, plan};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn signed(origin: &Origin) -> Plan {
    origin.route_with("/*", |request| {
        Script::ok(format!("{} {}", request.target, request.field("cookie").unwrap_or("-")))
            .cache_control("public, max-age=60, s-maxage=60")
    });
    plan(origin)
        .edge("e1", "icn")
        .parent("p1", "icn")
        .file("k1", SECRET)
        .file("k2", SECRET.to_uppercase())
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml("[signing.members]\nkeys = { k1 = \"k1\", k2 = \"k2\" }")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\nroutes = [\n\
             {{ path = \"/open/*\", origin = \"static\", cache = \"assets\" }},\n\
             {{ path = \"/off/*\", origin = \"static\", cache = \"off\", signed = \"members\", methods = [\"GET\"] }},\n\
             {{ path = \"/*\", origin = \"static\", cache = \"assets\", signed = \"members\", methods = [\"GET\"] }},\n]"
        ))
}

/// What `edge-cache sign` prints; a URL without scheme and host.
#[track_caller]
fn sign(fleet: &Fleet, args: &[&str]) -> String {
    let output = fleet.run(Program::EdgeCache, &[&["sign"], args].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let text = text.trim_end().to_owned();
    text.strip_prefix("https://www.cdn.test").map(str::to_owned).unwrap_or(text)
}

fn get(fleet: &Fleet, node: &str, target: &str, cookie: Option<&str>) -> Reply {
    let mut request = Request::get(HOST, target);
    if let Some(cookie) = cookie {
        request = request.field("Cookie", cookie);
    }
    request.send(fleet.node(node).http())
}

#[track_caller]
fn refused(reply: &Reply, reason: &str) {
    assert_eq!(reply.status, 403, "{}", reply.text());
    assert!(reply.cache_status().contains(reason), "{}: not {reason}", reply.cache_status());
    assert_eq!(reply.field("cache-control"), Some("no-store"));
}

#[test]
fn a_signed_url_opens_what_is_stored_once_for_all() {
    let origin = Origin::start();
    let fleet = signed(&origin).start();
    let url = "https://www.cdn.test/films/one.mp4?b=2&a=1";
    let first = sign(&fleet, &[url, "--key", "k1", "--expires", "1h"]);
    let second = sign(&fleet, &[url, "--key", "k2", "--expires", "2h"]);
    let below = sign(&fleet, &[url, "--key", "k1", "--expires", "1h", "--prefix", "/films/"]);
    assert!(first.starts_with("/films/one.mp4?b=2&a=1&md-key=k1&md-expires="), "{first}");

    let reply = get(&fleet, "e1", &first, None);
    assert_eq!((reply.status, reply.text().as_str()), (200, "/films/one.mp4?a=1&b=2 -"));
    assert_eq!(reply.field("cache-control"), Some("private, max-age=60"));
    for target in [&second, &below] {
        let reply = get(&fleet, "e1", target, None);
        assert!(reply.cache_status().contains("e1; hit"), "{}", reply.cache_status());
    }
    // A hit is protected.
    refused(&get(&fleet, "e1", "/films/one.mp4?b=2&a=1", None), "signature-missing");
    refused(&get(&fleet, "e1", &first.replace("one", "two"), None), "signature-invalid");
    refused(&get(&fleet, "e1", &first.replace("a=1", "a=2"), None), "signature-invalid");
    refused(
        &get(&fleet, "e1", &below.replace("/films/one.mp4", "/filmsx"), None),
        "signature-scope",
    );
    refused(
        &get(&fleet, "e1", &below.replace("/films/one.mp4", "/films/../x"), None),
        "signature-scope",
    );
    refused(
        &get(&fleet, "e1", &below.replace("/films/one.mp4", "/films/%2e%2e/x"), None),
        "signature-scope",
    );
    // A parent that a client asks is no way around.
    refused(&get(&fleet, "p1", "/films/one.mp4?a=1&b=2", None), "signature-missing");
    let parent = get(&fleet, "p1", &first, None);
    assert!(parent.cache_status().contains("p1; hit"), "{}", parent.cache_status());
    assert_eq!(origin.total(), 1);
    // What was not signed is not looked at.
    assert_eq!(get(&fleet, "e1", "/open/a?md-sig=1", None).text(), "/open/a?md-sig=1 -");

    let other = get(&fleet, "e1", &format!("/off/{}", &below[7..]), None);
    refused(&other, "signature-scope");
    let off = sign(&fleet, &["https://www.cdn.test/off/x?q=%7e", "--key", "k1", "--expires", "1h"]);
    let reply = get(&fleet, "e1", &off, Some("a=b; md-signed=x"));
    assert_eq!(reply.text(), "/off/x?q=%7e a=b");
}

#[test]
fn a_signed_cookie_opens_a_path_and_stays_here() {
    let origin = Origin::start();
    let fleet = signed(&origin).start();
    let url = "https://www.cdn.test/films/";
    let set =
        sign(&fleet, &[url, "--key", "k1", "--expires", "1h", "--prefix", "/films", "--cookie"]);
    let (cookie, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/films; Max-Age=3600; Secure; HttpOnly; SameSite=Lax");
    let reply = get(&fleet, "e1", "/films/a?x", Some(&format!("id=1; {cookie}")));
    assert_eq!((reply.status, reply.text().as_str()), (200, "/films/a?x -"));
    let reply = get(&fleet, "e1", "/films/a?x", Some(cookie));
    assert!(reply.cache_status().contains("e1; hit"), "{}", reply.cache_status());
    refused(&get(&fleet, "e1", "/other", Some(cookie)), "signature-scope");
    refused(
        &get(&fleet, "e1", "/films/a?x", Some(&cookie.replace("expires=1", "expires=2"))),
        "signature-invalid",
    );
    for request in origin.requests("/films/a") {
        assert!(!request.fields.iter().any(|(_, value)| value.contains("md-")), "{request:?}");
    }

    let json = fleet.run(
        Program::EdgeCache,
        &["sign", url, "--key", "k1", "--expires", "1h", "--output", "json"],
    );
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["url"].as_str().unwrap().starts_with(url) && json["expires"].as_u64().is_some());
    for (args, why) in [
        (&[url, "--key", "k3", "--expires", "1h"][..], "There are: k1, k2"),
        (&["https://www.cdn.test/open/a", "--key", "k1", "--expires", "1h"], "not signed"),
        (&["https://other.test/a", "--key", "k1", "--expires", "1h"], "no site has the host"),
        (&[url, "--key", "k1", "--expires", "1h", "--prefix", "/other"], "not below the prefix"),
        (&[url, "--key", "k1", "--expires", "1h", "--from", "2h"], "never be good"),
        (&["/films", "--key", "k1", "--expires", "1h"], "no absolute"),
    ] {
        let output = fleet.run(Program::EdgeCache, &[&["sign"], args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{args:?}: {said}");
    }
}

#[test]
fn keys_change_by_reload_and_a_bad_one_changes_nothing() {
    let origin = Origin::start();
    let mut fleet = signed(&origin).start();
    let url = "https://www.cdn.test/a";
    let old = sign(&fleet, &[url, "--key", "k1", "--expires", "1h"]);
    assert_eq!(get(&fleet, "e1", &old, None).status, 200);
    let reload = |fleet: &Fleet| fleet.node("e1").admin_request("POST", "/v1/reload", "");
    std::fs::write(fleet.dir().join("k1"), "short").unwrap();
    let reply = reload(&fleet);
    assert_eq!(reply.status, 422);
    assert!(
        reply.text().contains("/k1") && reply.text().contains("can be guessed"),
        "{}",
        reply.text()
    );
    assert_eq!(get(&fleet, "e1", &old, None).status, 200, "the last good keys go on");
    std::fs::write(fleet.dir().join("k1"), "another secret of more than 32 characters").unwrap();
    assert_eq!(reload(&fleet).status, 200);
    refused(&get(&fleet, "e1", &old, None), "signature-invalid");
    let new = sign(&fleet, &[url, "--key", "k1", "--expires", "1h"]);
    assert!(get(&fleet, "e1", &new, None).cache_status().contains("e1; hit"));
    fleet.edit("k1 = \"k1\", ", "");
    assert_eq!(reload(&fleet).status, 200);
    refused(&get(&fleet, "e1", &new, None), "signature-invalid");
    assert_eq!(origin.total(), 1);
}

fn database(code: &str) -> Vec<u8> {
    let mut writer = Writer::new("Test-Country");
    writer.country("127.0.0.0/8".parse().unwrap(), code);
    writer.finish().unwrap()
}

#[test]
fn who_is_served_by_network_and_country() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let fleet = plan(&origin)
        .edge("e1", "icn")
        .parent("p1", "icn")
        .file("country.mmdb", database("KR"))
        .toml("[geo]\ndatabases = [\"country.mmdb\"]")
        .toml("[tier.shield]\nparents = [\"p1\"]")
        .toml(&format!("[cache.assets]\n{STRICT}"))
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\ntier = \"shield\"\nroutes = [\n\
             {{ path = \"/kr/*\", origin = \"static\", cache = \"assets\", access = {{ allow_countries = [\"KR\"] }} }},\n\
             {{ path = \"/not-kr/*\", origin = \"static\", cache = \"assets\", access = {{ deny_countries = [\"KR\"] }} }},\n\
             {{ path = \"/far/*\", origin = \"static\", cache = \"assets\", access = {{ allow = [\"192.0.2.0/24\"] }} }},\n\
             {{ path = \"/near/*\", origin = \"static\", cache = \"off\", access = {{ allow = [\"127.0.0.1\"] }} }},\n]"
        ))
        .start();
    let edge = fleet.node("e1");
    for (target, reason) in [
        ("/kr/a", None),
        ("/near/a", None),
        ("/not-kr/a", Some("country-denied")),
        ("/far/a", Some("network-denied")),
    ] {
        let reply = edge.get(target);
        match reason {
            None => assert_eq!(reply.status, 200, "{target}"),
            Some(reason) => refused(&reply, reason),
        }
    }
    // Nobody can say that he is another: the edge does not believe it, nor does the parent.
    for node in ["e1", "p1"] {
        let forged = Request::get(HOST, "/far/a")
            .field("X-Forwarded-For", "192.0.2.1")
            .send(fleet.node(node).http());
        refused(&forged, "network-denied");
    }
    assert_eq!(origin.total(), 2);
    // A hit is protected, by the databases of the last reload.
    assert!(edge.get("/kr/a").cache_status().contains("e1; hit"));
    std::fs::write(fleet.dir().join("country.mmdb"), "junk").unwrap();
    let reply = edge.admin_request("POST", "/v1/reload", "");
    assert!(reply.status == 422 && reply.text().contains("country.mmdb"), "{}", reply.text());
    assert_eq!(edge.get("/kr/a").status, 200);
    std::fs::write(fleet.dir().join("country.mmdb"), database("DE")).unwrap();
    assert_eq!(edge.admin_request("POST", "/v1/reload", "").status, 200);
    refused(&edge.get("/kr/a"), "country-denied");
    assert_eq!(edge.get("/not-kr/a").status, 200);
    let explained = edge.admin_json("/v1/explain?url=http://www.cdn.test/kr/a&client=127.0.0.1");
    assert_eq!(
        (&explained["decision"], &explained["reason"]),
        (&"answer 403".into(), &"country-denied".into())
    );
}
