//! `status`

use std::time::Duration;

use shared::report::{Report, State as Reported};
use shared::time::format_duration;

use super::{DONE, FAILED, Global, Output, call, fail, nodes, print, print_json};
use crate::health::Mode;
use crate::io::status::{CheckStatus, EdgeStatus, IntakeStatus, SetStatus, Status};

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
        format_duration(Duration::from_secs(status.uptime)),
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
    if let Some(restored) = &status.restored {
        text += &format!(
            "  at the start {} targets were known from the state file, generation {}, {} old\n",
            restored.targets,
            restored.generation,
            format_duration(Duration::from_secs(restored.age))
        );
    }
    for policy in &status.policies {
        text += &format!(
            "  policy {}: {} ranges, {} orders of datacenters, {} KiB, TTL {} s\n",
            policy.name,
            policy.ranges,
            policy.lists,
            policy.memory.div_ceil(1024),
            policy.ttl
        );
    }
    let mut rows = vec![["DATACENTER", "EDGE", "STATE", "SET", "CHECK"].map(str::to_owned)];
    for datacenter in &status.datacenters {
        let state = if datacenter.up { "up" } else { "down" };
        let intakes: Vec<_> = datacenter.intakes.iter().map(intake).collect();
        rows.push([
            datacenter.name.clone(),
            String::new(),
            state.to_owned(),
            set(datacenter.set.as_ref()),
            intakes.join("; "),
        ]);
        for edge in &datacenter.edges {
            let mut row = |state: &str, check: String| {
                let (name, set) = (edge.name.clone(), set(edge.set.as_ref()));
                rows.push([String::new(), name, state.to_owned(), set, check]);
            };
            if edge.checks.is_empty() {
                row("-", "not checked".to_owned());
            }
            for check in &edge.checks {
                row(state_of(edge, check), detail(check));
            }
            if let Some(report) = &edge.report {
                row("", report_line(report));
            }
        }
    }
    text + &columns(&rows)
}

/// Rows as aligned columns; the last is as long as it is.
fn columns(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..4).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("  {cell:<width$}"));
        let line: String = cells.collect();
        text += format!("{line}  {}", row[4]).trim_end();
        text.push('\n');
    }
    text
}

fn state_of<'s>(edge: &EdgeStatus, check: &'s CheckStatus) -> &'s str {
    let draining = edge.report.as_ref().is_some_and(|report| report.state == Reported::Draining);
    if check.stands {
        "doubted"
    } else if check.state == "up" && draining {
        "draining"
    } else {
        &check.state
    }
}

fn detail(check: &CheckStatus) -> String {
    let mut text = format!("{} since {}", check.check, check.since);
    if check.from_last_run {
        text += ", known from the last run";
    }
    if let Some(until) = &check.held_until {
        text += &format!(", held until {until}");
    }
    if let Some(days) = check.certificate_days {
        text += &format!(", certificate ends in {days} days");
    }
    if let Some(failure) = &check.failure {
        text += &format!(": {failure}");
    }
    text
}

fn report_line(report: &Report) -> String {
    let applied = report.applied.map(|position| format!(", applied {position}"));
    format!(
        "reports load {:.0} %, {} connections, {:.1} Mbit/s, warmth {:.0} %, speaks {}{}",
        report.load * 100.0,
        report.connections,
        report.egress_bps / 1e6,
        report.warmth * 100.0,
        if report.protocols.is_empty() { "nothing".to_owned() } else { report.protocols.join(" ") },
        applied.unwrap_or_default()
    )
}

fn intake(intake: &IntakeStatus) -> String {
    let mut parts = Vec::new();
    if intake.returned < 1.0 {
        parts.push(format!("{:.0} % of its clients are back", intake.returned * 100.0));
    }
    if intake.shed > 0.0 {
        parts.push(format!("sheds {:.0} %", intake.shed * 100.0));
    }
    if let Some(load) = intake.load {
        parts.push(format!("load {:.0} %", load * 100.0));
    }
    format!("{}: {}", intake.policy, parts.join(", "))
}

fn set(set: Option<&SetStatus>) -> String {
    let Some(set) = set else { return "-".to_owned() };
    let mode = match set.mode {
        Mode::Auto => "-",
        Mode::Up => "up",
        Mode::Down => "down",
        Mode::Drain => "drain",
    };
    match set.left {
        Some(left) => format!("{mode}, {} left", format_duration(Duration::from_secs(left))),
        None => mode.to_owned(),
    }
}
