//! `drain`, `undrain`, `down`, `up`, `auto`, `reload`: the operator's word to running nodes.

use shared::io::admin::percent_encode;

use shared::io::command::REFUSED;

use super::{DONE, Global, Output, call, fail, nodes, print, print_json};

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
    let nodes = match nodes(global) {
        Ok(nodes) => nodes,
        Err(code) => return code,
    };
    let mut worst = DONE;
    let mut done = Vec::new();
    for (name, node) in nodes {
        let body = match call(&node, http::Method::POST, target) {
            Ok(body) => body,
            Err(error) => {
                let code = error.exit_code();
                let hint = if code == REFUSED { " (--force)" } else { "" };
                worst = worst.max(fail(&format!("{name}: {error}{hint}"), code));
                done.push(
                    serde_json::json!({ "node": name, "done": false, "error": error.to_string() }),
                );
                continue;
            }
        };
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if global.output == Output::Table {
            for warning in answer["warnings"].as_array().into_iter().flatten() {
                fail(&format!("{name}: {}", warning.as_str().unwrap_or_default()), DONE);
            }
            print(&format!("{name}: {what}: done\n"));
        }
        done.push(serde_json::json!({ "node": name, "done": true, "answer": answer }));
    }
    if global.output == Output::Json {
        print_json(&done);
    }
    worst
}
