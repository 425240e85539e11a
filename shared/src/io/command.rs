//! What the commands of both programs share: global options, exit codes, how results and problems are printed, and calls
//! of a running node's admin API.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;

use super::admin;
use super::files::{System, read_secret};
use crate::config::{self, Loaded, Problem, Spec, listing};

/// Done.
pub const DONE: u8 = 0;
/// It did not work.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// Refused for safety: it would take the last healthy one.
pub const REFUSED: u8 = 3;
/// The configuration cannot be used (EX_CONFIG of sysexits.h).
pub const BAD_CONFIG: u8 = 78;

/// Where the configuration is looked for when it is not named.
const DEFAULT_PATHS: [&str; 2] = ["meridian.toml", "/etc/meridian/meridian.toml"];

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Configuration file [default: meridian.toml, then /etc/meridian/meridian.toml]
    #[arg(long, global = true, env = "MERIDIAN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Node of the configuration: the one to be, or the one to ask
    #[arg(long, global = true, env = "MERIDIAN_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub output: Output,
    /// Diagnostics on standard error: error, warn, info, debug, trace
    #[arg(long, global = true, env = "MERIDIAN_LOG", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For scripts
    Json,
}

impl Global {
    /// The configuration file: the one named, else the first default that exists.
    ///
    /// # Errors
    /// The exit code, after the reason was printed.
    pub fn config_path(&self) -> Result<PathBuf, u8> {
        if let Some(path) = &self.config {
            return Ok(path.clone());
        }
        let found = DEFAULT_PATHS.iter().map(Path::new).find(|path| path.exists());
        found.map(Path::to_owned).ok_or_else(|| {
            let paths = DEFAULT_PATHS.join(" and no ");
            fail(&format!("there is no {paths}: name the file with --config"), BAD_CONFIG)
        })
    }

    /// The configuration alone, without the files that it names.
    ///
    /// # Errors
    /// The exit code, after all problems were printed.
    pub fn configuration(&self) -> Result<Loaded, u8> {
        config::load(&self.config_path()?, &System)
            .map_err(|problems| fail(&listing(&problems), BAD_CONFIG))
    }

    /// What the configuration says, for commands that only speak to running nodes: a mistake in it is no reason not to
    /// drain a datacenter.
    ///
    /// # Errors
    /// The exit code, after all problems were printed: no node can be found in it.
    pub fn spec(&self) -> Result<Spec, u8> {
        let path = self.config_path()?;
        let problems = match config::load(&path, &System) {
            Ok(loaded) => return Ok(loaded.spec),
            Err(problems) => problems,
        };
        let spec = config::glance(&path, &System);
        if spec.nameserver.is_empty() && spec.edge.is_empty() {
            return Err(fail(&listing(&problems), BAD_CONFIG));
        }
        let path = path.display();
        fail(&format!("{path} has mistakes (see `check`); what runs is asked all the same"), DONE);
        Ok(spec)
    }

    /// Prints what `check` found: the problems to standard error, or everything as JSON to standard output. Returns the
    /// exit code.
    pub fn report(&self, path: &Path, problems: &[Problem], summary: &str) -> u8 {
        let ok = !problems.iter().any(Problem::is_error);
        match self.output {
            Output::Json => print_json(&serde_json::json!({ "ok": ok, "problems": problems })),
            Output::Table => {
                if !problems.is_empty() {
                    fail(&listing(problems), BAD_CONFIG);
                }
                if ok {
                    print(&format!("{} is good: {summary}\n", path.display()));
                }
            }
        }
        if ok { DONE } else { BAD_CONFIG }
    }
}

/// Writes to standard output. A reader that has gone away is no failure.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes JSON to standard output.
pub fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => {
            fail(&error.to_string(), FAILED);
        }
    }
}

/// Writes to standard error and gives back the exit code.
pub fn fail(why: &str, code: u8) -> u8 {
    let _ = writeln!(std::io::stderr().lock(), "{}", why.trim_end());
    code
}

/// Calls a node's admin API; a status beyond 299 is an error with the text of the problem.
///
/// # Errors
/// The node does not answer, or says no.
pub fn call(
    node: SocketAddr,
    token_file: Option<&Path>,
    method: Method,
    target: &str,
) -> Result<Bytes, CallError> {
    call_with(node, token_file, method, target, Bytes::new())
}

/// [`call`] with a body.
///
/// # Errors
/// The node does not answer, or says no.
pub fn call_with(
    node: SocketAddr,
    token_file: Option<&Path>,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<Bytes, CallError> {
    let token = token_file.map(read_secret).transpose().map_err(CallError::Unreachable)?;
    let (status, body) = admin::call(node, token.as_deref(), method, target, body)
        .map_err(CallError::Unreachable)?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    Err(CallError::Refused(status, detail.map_or_else(|| status.to_string(), str::to_owned)))
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum CallError {
    /// The node does not answer.
    Unreachable(String),
    /// It does, and says no.
    Refused(StatusCode, String),
}

impl CallError {
    /// The exit code that tells a script what it was.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(StatusCode::CONFLICT, _) => REFUSED,
            // The node has read its configuration, and it cannot be used.
            Self::Refused(StatusCode::UNPROCESSABLE_ENTITY, _) => BAD_CONFIG,
            _ => FAILED,
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Refused(_, why) => f.write_str(why),
        }
    }
}
