//! The admin API of a nameserver, and what its commands read of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use shared::io::admin::{Answer, AnswerFuture, Call, Handler};
use shared::prefix::Prefix;
use shared::time::parse_duration;

use super::console;
use super::node::{Node, OverrideError, Subject};
use super::serve::Reloader;
pub use super::status::Status;
use super::status::status;
use super::whatif::Rehearsals;
use crate::explain::{Request, explain};
use crate::health::Mode;
use crate::name::Name;
use crate::rtype;

/// Every path and its parameters.
const OPENAPI: &str = include_str!("openapi.json");

/// Answers calls for `node`.
pub(super) fn handler(node: Arc<Node>, ready: Arc<AtomicBool>, reloader: Arc<Reloader>) -> Handler {
    let rehearsals = Arc::new(Rehearsals::default());
    Arc::new(move |call: Call| -> AnswerFuture {
        let (node, ready, reloader) =
            (Arc::clone(&node), Arc::clone(&ready), Arc::clone(&reloader));
        let rehearsals = Arc::clone(&rehearsals);
        Box::pin(async move {
            match call.path().as_slice() {
                [] if call.method == Method::GET => console::page(),
                ["v1", "whatif"] if call.method == Method::GET => {
                    rehearsals.answer(&call, &node).await
                }
                _ => answer(&call, &node, &ready, &reloader).await,
            }
        })
    })
}

async fn answer(call: &Call, node: &Arc<Node>, ready: &AtomicBool, reloader: &Reloader) -> Answer {
    let is_ready = ready.load(Ordering::Acquire);
    let get = call.method == Method::GET;
    match call.path().as_slice() {
        ["livez"] if get => Answer::text(StatusCode::OK, "ok\n"),
        ["readyz"] if get && is_ready => Answer::text(StatusCode::OK, "ok\n"),
        ["readyz"] if get => {
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the first round of checks is not done\n")
        }
        ["metrics"] if get => Answer::metrics(node.registry.render()),
        ["v1", "openapi.json"] if get => Answer::new(StatusCode::OK, "application/json", OPENAPI),
        ["v1", "status"] if get => Answer::json(&status(node, is_ready)),
        ["v1", "explain"] if get => explain_call(call, node),
        ["v1", "reload"] if !get => match reloader.reload().await {
            Ok(warnings) => Answer::json(&serde_json::json!({ "warnings": warnings })),
            Err(problems) => {
                let detail = problems.join("\n");
                Answer::problem(StatusCode::UNPROCESSABLE_ENTITY, &detail)
            }
        },
        ["v1", "datacenters" | "edges", _, verb] if get && mode(verb).is_some() => wrong_method(),
        ["v1", "datacenters" | "edges", name, verb] => {
            let is_edge = call.segments.get(1).is_some_and(|kind| kind == "edges");
            match (mode(verb), length(call, verb)) {
                (None, _) => Answer::not_found(),
                (_, Err(why)) => Answer::problem(StatusCode::BAD_REQUEST, &why),
                (Some(mode), Ok(length)) => {
                    let (node, name) = (Arc::clone(node), (*name).to_owned());
                    let force = call.switch("force");
                    // It waits for the disk.
                    let set = tokio::task::spawn_blocking(move || {
                        let subject = match is_edge {
                            true => Subject::Edge(&name),
                            false => Subject::Datacenter(&name),
                        };
                        set_override(&node, subject, mode, length, force)
                    });
                    set.await.unwrap_or_else(|error| {
                        Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
                    })
                }
            }
        }
        ["livez" | "readyz" | "metrics"]
        | ["v1", "openapi.json" | "status" | "explain" | "whatif" | "reload"] => wrong_method(),
        _ => Answer::not_found(),
    }
}

fn wrong_method() -> Answer {
    let why = "this path takes the other of GET and POST";
    Answer::problem(StatusCode::METHOD_NOT_ALLOWED, why)
}

fn mode(verb: &str) -> Option<Mode> {
    match verb {
        "drain" => Some(Mode::Drain),
        "down" => Some(Mode::Down),
        "up" => Some(Mode::Up),
        "auto" | "undrain" => Some(Mode::Auto),
        _ => None,
    }
}

/// For how long an override is to hold; none: until the operator says otherwise.
fn length(call: &Call, verb: &str) -> Result<Option<Duration>, String> {
    if let Some(unknown) = call.unknown_parameter(&["for", "force"]) {
        return Err(format!("there is no parameter `{unknown}`: there are `for` and `force`"));
    }
    let Some(text) = call.parameter("for") else { return Ok(None) };
    if mode(verb) == Some(Mode::Auto) {
        return Err(format!("`{verb}` takes no time: health decides from now on"));
    }
    match parse_duration(text)? {
        Duration::ZERO => Err("an override for no time at all changes nothing".to_owned()),
        length => Ok(Some(length)),
    }
}

fn set_override(
    node: &Node,
    subject: Subject<'_>,
    mode: Mode,
    length: Option<Duration>,
    force: bool,
) -> Answer {
    match node.set_override(subject, mode, length, force) {
        Ok(given) => {
            let until = given.and_then(|given| given.until).map(|until| until.to_string());
            Answer::json(&serde_json::json!({ "mode": mode, "until": until }))
        }
        Err(OverrideError::Unknown(why)) => Answer::problem(StatusCode::NOT_FOUND, &why),
        Err(OverrideError::LastHealthy(why)) => Answer::problem(StatusCode::CONFLICT, &why),
        Err(OverrideError::NotKept(why)) => {
            Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &why)
        }
    }
}

fn explain_call(call: &Call, node: &Node) -> Answer {
    match explain_request(call) {
        Err(why) => Answer::problem(StatusCode::BAD_REQUEST, &why),
        Ok(request) => match explain(&node.served.load_full().snapshot, &request) {
            Ok(explained) => Answer::json(&explained),
            Err(why) => Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &why),
        },
    }
}

fn explain_request(call: &Call) -> Result<Request, String> {
    let needed = |name: &str| {
        call.parameter(name).ok_or_else(|| format!("the parameter `{name}` is missing"))
    };
    let qtype = call.parameter("type").unwrap_or("A");
    let client = needed("client")?;
    Ok(Request {
        name: Name::parse_absolute(needed("name")?)?,
        qtype: rtype::parse(qtype).ok_or_else(|| format!("`{qtype}` is not a record type"))?,
        client: client.parse().map_err(|_| format!("`{client}` is not an IP address"))?,
        subnet: call
            .parameter("subnet")
            .map(|subnet| subnet.parse::<Prefix>().map_err(|error| error.to_string()))
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::io::node::datacenter_is_up;
    use crate::io::node::tests::{CONFIG, ZONE, start, write};

    async fn call(
        (node, ready, reloader): (&Arc<Node>, bool, &Reloader),
        method: Method,
        target: &str,
    ) -> (u16, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split('&').filter(|pair| !pair.is_empty());
        let call = Call {
            method,
            segments: path.trim_start_matches('/').split('/').map(str::to_owned).collect(),
            query: query
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: bytes::Bytes::new(),
        };
        let answer = answer(&call, node, &AtomicBool::new(ready), reloader).await;
        (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
    }

    #[tokio::test]
    async fn calls_get_the_status_that_openapi_promises() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), CONFIG, ZONE);
        let node = start(dir.path());
        let reloader = Reloader::new(&node, &Arc::new(Notify::new()), None);
        let at = (&node, true, &reloader);
        for (method, target, status) in [
            (Method::GET, "/livez", 200),
            (Method::GET, "/readyz", 200),
            (Method::GET, "/metrics", 200),
            (Method::GET, "/v1/openapi.json", 200),
            (Method::GET, "/v1/status", 200),
            (Method::GET, "/v1/explain?name=www.cdn.test&client=1.208.0.1&subnet=80.0.0.0/16", 200),
            (Method::GET, "/v1/explain?name=www.cdn.test", 400),
            (Method::GET, "/v1/explain?name=a..b&client=::1", 400),
            (Method::GET, "/v1/explain?name=www.cdn.test&client=x", 400),
            (Method::GET, "/v1/explain?name=www.cdn.test&client=::1&type=NOPE", 400),
            (Method::GET, "/v1/explain?name=www.cdn.test&client=::1&subnet=1.2.3.4/8", 400),
            (Method::POST, "/v1/datacenters/icn/drain", 200),
            (Method::POST, "/v1/datacenters/fra/drain", 409),
            (Method::POST, "/v1/datacenters/fra/drain?force", 200),
            (Method::POST, "/v1/datacenters/fra/undrain", 200),
            (Method::POST, "/v1/datacenters/fra/drain?fro=2h", 400),
            (Method::POST, "/v1/datacenters/nope/drain", 404),
            (Method::POST, "/v1/datacenters/icn/explode", 404),
            (Method::POST, "/v1/edges/icn-1/down", 200),
            (Method::POST, "/v1/edges/icn-1/auto", 200),
            (Method::POST, "/v1/edges/icn-1/up?for=2h", 200),
            (Method::POST, "/v1/edges/icn-1/up?for=soon", 400),
            (Method::POST, "/v1/edges/icn-1/up?for=0s", 400),
            (Method::POST, "/v1/edges/icn-1/auto?for=2h", 400),
            (Method::GET, "/v1/edges/icn-1/auto", 405),
            (Method::GET, "/v1/datacenters/icn/drain", 405),
            (Method::GET, "/v1/datacenters/icn/explode", 404),
            (Method::POST, "/v1/openapi.json", 405),
            (Method::POST, "/v1/edges/nope/down", 404),
            (Method::POST, "/v1/reload", 200),
            (Method::GET, "/v1/reload", 405),
            (Method::POST, "/v1/status", 405),
            (Method::GET, "/nowhere", 404),
        ] {
            let (got, body) = call(at, method, target).await;
            assert_eq!(got, status, "{target}: {body}");
        }
        assert_eq!(call((&node, false, &reloader), Method::GET, "/readyz").await.0, 503);
        let openapi: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(openapi["openapi"], "3.1.0");
    }

    #[tokio::test]
    async fn a_rehearsal_is_made_beside_what_serves() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), CONFIG, ZONE);
        let node = start(dir.path());
        let reloader = Arc::new(Reloader::new(&node, &Arc::new(Notify::new()), None));
        let handler = handler(Arc::clone(&node), Arc::new(AtomicBool::new(true)), reloader);
        let ask = async |query: &[(&str, &str)]| {
            let query = query.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            let segments = vec!["v1".to_owned(), "whatif".to_owned()];
            let (query, body) = (query.collect(), bytes::Bytes::new());
            let answer = handler(Call { method: Method::GET, segments, query, body }).await;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            (answer.status.as_u16(), body)
        };
        let (status, body) = ask(&[("down", "icn"), ("total", "1Gbps")]).await;
        assert_eq!(status, 200, "{body}");
        let report: crate::whatif::report::Report = serde_json::from_str(&body).unwrap();
        assert_eq!(report.changes, ["icn down"]);
        assert!(report.splits.iter().all(|split| split.moved > 0.0), "{body}");
        for (parameter, value) in
            [("down", "nope"), ("weight", "icn"), ("total", "much"), ("colour", "red")]
        {
            assert_eq!(ask(&[(parameter, value)]).await.0, 400, "{parameter}");
        }
        assert!(datacenter_is_up(
            &node.served.load().snapshot.tables.world,
            &node.served.load().snapshot.health,
            0
        ));
    }

    #[tokio::test]
    async fn a_broken_reload_is_refused_and_the_last_good_state_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), CONFIG, ZONE);
        let node = start(dir.path());
        let reloader = Reloader::new(&node, &Arc::new(Notify::new()), None);
        let at = (&node, true, &reloader);
        write(dir.path(), CONFIG, "broken zone file");
        let (status, body) = call(at, Method::POST, "/v1/reload").await;
        assert!(status == 422 && body.contains("cdn.test.zone:1:"), "{status} {body}");
        let (_, body) = call(at, Method::GET, "/v1/status").await;
        let status: Status = serde_json::from_str(&body).unwrap();
        assert_eq!((status.generation, status.last_reload_error.is_some()), (1, true));
        assert_eq!(status.zones["cdn.test."], 1);
        assert!(node.registry.render().contains("last_reload_successful 0\n"));
        write(dir.path(), CONFIG, ZONE);
        assert_eq!(call(at, Method::POST, "/v1/reload").await.0, 200);
        assert!(node.registry.render().contains("last_reload_successful 1\n"));
    }
}
