//! Options that decide which stored response a request selects, and marks that a site can have: languages, variants,
//! No-Vary-Search, HEAD, Server-Timing.

use harness::origin::{Origin, Script};
use harness::wire::Request;

use super::{HOST, STRICT, one_edge, plan, site};

/// RFC 9110 §12.5.4: of the languages that there are, the origin is asked for the preferred one.
#[test]
fn rfc9110_12_5_4_languages_that_there_are() {
    let origin = Origin::start();
    origin.route_with("/a", |request| {
        let language = request.field("accept-language").unwrap_or("none").to_owned();
        Script::ok(language).cache_control("max-age=60").field("Vary", "Accept-Language")
    });
    let fleet = one_edge(&origin, "vary = { languages = [\"en\", \"de\"] }");
    let edge = fleet.node("e1");
    let ask = |value: &str| {
        Request::get(HOST, "/a").field("Accept-Language", value).send(edge.http()).text()
    };
    for (value, expected) in [
        ("de", "de"),
        ("de-CH, de;q=0.9, en;q=0.8", "de"),
        ("fr;q=0.5, DE;q=0.1", "de"),
        ("fr", "en"),
        ("en-GB, de;q=0.5", "en"),
    ] {
        assert_eq!(ask(value), expected, "{value}");
    }
    assert_eq!(edge.get("/a").text(), "none");
    assert_eq!(origin.count("/a"), 3);
}

/// Variants of one URL are bounded: beyond it the oldest goes.
#[test]
fn variants_of_a_url_are_bounded() {
    let origin = Origin::start();
    let vary = Script::ok("x").cache_control("max-age=60").field("Vary", "Accept");
    origin.route("/a", vary);
    let fleet = one_edge(&origin, "vary = { max = 2 }");
    let edge = fleet.node("e1");
    let ask = |value: &str| {
        let reply = Request::get(HOST, "/a").field("Accept", value).send(edge.http());
        reply.cache_status().contains("; hit")
    };
    assert!(!ask("a/1") && !ask("a/2") && ask("a/1") && ask("a/2"));
    assert!(!ask("a/3") && ask("a/3") && ask("a/2"));
    assert!(!ask("a/1"), "the oldest made room");
}

/// Pitfall 13: all ETags of the variants in one revalidation; and the field that they vary by is sent.
#[test]
fn rfc9111_4_3_1_all_tags_in_one_revalidation() {
    for profile in ["safe", "rfc"] {
        let origin = Origin::start();
        origin.route_with("/a", |request| match request.field("x-foo") {
            Some(value)
                if request.field("if-none-match").is_some_and(|tags| tags.contains("\"2\"")) =>
            {
                assert_eq!(value, "3");
                Script::status(304, "").field("ETag", "\"2\"").cache_control("max-age=60")
            }
            value => {
                let value = value.unwrap_or("0");
                let script = Script::ok(value).field("ETag", &format!("\"{value}\""));
                script.cache_control("max-age=60").field("Vary", "X-Foo")
            }
        });
        let fleet = one_edge(&origin, &format!("profile = \"{profile}\""));
        let edge = fleet.node("e1");
        let ask = |value: &str| Request::get(HOST, "/a").field("X-Foo", value).send(edge.http());
        edge.get("/a");
        assert_eq!(ask("1").text(), "1", "{profile}");
        assert_eq!(ask("2").text(), "2", "{profile}");
        // The origin says that 3 is as 2.
        let third = ask("3");
        assert_eq!((third.status, third.text().as_str()), (200, "2"), "{profile}");
        let asked = origin.requests("/a").pop().unwrap();
        let tags = asked.field("if-none-match").unwrap().to_owned();
        assert!(["\"0\"", "\"1\"", "\"2\""].iter().all(|tag| tags.contains(tag)), "{tags}");
        assert!(ask("3").cache_status().contains("; hit"), "{profile}");
        assert!(ask("1").cache_status().contains("; hit"), "{profile}");
    }
}

/// In the safe profile a field that Vary names is not known before the first response: that one answers its client, is not
/// kept, and the next request carries the field. Those who do not send it are not in its way.
#[test]
fn pitfall_44_a_field_that_responses_vary_by_is_sent_once_that_is_known() {
    let origin = Origin::start();
    origin.route_with("/a", |request| {
        let device = request.field("x-device").unwrap_or("unknown").to_owned();
        assert_eq!(request.field("x-evil"), None);
        Script::ok(device).cache_control("max-age=60").field("Vary", "X-Device")
    });
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let ask = || {
        let request = Request::get(HOST, "/a").field("X-Device", "phone").field("X-Evil", "1");
        request.send(edge.http())
    };
    let first = ask();
    assert_eq!(first.text(), "unknown");
    assert!(first.cache_status().contains("detail=vary-unsent"), "{}", first.cache_status());
    assert_eq!(ask().text(), "phone");
    assert!(ask().cache_status().contains("; hit"));
    assert_eq!(edge.get("/a").text(), "unknown");
    assert!(edge.get("/a").cache_status().contains("; hit"));
    assert_eq!(origin.count("/a"), 3);
}

/// RFC 9111 §5.2.2.4: listed fields go to the client that fetched them, and to nobody else.
#[test]
fn rfc9111_5_2_2_4_listed_fields_are_not_stored() {
    let origin = Origin::start();
    let listed = Script::ok("x").cache_control("max-age=60, no-cache=\"x-a\", private=\"X-B\"");
    origin.route("/a", listed.field("X-A", "1").field("X-B", "2").field("X-C", "3"));
    let fleet = one_edge(&origin, STRICT);
    let edge = fleet.node("e1");
    let of =
        |reply: harness::wire::Reply| ["x-a", "x-b", "x-c"].map(|name| reply.field(name).is_some());
    assert_eq!(of(edge.get("/a")), [true, true, true]);
    assert_eq!(of(edge.get("/a")), [false, false, true]);
}

const NO_VARY: &str = "no_vary_search = true";

/// draft-ietf-httpbis-no-vary-search: only where the policy says so.
#[test]
fn no_vary_search_equivalent_queries_share_a_response() {
    for (policy, requests) in [(NO_VARY, 1), ("", 3)] {
        let origin = Origin::start();
        let script = Script::ok("x").cache_control("max-age=60");
        origin.route("/a", script.field("No-Vary-Search", "params=(\"utm\"), key-order"));
        let fleet = one_edge(&origin, &format!("{policy}\nkey = {{ sort = false }}"));
        let edge = fleet.node("e1");
        edge.get("/a?id=1&x=2");
        for target in ["/a?x=2&id=1", "/a?utm=5&id=1&x=2"] {
            edge.get(target);
        }
        assert_eq!(origin.count("/a"), requests);
        let explained =
            edge.admin_json(&format!("/v1/explain?url=http://{HOST}/a%3Futm=9%26x=2%26id=1"));
        assert_eq!(explained["reason"], if policy == NO_VARY { "fresh" } else { "uri-miss" });
        edge.get("/a?id=2&x=2");
        assert_eq!(origin.count("/a"), requests + 1, "what counts is told apart");
    }
}

/// A purge of the URL that is asked for holds, whichever URL the stored response was fetched for.
#[test]
fn no_vary_search_and_purges() {
    let origin = Origin::start();
    let script = Script::ok("x").cache_control("max-age=60");
    origin.route("/a", script.field("No-Vary-Search", "params"));
    let fleet = one_edge(&origin, NO_VARY);
    let edge = fleet.node("e1");
    edge.get("/a?x=1");
    assert!(edge.get("/a?x=2").cache_status().contains("; hit"));
    let url = format!("http://{HOST}/a?x=2");
    let body = format!("{{ \"urls\": [\"{url}\"] }}");
    assert!(edge.admin_request("POST", "/v1/purge", &body).status < 300);
    assert!(!edge.get("/a?x=2").cache_status().contains("; hit"), "it was purged");
    assert!(edge.get("/a?x=2").cache_status().contains("; hit"));
    assert_eq!(origin.count("/a"), 2);
}

/// What has been said once holds only for as long as the stored response says it.
#[test]
fn no_vary_search_is_what_the_newest_response_says() {
    let origin = Origin::start();
    let script = Script::ok("old").cache_control("max-age=0").field("ETag", "\"1\"");
    origin.once("/a", script.field("No-Vary-Search", "params"));
    origin.route("/a", Script::ok("new").cache_control("max-age=60"));
    let fleet = one_edge(&origin, &format!("{NO_VARY}\n{STRICT}"));
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a?x=1").text(), "old");
    // Stale: checked as x=1, and changed.
    assert_eq!(edge.get("/a?x=2").text(), "new");
    let asked = origin.requests("/a").pop().unwrap();
    assert_eq!((asked.target.as_str(), asked.field("if-none-match")), ("/a?x=1", Some("\"1\"")));
    assert!(!edge.get("/a?x=2").cache_status().contains("; hit"));
    assert!(edge.get("/a?x=1").cache_status().contains("; hit"));
}

/// RFC 9111 §4.3.5: the answer to a HEAD updates the stored response to GET, or shows that it is old.
#[test]
fn rfc9111_4_3_5_head_updates_the_stored_get() {
    let origin = Origin::start();
    let script = |version: &str, note: &str| {
        let script = Script::ok(version).cache_control("max-age=60").field("X-Note", note);
        script.field("ETag", &format!("\"{version}\""))
    };
    origin.once("/a", script("v1", "first"));
    origin.once("/a", script("v1", "second"));
    origin.once("/a", script("v2", "third"));
    origin.once("/a", script("v2", "fourth"));
    let fleet = one_edge(&origin, &format!("profile = \"rfc\"\n{STRICT}"));
    let edge = fleet.node("e1");
    let head = |tag: &str| {
        Request::new("HEAD", HOST, "/a").field("If-Match", tag).send(edge.http()).status
    };
    assert_eq!(edge.get("/a").field("x-note"), Some("first"));
    assert_eq!(head("\"v1\""), 200);
    let updated = edge.get("/a");
    assert_eq!((updated.field("x-note"), updated.text().as_str()), (Some("second"), "v1"));
    assert!(updated.cache_status().contains("; hit"));
    assert_eq!(head("\"v2\""), 200);
    assert_eq!(edge.get("/a").text(), "v2", "the stored one was known to be old");
    assert_eq!(origin.count("/a"), 4);
}

/// Server-Timing where the site says so, from the node that the client speaks to.
#[test]
fn server_timing_tells_what_was_done() {
    let origin = Origin::start();
    let timing = Script::ok("x").cache_control("max-age=60").field("Server-Timing", "app;dur=2");
    origin.route("/a", timing);
    let quiet = one_edge(&origin, STRICT);
    assert_eq!(quiet.node("e1").get("/a").head.joined("server-timing"), "app;dur=2");
    let fleet = plan(&origin).edge("e1", "icn").toml(&format!(
        "[site.www]\nhosts = [\"{HOST}\"]\nserver_timing = true\n\
         routes = [ {{ path = \"/*\", origin = \"static\" }} ]"
    ));
    let fleet = fleet.start();
    let edge = fleet.node("e1");
    for detail in ["uri-miss", "fresh"] {
        let told = edge.get("/a").head.joined("server-timing");
        let ours = format!("e1;desc=\"{detail}\";dur=");
        let dur = told.split_once(&ours).unwrap_or_else(|| panic!("{told}")).1;
        assert!(dur.parse::<f64>().is_ok_and(|dur| (0.0..60_000.0).contains(&dur)), "{told}");
    }
}

/// Lifetimes are shortened by a share that key and node draw: the same for every fetch of a key.
#[test]
fn jitter_shortens_lifetimes_and_keeps_to_what_it_drew() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("x").cache_control("max-age=1000"));
    let fleet = site(plan(&origin).edge("e1", "icn"), "ttl = { jitter = 0.5 }").start();
    let edge = fleet.node("e1");
    let ttl = |path: &str| -> i64 {
        edge.get(path);
        let status = edge.get(path).cache_status();
        let ttl = status.split("ttl=").nth(1).unwrap_or_else(|| panic!("{status}"));
        ttl.split(';').next().unwrap().trim().parse().unwrap()
    };
    let ttls: Vec<_> = (0..20).map(|n| ttl(&format!("/{n}"))).collect();
    assert!(ttls.iter().all(|ttl| (490..=1000).contains(ttl)), "{ttls:?}");
    assert!(ttls.iter().max().unwrap() - ttls.iter().min().unwrap() > 100, "{ttls:?}");
}
