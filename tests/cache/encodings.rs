//! Encodings of stored objects (`compress`): made once, chosen by the client, each with its own tag, ranges and length;
//! gone with what they were made of.

use std::io::Read;

use harness::fleet::Fleet;
use harness::origin::{Origin, Request as Seen, Script};
use harness::wait;
use harness::wire::{Reply, Request};

use super::{HOST, STRICT, one_edge, plan, site};

/// Some text that gets shorter, another one for each version.
fn text(version: usize) -> String {
    (0..400)
        .map(|line| format!("version {version}, line {line} of many that are alike\n"))
        .collect()
}

fn script(version: usize) -> Script {
    Script::ok(text(version))
        .field("Content-Type", "text/css; charset=utf-8")
        .field("ETag", &format!("\"v{version}\""))
        .cache_control("max-age=60")
}

fn compressing() -> String {
    format!("{STRICT}\ncompress = [\"zstd\", \"br\", \"gzip\"]")
}

fn ask(fleet: &Fleet, path: &str, fields: &[(&str, &str)]) -> Reply {
    asked(fleet, "GET", path, fields)
}

fn asked(fleet: &Fleet, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    let all = fields.iter().fold(Request::new(method, HOST, path), |request, (name, value)| {
        request.field(name, *value)
    });
    all.send(fleet.node("e1").http())
}

/// Asks until the answer comes in this coding.
#[track_caller]
fn until_encoded(fleet: &Fleet, path: &str, coding: &str) -> Reply {
    wait::until("the encoding to be made", || {
        let reply = ask(fleet, path, &[("Accept-Encoding", coding)]);
        assert_eq!(reply.status, 200);
        (reply.field("content-encoding") == Some(coding)).then_some(reply)
    })
}

fn decode(coding: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap(),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text).unwrap(),
        "zstd" => zstd::Decoder::new(bytes).unwrap().read_to_string(&mut text).unwrap(),
        other => panic!("{other}"),
    };
    text
}

fn made(fleet: &Fleet, result: &str) -> f64 {
    fleet.node("e1").metrics().sum("edge_cache_compressions_total", &[("result", result)])
}

/// RFC 9110 §8.4.1, §8.8.3.3, §12.5.5: one fetch, one encoding each, with tag, length and Vary of its own; HEAD the same.
#[test]
fn rfc9110_8_8_3_3_each_encoding_is_made_once_and_has_its_own_tag() {
    let origin = Origin::start();
    origin.route("/a.css", script(1).expect_field("Accept-Encoding", "identity"));
    let fleet = one_edge(&origin, &compressing());
    let first = ask(&fleet, "/a.css", &[("Accept-Encoding", "gzip, br")]);
    assert_eq!((first.text(), first.field("content-encoding")), (text(1), None), "nobody waits");
    assert_eq!(
        (first.field("vary"), first.field("etag")),
        (Some("Accept-Encoding"), Some("\"v1\""))
    );
    for coding in ["gzip", "br", "zstd"] {
        let reply = until_encoded(&fleet, "/a.css", coding);
        assert_eq!(decode(coding, &reply.body), text(1));
        assert_eq!(reply.field("etag"), Some(format!("\"v1-{coding}\"").as_str()));
        assert_eq!(reply.field("content-length"), Some(reply.body.len().to_string().as_str()));
        assert_eq!(reply.head.joined("vary"), "Accept-Encoding");
        assert!(reply.cache_status().contains("hit"), "{}", reply.cache_status());
        let head = asked(&fleet, "HEAD", "/a.css", &[("Accept-Encoding", coding)]);
        for name in ["etag", "content-length", "content-encoding", "vary", "content-type"] {
            assert_eq!(head.field(name), reply.field(name), "{coding} {name}");
        }
    }
    for _ in 0..5 {
        let _ = until_encoded(&fleet, "/a.css", "br");
    }
    assert_eq!((made(&fleet, "made"), origin.count("/a.css")), (3.0, 1));
    // RFC 9110 §12.5.3: weights, `*`, the policy's order among equals.
    for (accepted, coding) in [
        ("gzip, br, zstd", Some("zstd")),
        ("gzip;q=0.9, br;q=0.8", Some("gzip")),
        ("*", Some("zstd")),
        ("zstd;q=0, *;q=0.5", Some("br")),
        ("identity, gzip;q=0.5", None),
        ("deflate", None),
        ("", None),
        ("identity;q=0, br", Some("br")),
    ] {
        let reply = ask(&fleet, "/a.css", &[("Accept-Encoding", accepted)]);
        assert_eq!(reply.field("content-encoding"), coding, "{accepted}");
        assert_eq!(reply.head.joined("vary"), "Accept-Encoding");
    }
    origin.assert_expectations();
}

/// RFC 9110 §13.1.2, §15.4.5: a client validates the encoding that it has, even one that is not here any more.
#[test]
fn rfc9110_13_1_2_conditions_are_about_the_encoding() {
    let origin = Origin::start();
    origin.route("/a.css", script(1));
    let fleet = one_edge(&origin, &compressing());
    let accept = ("Accept-Encoding", "br, gzip");
    let get = |tag: &str| ask(&fleet, "/a.css", &[accept, ("If-None-Match", tag)]);
    assert_eq!(ask(&fleet, "/a.css", &[]).status, 200);
    // None is made yet: a client of another node may have one.
    for tag in ["\"v1-br\"", "W/\"v1-gzip\"", "\"v1\""] {
        let valid = get(tag);
        assert_eq!((valid.status, valid.field("vary")), (304, Some("Accept-Encoding")), "{tag}");
        assert_eq!(valid.field("etag"), Some(tag.trim_start_matches("W/")));
    }
    assert_eq!(get("\"v1-zstd\"").status, 200, "not accepted any more");
    assert_eq!(get("\"v0-br\"").status, 200);
    let _ = until_encoded(&fleet, "/a.css", "br");
    assert_eq!((get("\"v1-br\"").status, get("\"v0-br\"").status), (304, 200));
    let head = asked(&fleet, "HEAD", "/a.css", &[accept, ("If-None-Match", "\"v1-br\"")]);
    assert_eq!((head.status, head.field("etag")), (304, Some("\"v1-br\"")));
}

/// RFC 9110 §14.2, §13.1.5: a range is of the representation that is selected, and goes on in the one that it began in.
#[test]
fn rfc9110_13_1_5_ranges_never_mix_encodings() {
    let origin = Origin::start();
    origin.route("/a.css", script(1));
    let dated = Script::ok(text(1)).field("Content-Type", "text/css").cache_control("max-age=60");
    origin.route("/dated.css", dated.field("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"));
    let fleet = one_edge(&origin, &compressing());
    let identity = ask(&fleet, "/a.css", &[]).body;
    let whole = until_encoded(&fleet, "/a.css", "br").body;
    let part = |fields: &[(&str, &str)]| {
        let all = [&[("Accept-Encoding", "br"), ("Range", "bytes=10-19")], fields].concat();
        ask(&fleet, "/a.css", &all)
    };
    let reply = part(&[]);
    assert_eq!((reply.status, reply.field("content-encoding")), (206, Some("br")));
    assert_eq!(reply.body, &whole[10..20]);
    let range = format!("bytes 10-19/{}", whole.len());
    assert_eq!(reply.field("content-range"), Some(range.as_str()));
    assert_eq!(part(&[("If-Range", "\"v1-br\"")]).body, &whole[10..20]);
    let reply = part(&[("If-Range", "\"v1\"")]);
    assert_eq!((reply.status, reply.field("content-encoding")), (206, None));
    assert_eq!(reply.body, &identity[10..20]);
    let reply = part(&[("If-Range", "\"v1-gzip\"")]);
    assert_eq!((reply.status, decode("br", &reply.body)), (200, text(1)));
    // A date is that of all encodings, and tells none.
    let _ = ask(&fleet, "/dated.css", &[]);
    for accepted in ["identity", "br"] {
        let reply = ask(
            &fleet,
            "/dated.css",
            &[
                ("Accept-Encoding", accepted),
                ("Range", "bytes=10-19"),
                ("If-Range", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ],
        );
        assert_eq!(reply.status, 200, "{accepted}");
    }
}

/// RFC 9110 §7.7, and what would not get shorter, is passed as it is.
#[test]
fn rfc9110_7_7_what_is_not_encoded() {
    let origin = Origin::start();
    let body = || Script::ok(text(1)).cache_control("max-age=60");
    let css = |script: Script| script.field("Content-Type", "text/css");
    origin.route("/keep", css(Script::ok(text(1)).cache_control("max-age=60, no-transform")));
    origin.route("/image", body().field("Content-Type", "image/png"));
    origin.route("/short", css(Script::ok("short").cache_control("max-age=60")));
    origin.route("/typeless", body());
    origin.route("/encoded", css(body()).field("Content-Encoding", "gzip").field("ETag", "\"g\""));
    origin.route("/missing", css(Script::status(404, text(1)).cache_control("max-age=60")));
    // Encoded, and not shorter.
    let mut seed = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    })
    .take(20_000)
    .collect();
    origin.route("/noise", css(Script::ok(noise).cache_control("max-age=60")));
    origin.route("/chunked", script(1).chunked());
    let fleet = one_edge(&origin, &compressing());
    for path in ["/keep", "/image", "/short", "/typeless", "/missing"] {
        for _ in 0..3 {
            let reply = ask(&fleet, path, &[("Accept-Encoding", "br")]);
            assert_eq!(
                (reply.field("content-encoding"), reply.field("vary")),
                (None, None),
                "{path}"
            );
        }
    }
    for accepted in ["br", "gzip", "identity"] {
        let reply = ask(&fleet, "/encoded", &[("Accept-Encoding", accepted)]);
        assert_eq!(
            (reply.field("content-encoding"), reply.field("etag")),
            (Some("gzip"), Some("\"g\""))
        );
    }
    let _ = ask(&fleet, "/noise", &[("Accept-Encoding", "br")]);
    wait::until("the noise to be given up", || (made(&fleet, "poor") == 1.0).then_some(()));
    assert_eq!(ask(&fleet, "/noise", &[("Accept-Encoding", "br")]).field("content-encoding"), None);
    assert_eq!((made(&fleet, "made"), made(&fleet, "poor")), (0.0, 1.0));
    assert_eq!(decode("gzip", &until_encoded(&fleet, "/chunked", "gzip").body), text(1));
}

/// An encoding follows its object: kept by a 304, gone with a purge, with another version, and with its end.
#[test]
fn encodings_follow_their_object() {
    let origin = Origin::start();
    let version = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let now = std::sync::Arc::clone(&version);
    let answer = move |seen: &Seen, lifetime: &str| {
        let version = now.load(std::sync::atomic::Ordering::SeqCst);
        let tag = format!("\"v{version}\"");
        match seen.field("if-none-match") == Some(tag.as_str()) {
            true => Script::status(304, "").field("ETag", &tag).field("X-Seen", "again"),
            false => {
                Script::ok(text(version)).field("Content-Type", "text/css").field("ETag", &tag)
            }
        }
        .cache_control(lifetime)
    };
    let other = answer.clone();
    origin.route_with("/long.css", move |seen| answer(seen, "max-age=60"));
    origin.route_with("/stale.css", move |seen| other(seen, "max-age=0"));
    let fleet = one_edge(&origin, &compressing());
    // Validated at each request; its encoding is made once.
    let reply = until_encoded(&fleet, "/stale.css", "br");
    assert_eq!((decode("br", &reply.body), reply.field("x-seen")), (text(1), Some("again")));
    for _ in 0..5 {
        let reply = ask(&fleet, "/stale.css", &[("Accept-Encoding", "br")]);
        assert_eq!(reply.field("content-encoding"), Some("br"));
    }
    assert_eq!(made(&fleet, "made"), 1.0);
    let _ = until_encoded(&fleet, "/long.css", "br");
    version.store(2, std::sync::atomic::Ordering::SeqCst);
    // Another version has come: nothing is made of the old one.
    for _ in 0..20 {
        let reply = ask(&fleet, "/stale.css", &[("Accept-Encoding", "br")]);
        let body = match reply.field("content-encoding") {
            Some(coding) => decode(coding, &reply.body),
            None => reply.text(),
        };
        assert_eq!(body, text(2));
    }
    assert_eq!(decode("br", &until_encoded(&fleet, "/stale.css", "br").body), text(2));
    assert_eq!(
        decode("br", &until_encoded(&fleet, "/long.css", "br").body),
        text(1),
        "fresh still"
    );
    let order = format!("{{\"urls\": [\"http://{HOST}/long.css\"]}}");
    let purged = fleet.node("e1").admin_request("POST", "/v1/purge", &order);
    assert_eq!(purged.status, 200, "{}", purged.text());
    let reply = ask(&fleet, "/long.css", &[("Accept-Encoding", "br")]);
    assert_eq!((reply.field("content-encoding"), reply.text()), (None, text(2)));
    assert_eq!(decode("br", &until_encoded(&fleet, "/long.css", "br").body), text(2));
}

/// An origin that says Vary: Accept-Encoding of what it does not encode has one object stored all the same.
#[test]
fn an_origins_vary_on_encodings_splits_nothing() {
    let origin = Origin::start();
    origin.route("/a.css", script(1).field("Vary", "Accept-Encoding, Accept-Language"));
    let fleet = one_edge(&origin, &compressing());
    for accepted in ["br", "gzip", "zstd, br", "identity", "x"] {
        let reply = ask(&fleet, "/a.css", &[("Accept-Encoding", accepted)]);
        assert_eq!(reply.head.joined("vary"), "Accept-Encoding, Accept-Language");
    }
    assert_eq!(origin.count("/a.css"), 1);
    let german = [("Accept-Encoding", "br"), ("Accept-Language", "de")];
    assert_eq!(ask(&fleet, "/a.css", &german).status, 200);
    assert_eq!(origin.count("/a.css"), 2);
}

/// What is for one client alone comes from the origin, in the coding that it gives this client.
#[test]
fn what_is_not_stored_is_passed_in_the_origins_coding() {
    let origin = Origin::start();
    origin.route_with("/mine", |seen| {
        Script::ok(seen.field("accept-encoding").unwrap_or("none").to_owned())
            .field("Content-Type", "text/html")
            .cache_control("private")
    });
    let fleet = one_edge(&origin, &compressing());
    assert_eq!(ask(&fleet, "/mine", &[("Accept-Encoding", "br")]).text(), "identity");
    assert_eq!(ask(&fleet, "/mine", &[("Accept-Encoding", "br")]).text(), "br", "known by now");
}

/// The node that the client asks encodes; a parent gives it the identity.
#[test]
fn the_edge_encodes_what_a_parent_gives_it_plain() {
    let origin = Origin::start();
    origin.route("/a.css", script(1).expect_field("Accept-Encoding", "identity"));
    let tiers = plan(&origin).edge("e1", "icn").parent("p1", "icn");
    let fleet = site(tiers.toml("[tier.shield]\nparents = [\"p1\"]"), &compressing());
    let fleet = fleet.toml("tier = \"shield\"").start();
    let reply = until_encoded(&fleet, "/a.css", "zstd");
    assert_eq!(decode("zstd", &reply.body), text(1));
    let of = |node: &str| fleet.node(node).metrics().sum("edge_cache_compressions_total", &[]);
    assert_eq!((of("e1"), of("p1"), origin.count("/a.css")), (1.0, 0.0, 1));
    origin.assert_expectations();
}

/// Large bodies lie in segments, and are encoded all the same; larger ones than sixteen megabytes are not.
#[test]
fn a_body_in_segments_is_encoded() {
    let origin = Origin::start();
    let long: String = (0..60_000).map(|n| format!("{n} is a line of a long text\n")).collect();
    origin.route(
        "/long.txt",
        Script::ok(long.clone()).field("Content-Type", "text/plain").cache_control("max-age=60"),
    );
    let fleet = one_edge(&origin, &compressing());
    assert_eq!(decode("gzip", &until_encoded(&fleet, "/long.txt", "gzip").body), long);
    assert_eq!(origin.count("/long.txt"), 1);
}

/// Nothing of this is there where the policy does not ask for it.
#[test]
fn without_compress_nothing_is_encoded() {
    let origin = Origin::start();
    origin.route("/a.css", script(1).expect_field("Accept-Encoding", "br"));
    let fleet = one_edge(&origin, STRICT);
    for _ in 0..5 {
        let reply = ask(&fleet, "/a.css", &[("Accept-Encoding", "br")]);
        assert_eq!((reply.field("content-encoding"), reply.field("vary")), (None, None));
    }
    origin.assert_expectations();
    assert_eq!(made(&fleet, "made"), 0.0);
}
