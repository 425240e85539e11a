//! The command line: one file for each group of commands, and what they share.

mod check;
mod control;
mod explain;
mod query;
mod serve;
mod status;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use shared::config::{Loaded, NameserverSpec};
use shared::io::files::{System, read_secret};
use shared::io::{admin, log};

use crate::io::load;

/// Done.
pub const DONE: u8 = 0;
/// It did not work.
pub const FAILED: u8 = 1;
/// Refused for safety: it would take the last healthy one.
pub const REFUSED: u8 = 3;
/// The configuration cannot be used (EX_CONFIG of sysexits.h).
pub const BAD_CONFIG: u8 = 78;

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

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Configuration file [default: meridian.toml, then /etc/meridian/meridian.toml]
    #[arg(long, global = true, env = "MERIDIAN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Nameserver of the configuration: the one to be, or the one to ask [default: the only one, or all]
    #[arg(long, global = true, env = "MERIDIAN_NODE", value_name = "NAME")]
    node: Option<String>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    output: Output,
    /// Diagnostics on standard error: error, warn, info, debug, trace
    #[arg(long, global = true, env = "MERIDIAN_LOG", default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For scripts
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer DNS queries as one of the configuration's nameservers
    Serve,
    /// Check the configuration, zone files and databases; print every problem
    Check,
    /// Say why a client gets what it gets
    Explain(explain::Args),
    /// Show nodes, zones, datacenters, edges and their checks
    Status,
    /// Send no new clients to a datacenter, or to an edge with --edge
    Drain(control::Args),
    /// Let health decide again
    Undrain(control::Args),
    /// Count a datacenter or an edge as down, whatever the checks say
    Down(control::Args),
    /// Count a datacenter or an edge as up, whatever the checks say
    Up(control::Args),
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
        return ExitCode::from(fail(&why, 2));
    }
    let global = &cli.global;
    let code = match &cli.command {
        Command::Serve => serve::run(global),
        Command::Check => check::run(global),
        Command::Explain(args) => explain::run(global, args),
        Command::Status => status::run(global),
        Command::Drain(args) => control::run(global, args, "drain"),
        Command::Undrain(args) => control::run(global, args, "undrain"),
        Command::Down(args) => control::run(global, args, "down"),
        Command::Up(args) => control::run(global, args, "up"),
        Command::Auto(args) => control::run(global, args, "auto"),
        Command::Query(args) => query::run(global, args),
        Command::Reload => control::reload(global),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "geodns", &mut std::io::stdout());
            DONE
        }
    };
    ExitCode::from(code)
}

/// Writes to standard output. A reader that has gone away is no failure.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes JSON to standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => {
            fail(&error.to_string(), FAILED);
        }
    }
}

/// Writes to standard error and gives back the exit code.
pub(crate) fn fail(why: &str, code: u8) -> u8 {
    let _ = writeln!(std::io::stderr().lock(), "{why}");
    code
}

/// The configuration file.
pub(crate) fn config_path(global: &Global) -> Result<PathBuf, u8> {
    load::find(global.config.as_deref()).map_err(|why| fail(&why, BAD_CONFIG))
}

/// The configuration alone, without zone files and databases: for commands that only speak to running nodes.
pub(crate) fn config(global: &Global) -> Result<Loaded, u8> {
    let path = config_path(global)?;
    read_config(&path)
}

fn read_config(path: &Path) -> Result<Loaded, u8> {
    shared::config::load(path, &System).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        fail(&lines.join("\n"), BAD_CONFIG)
    })
}

/// The nameservers that a command is for: the one named, else all.
pub(crate) fn nodes<'c>(
    global: &Global,
    config: &'c Loaded,
) -> Result<Vec<(&'c str, &'c NameserverSpec)>, u8> {
    let all = config.spec.nameserver.iter().map(|(name, spec)| (name.as_str(), spec));
    let chosen: Vec<_> =
        all.filter(|(name, _)| global.node.as_deref().is_none_or(|node| node == *name)).collect();
    match (&global.node, chosen.is_empty()) {
        (_, false) => Ok(chosen),
        (Some(node), true) => Err(fail(&format!("there is no nameserver `{node}`"), FAILED)),
        (None, true) => Err(fail("the configuration has no nameserver", BAD_CONFIG)),
    }
}

/// Calls a node's admin API; a status beyond 299 is an error with the text of the problem.
pub(crate) fn call(
    node: &NameserverSpec,
    method: http::Method,
    target: &str,
) -> Result<bytes::Bytes, CallError> {
    let token = node.admin_token_file.as_deref().map(read_secret).transpose();
    let token = token.map_err(CallError::Unreachable)?;
    let (status, body) =
        admin::call(node.admin, token.as_deref(), method, target, bytes::Bytes::new())
            .map_err(CallError::Unreachable)?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    Err(CallError::Refused(status, detail.unwrap_or("no reason given").to_owned()))
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The node does not answer.
    Unreachable(String),
    /// It does, and says no.
    Refused(http::StatusCode, String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Refused(_, why) => f.write_str(why),
        }
    }
}
