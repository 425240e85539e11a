//! `drain`, `undrain`, `down`, `up`, `auto`, `reload`: the operator's word to running nodes.

use http::StatusCode;
use shared::io::admin::percent_encode;

use super::{CallError, DONE, FAILED, Global, REFUSED, call, config, fail, nodes, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Datacenter, or edge with --edge
    name: String,
    /// The name is an edge's
    #[arg(long)]
    edge: bool,
    /// Even when it takes the last healthy one
    #[arg(long)]
    force: bool,
}

pub(super) fn run(global: &Global, args: &Args, verb: &str) -> u8 {
    let kind = if args.edge { "edges" } else { "datacenters" };
    let force = if args.force { "?force" } else { "" };
    let target = format!("/v1/{kind}/{}/{verb}{force}", percent_encode(&args.name));
    each_node(global, &target, &format!("{verb} {}", args.name))
}

pub(super) fn reload(global: &Global) -> u8 {
    each_node(global, "/v1/reload", "reload")
}

/// Posts to every node the command is for, and goes on when one fails: nodes should differ as little as possible.
fn each_node(global: &Global, target: &str, what: &str) -> u8 {
    let config = match config(global) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let nodes = match nodes(global, &config) {
        Ok(nodes) => nodes,
        Err(code) => return code,
    };
    let mut worst = DONE;
    for (name, node) in nodes {
        let code = match call(node, http::Method::POST, target) {
            Ok(_) => {
                print(&format!("{name}: {what}: done\n"));
                DONE
            }
            Err(CallError::Refused(StatusCode::CONFLICT, why)) => {
                fail(&format!("{name}: {why} (--force)"), REFUSED)
            }
            Err(error) => fail(&format!("{name}: {error}"), FAILED),
        };
        worst = worst.max(code);
    }
    worst
}
