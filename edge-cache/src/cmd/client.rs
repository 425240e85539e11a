//! The commands that ask a running node, over its admin API.

use bytes::Bytes;
use http::Method;
use shared::io::admin::percent_encode;
use shared::io::command::{self, BAD_CONFIG, DONE, FAILED, Global, Output, fail, print};

use crate::io::admin::Status;

/// Asks, and prints the answer: as it is for scripts, by `shown` for people.
fn ask(
    global: &Global,
    method: Method,
    target: &str,
    shown: impl FnOnce(&Bytes) -> Result<String, serde_json::Error>,
) -> u8 {
    ask_with(global, method, target, Bytes::new(), shown)
}

/// [`ask`] with a body.
pub(super) fn ask_with(
    global: &Global,
    method: Method,
    target: &str,
    body: Bytes,
    shown: impl FnOnce(&Bytes) -> Result<String, serde_json::Error>,
) -> u8 {
    let spec = match global.spec() {
        Ok(spec) => spec,
        Err(code) => return code,
    };
    let edge = match (&global.node, spec.edge.len()) {
        (Some(name), _) => spec.edge.get(name),
        (None, 1) => spec.edge.values().next(),
        (None, _) => None,
    };
    let Some(edge) = edge else {
        let names = spec.edge.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let why = match &global.node {
            _ if names.is_empty() => "the configuration has no edge".to_owned(),
            Some(node) => format!("there is no edge `{node}`; there are: {names}"),
            None => format!("which node? Name one with --node: {names}"),
        };
        return fail(&why, BAD_CONFIG);
    };
    let token = edge.admin_token_file.as_deref();
    let body = match command::call_with(edge.admin, token, method, target, body) {
        Ok(body) => body,
        Err(error) => return fail(&error.to_string(), error.exit_code()),
    };
    let text = match global.output {
        Output::Json => Ok(String::from_utf8_lossy(&body).into_owned()),
        Output::Table => shown(&body),
    };
    match text {
        Ok(text) => {
            print(&format!("{}\n", text.trim_end()));
            DONE
        }
        Err(error) => fail(&format!("the node's answer is not understood: {error}"), FAILED),
    }
}

/// `drain`, `undrain`, `reload`.
pub(super) fn order(global: &Global, what: &str) -> u8 {
    let done = match what {
        "drain" => "draining: the node's health path asks for no more clients",
        "undrain" => "serving",
        _ => "reloaded",
    };
    ask(global, Method::POST, &format!("/v1/{what}"), |_| Ok(done.to_owned()))
}

/// `status`.
pub(super) fn status(global: &Global) -> u8 {
    ask(global, Method::GET, "/v1/status", |body| {
        serde_json::from_slice(body).map(|status| table(&status))
    })
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
    for disk in &status.disks {
        let start = disk.start.as_deref().map(|start| format!(" from {start}"));
        let _ = writeln!(
            out,
            "disk {}  {}{}  {:.1} of {:.1} MiB  records {}  evictions {}  damaged {}  errors {}",
            disk.path,
            disk.state,
            start.unwrap_or_default(),
            mib(disk.bytes),
            mib(disk.size),
            disk.objects,
            disk.evictions,
            disk.checksum_failures,
            disk.errors
        );
    }
    if let Some(written) = status.written_per_byte_sent {
        let _ = writeln!(out, "written to disks for each byte sent {written:.3}");
    }
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
        let _ = writeln!(out, "\n{title:<20}{:<36}{:<8}{:>12}", "SERVER", "STATE", "IN FLIGHT");
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

/// `advise`, of a running node.
pub(super) fn advise(global: &Global) -> u8 {
    ask(global, Method::GET, "/v1/advise", |body| {
        serde_json::from_slice::<crate::predict::live::Report>(body).map(|report| report.words())
    })
}

/// `explain`.
pub(super) fn explain(
    global: &Global,
    method: &str,
    url: &str,
    headers: &[String],
    client: Option<std::net::IpAddr>,
) -> u8 {
    let mut target =
        format!("/v1/explain?url={}&method={}", percent_encode(url), percent_encode(method));
    for header in headers {
        target += &format!("&header={}", percent_encode(header));
    }
    if let Some(client) = client {
        target += &format!("&client={client}");
    }
    ask(global, Method::GET, &target, |body| serde_json::from_slice(body).map(|json| lines(&json)))
}

fn lines(explained: &serde_json::Value) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "{name:<10}{text}");
    };
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let words = |value: &serde_json::Value| {
        let all: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
        if all.is_empty() { "-".to_owned() } else { all.join(", ") }
    };
    for name in ["method", "site", "route"] {
        line(name, &text(&explained[name]));
    }
    let policy = &explained["policy"];
    line(
        "policy",
        &match policy.is_object() {
            false => "the route does not cache".to_owned(),
            true => format!(
                "profile {}, ttl default {} s, min {} s, max {} s, stale-while-revalidate {} s, stale-if-error {} s",
                text(&policy["profile"]),
                policy["ttl_default"],
                policy["ttl_min"],
                policy["ttl_max"],
                policy["stale_while_revalidate"],
                policy["stale_if_error"]
            ),
        },
    );
    for name in ["key", "decision", "reason", "next"] {
        line(name, &text(&explained[name]));
    }
    let fallback = &explained["fallback"];
    if fallback.is_object() {
        line("fallback", &format!("stale for {} s more, should that fail", fallback["seconds"]));
    }
    line("parents", &words(&explained["parents"]));
    line("origin", &text(&explained["origin"]));
    for step in explained["steps"].as_array().into_iter().flatten() {
        line("step", &format!("{:<10}{}", text(&step["step"]), text(&step["result"])));
    }
    let stored = explained["stored"].as_array().cloned().unwrap_or_default();
    if stored.is_empty() {
        line("stored", "nothing");
    }
    for object in &stored {
        let selected = if object["selected"] == true { "this one" } else { "another" };
        line(
            "stored",
            &format!(
                "{selected}: status {}, {} bytes, vary {}",
                object["status"],
                object["length"],
                words(&object["vary"])
            ),
        );
        line(
            "",
            &format!(
                "lifetime {} s ({}), age {} s ({} s on arrival), ttl {} s",
                object["lifetime"],
                text(&object["lifetime_from"]),
                object["age"],
                object["age_on_arrival"],
                object["ttl"]
            ),
        );
        line(
            "",
            &format!(
                "stale-while-revalidate {} s, stale-if-error {} s",
                object["stale_while_revalidate"], object["stale_if_error"]
            ),
        );
        line(
            "",
            &format!("tags {}, fetched at position {}", words(&object["tags"]), object["fence"]),
        );
        if !object["segments"].is_null() {
            line("", &format!("segments stored: {}", object["segments"]));
        }
    }
    out
}
