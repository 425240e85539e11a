//! `drain`, `undrain`, `down`, `up`, `auto`, `reload`: the operator's word to running nodes.

mod drained;

use std::time::Duration;

use shared::io::admin::percent_encode;
use shared::io::command::REFUSED;
use shared::time::{format_duration, parse_duration};

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

/// What holds for a time.
#[derive(Debug, clap::Args)]
pub(super) struct TimedArgs {
    #[command(flatten)]
    args: Args,
    /// For so long, such as 30m or 2h; then health decides again [default: until undrain or auto]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    length: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    timed: TimedArgs,
    /// Return when the clients are gone: when its edges report no more connections than --below. Needs a check of kind
    /// "report"
    #[arg(long)]
    wait: bool,
    /// With --wait: so many connections may be left
    #[arg(long, value_name = "N", default_value_t = 0)]
    below: u64,
    /// With --wait: give up after this (exit code 1; the drain stays)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m")]
    timeout: Duration,
}

pub(super) fn run(global: &Global, args: &Args, verb: &str) -> u8 {
    order(global, args, verb, None)
}

pub(super) fn run_timed(global: &Global, args: &TimedArgs, verb: &str) -> u8 {
    order(global, &args.args, verb, args.length)
}

pub(super) fn drain(global: &Global, args: &DrainArgs) -> u8 {
    let code = run_timed(global, &args.timed, "drain");
    match args.wait && code == DONE {
        true => drained::wait(global, &args.timed.args, args.below, args.timeout),
        false => code,
    }
}

fn order(global: &Global, args: &Args, verb: &str, length: Option<Duration>) -> u8 {
    let kind = if args.edge { "edges" } else { "datacenters" };
    let force = args.force.then(|| "force".to_owned());
    let length = length.map(|length| format!("for={}", format_duration(length)));
    let parameters: Vec<_> = force.into_iter().chain(length).collect();
    let query = if parameters.is_empty() { "" } else { "?" };
    let query = format!("{query}{}", parameters.join("&"));
    let target = format!("/v1/{kind}/{}/{verb}{query}", percent_encode(&args.name));
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
            let until = answer["until"].as_str().map(|until| format!(", until {until}"));
            print(&format!("{name}: {what}: done{}\n", until.unwrap_or_default()));
        }
        done.push(serde_json::json!({ "node": name, "done": true, "answer": answer }));
    }
    if global.output == Output::Json {
        print_json(&done);
    }
    worst
}
