//! The commands that ask a running node, over its admin API.

use std::process::ExitCode;

use bytes::Bytes;
use http::{Method, StatusCode};
use shared::io::admin::{call, percent_encode};
use shared::io::files;

use super::{DONE, FAILED, configuration, fail};
use crate::io::admin::Status;
use crate::io::node::Source;

/// Asks, and returns the body of a good answer.
fn ask(source: &Source, method: Method, target: &str) -> Result<Bytes, ExitCode> {
    let (_, plan) = configuration(source)?;
    let token = match &plan.edge.admin_token_file {
        Some(path) => Some(files::read_secret(path).map_err(|error| fail(FAILED, &error))?),
        None => None,
    };
    let answer = call(plan.edge.admin, token.as_deref(), method, target, Bytes::new());
    match answer {
        Ok((StatusCode::OK, body)) => Ok(body),
        Ok((status, body)) => {
            let detail = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let detail = detail.as_ref().and_then(|problem| problem.get("detail")?.as_str());
            Err(fail(FAILED, &detail.map_or_else(|| status.to_string(), str::to_owned)))
        }
        Err(why) => Err(fail(FAILED, &why)),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ExitCode> {
    serde_json::from_slice(body)
        .map_err(|error| fail(FAILED, &format!("the node's answer is not understood: {error}")))
}

#[expect(clippy::print_stdout, reason = "what a command prints")]
fn print(text: &str) {
    println!("{}", text.trim_end());
}

fn finish(result: Result<(), ExitCode>) -> ExitCode {
    result.err().unwrap_or_else(|| ExitCode::from(DONE))
}

/// `drain`, `undrain`, `reload`.
pub(super) fn order(source: &Source, json: bool, what: &str) -> ExitCode {
    finish(ask(source, Method::POST, &format!("/v1/{what}")).map(|body| {
        if json {
            print(&String::from_utf8_lossy(&body));
        } else {
            print(match what {
                "drain" => "draining: the node's health path asks for no more clients",
                "undrain" => "serving",
                _ => "reloaded",
            });
        }
    }))
}

/// `status`.
pub(super) fn status(source: &Source, json: bool) -> ExitCode {
    finish(ask(source, Method::GET, "/v1/status").and_then(|body| {
        if json {
            print(&String::from_utf8_lossy(&body));
            return Ok(());
        }
        parsed::<Status>(&body).map(|status| print(&table(&status)))
    }))
}

fn table(status: &Status) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let memory = &status.memory;
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}  {} in {}, {}",
        status.node, status.role, status.datacenter, status.state
    );
    let _ = writeln!(
        out,
        "connections {}  requests {}  fetches {}",
        status.connections, status.in_flight, status.fills
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let _ = writeln!(
        out,
        "memory {:.1} of {:.1} MiB  objects {}  evictions {}",
        mib(memory.bytes),
        mib(memory.capacity),
        memory.objects,
        memory.evictions
    );
    let outcomes = ["hit", "stale", "revalidated", "miss", "pass", "error"];
    let _ = write!(out, "\n{:<20}", "SITE");
    for outcome in outcomes {
        let _ = write!(out, "{:>12}", outcome.to_uppercase());
    }
    let _ = writeln!(out, "{:>12}", "HIT RATIO");
    for site in &status.sites {
        let _ = write!(out, "{:<20}", site.site);
        for outcome in outcomes {
            let _ = write!(out, "{:>12}", site.requests.get(outcome).copied().unwrap_or(0));
        }
        let ratio = site
            .hit_ratio
            .map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
        let _ = writeln!(out, "{ratio:>12}");
    }
    for (title, upstreams) in [("ORIGIN", &status.origins), ("PARENT", &status.parents)] {
        if upstreams.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title:<20}{:<36}{:<8}{:>12}", "SERVER", "STATE", "REQUESTS");
        for upstream in upstreams {
            for server in &upstream.servers {
                let state = if server.up { "up" } else { "down" };
                let _ = writeln!(
                    out,
                    "{:<20}{:<36}{state:<8}{:>12}",
                    upstream.name, server.url, server.in_flight
                );
            }
        }
    }
    out
}

/// `explain`.
pub(super) fn explain(source: &Source, json: bool, url: &str, headers: &[String]) -> ExitCode {
    let mut target = format!("/v1/explain?url={}", percent_encode(url));
    for header in headers {
        target += &format!("&header={}", percent_encode(header));
    }
    finish(ask(source, Method::GET, &target).and_then(|body| {
        if json {
            print(&String::from_utf8_lossy(&body));
            return Ok(());
        }
        parsed::<serde_json::Value>(&body).map(|explained| print(&lines(&explained)))
    }))
}

fn lines(explained: &serde_json::Value) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for key in ["site", "origin", "key", "decision", "reason"] {
        let value = explained.get(key).and_then(|value| value.as_str()).unwrap_or("-");
        let _ = writeln!(out, "{key:<10}{value}");
    }
    let list = |key: &str| {
        explained.get(key).and_then(|value| value.as_array()).cloned().unwrap_or_default()
    };
    let parents: Vec<String> =
        list("parents").iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    let _ = writeln!(
        out,
        "{:<10}{}",
        "parents",
        if parents.is_empty() { "-".to_owned() } else { parents.join(", ") }
    );
    let stored = list("stored");
    if stored.is_empty() {
        let _ = writeln!(out, "{:<10}nothing", "stored");
    }
    for object in stored {
        let number = |key: &str| object.get(key).and_then(serde_json::Value::as_i64).unwrap_or(0);
        let _ = writeln!(
            out,
            "{:<10}status {}, {} bytes, age {} s, ttl {} s",
            "stored",
            number("status"),
            number("length"),
            number("age"),
            number("ttl")
        );
    }
    out
}
