//! HTTPS: the version of HTTP is settled by ALPN, and both find the same store.

use harness::origin::{Origin, Script};
use harness::secure;
use http::Version;

use super::{HOST, STRICT, one_edge};

#[test]
fn alpn_chooses_the_version() {
    let origin = Origin::start();
    origin.route("/a", Script::ok("hello").cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let cases: [(&[&str], Option<&str>, Version); 4] = [
        (&["h2", "http/1.1"], Some("h2"), Version::HTTP_2),
        (&["http/1.1"], Some("http/1.1"), Version::HTTP_11),
        (&["h2"], Some("h2"), Version::HTTP_2),
        (&[], None, Version::HTTP_11),
    ];
    for (offered, chosen, version) in cases {
        let reply = secure::get(edge.https(), HOST, offered, &["/a"]).remove(0);
        assert_eq!((reply.alpn.as_deref(), reply.version), (chosen, version), "{offered:?}");
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"hello"[..]));
    }
    assert_eq!(origin.count("/a"), 1, "one store behind both versions");
}

#[test]
fn many_streams_share_one_connection() {
    let origin = Origin::start();
    origin
        .route_with("/*", |request| Script::ok(request.target.clone()).cache_control("max-age=60"));
    let fleet = one_edge(&origin, STRICT);
    let targets: Vec<String> = (0..50).map(|n| format!("/{}", n % 25)).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let replies = secure::get(fleet.node("e1").https(), HOST, &["h2"], &targets);
    for (reply, target) in replies.iter().zip(&targets) {
        assert_eq!(&reply.body[..], target.as_bytes());
        assert!(
            reply.fields.contains_key("cache-status") && !reply.fields.contains_key("connection")
        );
    }
    assert_eq!(origin.total(), 25);
}

/// RFC 9110 §7.4: a connection made for one site is no way into another.
#[test]
fn the_name_of_the_handshake_and_the_host_must_belong_together() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=60"));
    let other = "[site.other]\nhosts = [\"other.test\"]\nroutes = [ { path = \"/*\", origin = \"static\", cache = \"assets\" } ]";
    let fleet = super::site(super::plan(&origin).edge("e1", "icn"), STRICT).toml(other).start();
    let https = fleet.node("e1").https();
    for alpn in ["h2", "http/1.1"] {
        let reply = secure::get_for(https, HOST, "other.test", &[alpn], &["/"]).remove(0);
        assert_eq!(reply.status.as_u16(), 421, "{alpn}");
        let reply = secure::get_for(https, "other.test", "other.test", &[alpn], &["/"]).remove(0);
        assert_eq!(reply.status.as_u16(), 200, "{alpn}");
    }
}

#[test]
fn an_unknown_host_is_refused_over_tls_too() {
    let origin = Origin::start();
    let fleet = one_edge(&origin, STRICT);
    let reply = secure::get(fleet.node("e1").https(), "unknown.test", &["h2"], &["/"]).remove(0);
    assert!(matches!(reply.status.as_u16(), 404 | 421), "{}", reply.status);
}
