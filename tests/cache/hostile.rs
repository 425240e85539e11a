//! Clients that are slow, or mean it.

use std::time::Duration;

use harness::http2;
use harness::origin::{Origin, Script};

use super::{HOST, STRICT, plan, site};

/// A client that takes what it asked for slowly, and takes some all the time, gets all of it, however long that is beside
/// the time after which a connection counts as idle.
#[test]
fn a_slow_http2_client_gets_the_end() {
    let body: Vec<u8> = (0..250_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let origin = Origin::start();
    origin.route("/*", Script::ok(body.clone()).cache_control("max-age=60"));
    let fleet = site(plan(&origin).cache_node("e1", "icn", "edge", "idle = \"1s\""), STRICT);
    let fleet = fleet.start();
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/a").body.len(), body.len());
    let got = http2::on_connection(edge.https(), HOST, async |sender| {
        let request = http::Request::get(format!("https://{HOST}/a")).body(()).unwrap();
        let (response, _) =
            sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
        let mut content = response.await.unwrap().into_body();
        let mut got = Vec::new();
        // It reads 80 kB a second, its link is no faster.
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        while let Some(data) = content.data().await {
            let data = data.unwrap_or_else(|error| panic!("after {} bytes: {error}", got.len()));
            for piece in data.chunks(8 << 10) {
                pace.tick().await;
                content.flow_control().release_capacity(piece.len()).unwrap();
            }
            got.extend_from_slice(&data);
        }
        got
    });
    assert!(got == body, "{} of {} bytes", got.len(), body.len());
}

/// A path that a lenient origin reads as a guarded one is not asked for through a route without the guard.
#[test]
fn a_guarded_route_is_not_reached_by_another_spelling() {
    let origin = Origin::start();
    origin.route("/*", Script::ok("secret"));
    let fleet = plan(&origin)
        .edge("e1", "icn")
        .toml(&format!(
            "[site.www]\nhosts = [\"{HOST}\"]\nroutes = [\n\
             {{ path = \"/intern/*\", origin = \"static\", access = {{ allow = [\"10.0.0.0/8\"] }} }},\n\
             {{ path = \"/*\", origin = \"static\" }} ]"
        ))
        .start();
    let edge = fleet.node("e1");
    assert_eq!(edge.get("/intern/a").status, 403);
    for path in [
        "//intern/a",
        "/intern%2fa",
        "/intern;v=1/a",
        "/open/..%2Fintern/a",
        "/open/..%5cintern/a",
        "/open/..;/intern/a",
    ] {
        assert_eq!(edge.get(path).status, 400, "{path}");
    }
    assert_eq!(origin.total(), 0);
    for path in ["/open//a", "/open%2Fa", "/open;v=1/a"] {
        assert_eq!(edge.get(path).status, 200, "{path}");
    }
}
