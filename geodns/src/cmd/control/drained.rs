//! `drain --wait`: a drain with a finish line.
//!
//! Answers given before the drain live for their TTL, and clients for as long as they like. Edges that report how many
//! connections they have tell when they are gone.
#![expect(clippy::disallowed_methods, reason = "a command that waits")]

use std::time::{Duration, Instant};

use shared::time::format_duration;

use super::Args;
use crate::cmd::{DONE, FAILED, Global, Output, call, fail, nodes, print, print_json};
use crate::io::status::{EdgeStatus, Status};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn wait(global: &Global, args: &Args, below: u64, timeout: Duration) -> u8 {
    let nodes = match nodes(global) {
        Ok(nodes) => nodes,
        Err(code) => return code,
    };
    let begun = Instant::now();
    let mut told = None;
    loop {
        // Whoever answers knows: all ask the same edges.
        let status = nodes.iter().find_map(|(_, node)| {
            let body = call(node, http::Method::GET, "/v1/status").ok()?;
            serde_json::from_slice::<Status>(&body).ok()
        });
        let Some(status) = status else {
            return fail("no nameserver tells its status any more", FAILED);
        };
        if told.is_none() && global.output == Output::Table {
            let ttl = status.policies.iter().map(|policy| policy.ttl).max().unwrap_or_default();
            let horizon = format_duration(Duration::from_secs(ttl.into()));
            print(&format!("resolvers may go on to send clients for {horizon}\n"));
        }
        let connections = match connections(&status, args) {
            Ok(connections) => connections,
            Err(why) => return fail(&why, FAILED),
        };
        if connections <= below {
            return done(global, connections);
        }
        if begun.elapsed() >= timeout {
            let waited = format_duration(timeout);
            let why =
                format!("{connections} connections are left after {waited}; it stays drained");
            return fail(&why, FAILED);
        }
        if told != Some(connections) && global.output == Output::Table {
            print(&format!("{connections} connections\n"));
        }
        told = Some(connections);
        std::thread::sleep(PAUSE);
    }
}

fn done(global: &Global, connections: u64) -> u8 {
    match global.output {
        Output::Table => print(&format!("drained: {connections} connections are left\n")),
        Output::Json => print_json(&serde_json::json!({ "connections": connections })),
    }
    DONE
}

/// Connections at the edges that are drained.
fn connections(status: &Status, args: &Args) -> Result<u64, String> {
    let edges = status.datacenters.iter().flat_map(|datacenter| {
        let is_drained = move |edge: &&EdgeStatus| match args.edge {
            true => edge.name == args.name,
            false => datacenter.name == args.name,
        };
        datacenter.edges.iter().filter(is_drained)
    });
    let mut sum = 0_u64;
    for edge in edges {
        let is_down = !edge.checks.is_empty() && edge.checks.iter().all(|c| c.state == "down");
        match &edge.report {
            Some(report) => sum = sum.saturating_add(report.connections),
            None if is_down => {}
            None => {
                let name = &edge.name;
                return Err(format!(
                    "`{name}` reports no connections: --wait needs a check of kind \"report\""
                ));
            }
        }
    }
    Ok(sum)
}
