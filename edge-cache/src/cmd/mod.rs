//! The command line: `serve` runs a node; the other commands check its configuration or ask a running one.

mod advise;
mod client;
mod purge;
mod replay;
mod serve;
mod sign;
mod simulation;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use shared::config::{Loaded, Problem, Severity, listing};
use shared::io::command::{BAD_CONFIG, DONE, Global, USAGE, fail, print};

use crate::config::Plan;
use crate::io::node::unusable_files;
use crate::io::under::warnings;

/// The cache node of a content delivery network: first tier, second tier, or both.
///
/// Exit codes: 0 done; 1 failed; 2 usage; 3 refused for safety; 78 bad configuration.
#[derive(Parser)]
#[command(name = "edge-cache", version)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP as one of the configuration's edges
    Serve,
    /// Check the configuration, certificates and tokens; print every problem
    Check,
    /// Say what a running node would do with a request for a URL, and why: site, route, policy, key, what is stored and
    /// how fresh it is, and who would be asked. Nothing is asked, fetched or changed
    Explain {
        /// Absolute URL, such as `https://www.cdn.test/images/a.png`
        url: String,
        /// Field of the request, `Name: value`; may be repeated
        #[arg(long = "header", short = 'H', value_name = "FIELD")]
        headers: Vec<String>,
        /// Address of the client, for rules about networks and countries
        #[arg(long, value_name = "ADDRESS")]
        client: Option<std::net::IpAddr>,
        /// Method of the request
        #[arg(long, short = 'X', default_value = "GET")]
        method: String,
    },
    /// Show requests, hit ratio, store and upstreams of a running node
    Status,
    /// Forget what is stored on a running node, by URL, prefix, host or tag, or everything
    Purge(purge::Args),
    /// Replay an access log: how much of it would a cache have answered, of which size, under which policy; or how much a
    /// running node does
    Replay(replay::Args),
    /// Say how large the cache should be: what more or less memory or disk would give, and which policy would serve better
    Advise(advise::Args),
    /// Make a signed URL, or a signed cookie, for a route with `signed`; asks no node
    ///
    /// What is made is good until it expires, for one URL or, with --prefix, for a path and all below it. To take it back
    /// earlier, take its key out of the configuration.
    Sign(sign::Args),
    /// Have the node ask for no more clients on its health path; it goes on to serve
    Drain,
    /// Put the node back into service
    Undrain,
    /// Have the running node read its configuration again
    Reload,
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(why) = shared::io::log::init(&cli.global.log_level) {
        return ExitCode::from(fail(&why, USAGE));
    }
    let global = &cli.global;
    ExitCode::from(match &cli.command {
        Command::Serve => serve::run(global),
        Command::Check => check(global),
        Command::Explain { url, headers, client, method } => {
            client::explain(global, method, url, headers, *client)
        }
        Command::Status => client::status(global),
        Command::Purge(args) => purge::run(global, args),
        Command::Advise(args) => advise::run(global, args),
        Command::Replay(args) => replay::run(global, args),
        Command::Sign(args) => sign::run(global, args),
        Command::Drain => client::order(global, "drain"),
        Command::Undrain => client::order(global, "undrain"),
        Command::Reload => client::order(global, "reload"),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "edge-cache", &mut script);
            print(&String::from_utf8_lossy(&script));
            DONE
        }
    })
}

/// The configuration and what it means for this node, or the exit code after its problems have been printed.
fn configuration(global: &Global) -> Result<(Loaded, Plan), u8> {
    let loaded = global.configuration()?;
    let plan = Plan::new(&loaded, global.node.as_deref())
        .map_err(|problems| fail(&listing(&problems), BAD_CONFIG))?;
    Ok((loaded, plan))
}

/// Without --node every edge of the file is checked.
fn check(global: &Global) -> u8 {
    let path = match global.config_path() {
        Ok(path) => path,
        Err(code) => return code,
    };
    let loaded = match shared::config::load(&path, &shared::io::files::System) {
        Ok(loaded) => loaded,
        Err(problems) => return global.report(&path, &problems, ""),
    };
    let edges: Vec<&str> = match &global.node {
        Some(node) => vec![node],
        None => loaded.spec.edge.keys().map(String::as_str).collect(),
    };
    let mut problems: Vec<Problem> = Vec::new();
    for edge in &edges {
        for problem in Plan::new(&loaded, Some(edge)).err().unwrap_or_default() {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems.extend(unusable_files(&loaded, &edges));
    problems.extend(warnings(&loaded, &edges));
    if !problems.iter().any(|problem| problem.severity == Severity::Error) {
        problems.extend(loaded.warnings.iter().cloned());
    }
    let summary = format!(
        "edges {}, sites {}, origins {}, warnings {}",
        loaded.spec.edge.len(),
        loaded.spec.site.len(),
        loaded.spec.origin.len(),
        loaded.warnings.len()
    );
    global.report(&path, &problems, &summary)
}
