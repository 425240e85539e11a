//! The command line: one file for each group of commands, and what they share.

mod check;
mod control;
mod explain;
mod query;
mod serve;
mod status;
mod whatif;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use shared::config::{NameserverSpec, Spec};
use shared::io::command::{
    self, BAD_CONFIG, CallError, DONE, FAILED, Global, Output, USAGE, fail, print, print_json,
};
use shared::io::log;

/// An authoritative DNS server that sends every client to the nearest healthy datacenter.
///
/// Exit codes: 0 done; 1 failed; 2 usage; 3 refused for safety; 78 bad configuration.
#[derive(Debug, Parser)]
#[command(name = "geodns", version)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer DNS queries as one of the configuration's nameservers
    Serve,
    /// Check the configuration, zone files and databases; print every problem
    Check,
    /// Say why a client gets what it gets
    Explain(explain::Args),
    Whatif(whatif::Args),
    /// Show nodes, zones, datacenters, edges and their checks
    Status,
    /// Send no new clients to a datacenter, or to an edge with --edge
    Drain(control::DrainArgs),
    /// Let health decide again
    Undrain(control::Args),
    /// Count a datacenter or an edge as down, whatever the checks say
    Down(control::TimedArgs),
    /// Count a datacenter or an edge as up, whatever the checks say
    Up(control::TimedArgs),
    /// Let health decide again (the same as undrain)
    Auto(control::Args),
    /// Ask a DNS server
    Query(query::Args),
    /// Have running nameservers read their configuration again
    Reload,
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if let Err(why) = log::init(&cli.global.log_level) {
        return ExitCode::from(fail(&why, USAGE));
    }
    let global = &cli.global;
    let code = match &cli.command {
        Command::Serve => serve::run(global),
        Command::Check => check::run(global),
        Command::Explain(args) => explain::run(global, args),
        Command::Whatif(args) => whatif::run(global, args),
        Command::Status => status::run(global),
        Command::Drain(args) => control::drain(global, args),
        Command::Undrain(args) => control::run(global, args, "undrain"),
        Command::Down(args) => control::run_timed(global, args, "down"),
        Command::Up(args) => control::run_timed(global, args, "up"),
        Command::Auto(args) => control::run(global, args, "auto"),
        Command::Query(args) => query::run(global, args),
        Command::Reload => control::reload(global),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "geodns", &mut script);
            print(&String::from_utf8_lossy(&script));
            DONE
        }
    };
    ExitCode::from(code)
}

/// The nameservers that a command is for: the one named, else all.
fn nodes(global: &Global) -> Result<Vec<(String, NameserverSpec)>, u8> {
    let spec = global.spec()?;
    let chosen: Vec<_> = spec
        .nameserver
        .iter()
        .filter(|(name, _)| global.node.as_ref().is_none_or(|node| node == *name))
        .map(|(name, node)| (name.clone(), node.clone()))
        .collect();
    match chosen.is_empty() {
        false => Ok(chosen),
        true => Err(no_nameserver(global.node.as_deref(), &spec)),
    }
}

/// Says that the nameserver asked for is not in the configuration, or that none is.
fn no_nameserver(node: Option<&str>, spec: &Spec) -> u8 {
    let names: Vec<_> = spec.nameserver.keys().map(String::as_str).collect();
    let why = match node {
        _ if names.is_empty() => {
            "the configuration has no nameserver: write `[nameserver.NAME]`".to_owned()
        }
        Some(node) => format!("there is no nameserver `{node}`; there are: {}", names.join(", ")),
        None => format!("which node is this? Name one with --node: {}", names.join(", ")),
    };
    fail(&why, BAD_CONFIG)
}

/// Calls a node's admin API.
fn call(
    node: &NameserverSpec,
    method: http::Method,
    target: &str,
) -> Result<bytes::Bytes, CallError> {
    command::call(node.admin, node.admin_token_file.as_deref(), method, target)
}
