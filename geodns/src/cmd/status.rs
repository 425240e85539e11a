//! `status`

use shared::time::format_duration;

use super::{DONE, FAILED, Global, Output, call, fail, nodes, print, print_json};
use crate::health::Mode;
use crate::io::admin::Status;

pub(super) fn run(global: &Global) -> u8 {
    let nodes = match nodes(global) {
        Ok(nodes) => nodes,
        Err(code) => return code,
    };
    let mut code = DONE;
    let mut all = Vec::new();
    for (name, node) in nodes {
        let status = call(&node, http::Method::GET, "/v1/status")
            .map_err(|error| error.to_string())
            .and_then(|body| {
                serde_json::from_slice::<Status>(&body).map_err(|error| error.to_string())
            });
        match status {
            Ok(status) => all.push(status),
            Err(why) => code = fail(&format!("{name}: {why}"), FAILED),
        }
    }
    match global.output {
        Output::Json => print_json(&all),
        Output::Table => {
            for status in &all {
                print(&table(status));
            }
        }
    }
    code
}

fn table(status: &Status) -> String {
    let mut text = format!(
        "{}  {}  up {}  generation {}\n",
        status.node,
        if status.ready { "ready" } else { "not ready" },
        format_duration(std::time::Duration::from_secs(status.uptime)),
        status.generation
    );
    if let Some(why) = &status.monitor_suspected {
        text += &format!("  SUSPECTED  {why}\n");
    }
    if let Some(why) = &status.last_reload_error {
        text += &format!("  RELOAD REFUSED  {why}\n");
    }
    for (zone, serial) in &status.zones {
        text += &format!("  zone {zone} serial {serial}\n");
    }
    for policy in &status.policies {
        text += &format!(
            "  policy {}: {} ranges, {} orders of datacenters, {} KiB\n",
            policy.name,
            policy.ranges,
            policy.lists,
            policy.memory.div_ceil(1024)
        );
    }
    text +=
        &format!("  {:<14} {:<14} {:<9} {:<7} {}\n", "DATACENTER", "EDGE", "STATE", "SET", "CHECK");
    for datacenter in &status.datacenters {
        let state = if datacenter.up { "up" } else { "down" };
        text += &format!(
            "  {:<14} {:<14} {state:<9} {:<7}\n",
            datacenter.name,
            "",
            set(datacenter.mode)
        );
        for edge in &datacenter.edges {
            let row = |state: &str, check: &str| {
                format!("  {:<14} {:<14} {state:<9} {:<7} {check}\n", "", edge.name, set(edge.mode))
            };
            if edge.checks.is_empty() {
                text += &row("-", "not checked");
            }
            for check in &edge.checks {
                let failure = check.failure.as_deref().map(|why| format!(": {why}"));
                let since = format!("{} since {}", check.check, check.since);
                text += &row(&check.state, &(since + &failure.unwrap_or_default()));
            }
        }
    }
    text
}

const fn set(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "-",
        Mode::Up => "up",
        Mode::Down => "down",
        Mode::Drain => "drain",
    }
}
