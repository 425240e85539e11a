//! The command line: `serve` runs a node; the other commands check its configuration or ask a running one.
#![expect(clippy::disallowed_methods, reason = "commands read files and the environment")]

mod client;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::io::node::{LoadError, Source, load};

/// Done.
pub const DONE: u8 = 0;
/// Failed.
pub const FAILED: u8 = 1;
/// The configuration is bad.
pub const BAD_CONFIGURATION: u8 = 78;

/// The cache node of a content delivery network: first tier, second tier, or both.
#[derive(Parser)]
#[command(name = "edge-cache", version, about)]
struct Arguments {
    /// The configuration.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "meridian.toml",
        env = "MERIDIAN_CONFIG"
    )]
    config: PathBuf,
    /// This node's name in it. Not needed where there is one edge only.
    #[arg(long, global = true, value_name = "NAME", env = "MERIDIAN_NODE")]
    node: Option<String>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Diagnostics: error, warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the node.
    Serve,
    /// Checks the configuration and the files it names: prints all problems, exits 0 or 78.
    Check,
    /// Says what the node would do with a GET for a URL, and why.
    Explain {
        /// Such as https://www.cdn.test/images/a.png
        url: String,
        /// A field of the request, `Name: value`; may be repeated.
        #[arg(long = "header", short = 'H', value_name = "FIELD")]
        headers: Vec<String>,
    },
    /// Shows what the node is doing.
    Status,
    /// Takes the node out of service: it goes on to serve, but its health path asks for no more clients.
    Drain,
    /// Puts the node back into service.
    Undrain,
    /// Has the node read its configuration again.
    Reload,
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Completions { shell } = arguments.command {
        clap_complete::generate(
            shell,
            &mut Arguments::command(),
            "edge-cache",
            &mut std::io::stdout(),
        );
        return ExitCode::from(DONE);
    }
    if let Err(error) = shared::io::log::init(&arguments.log_level) {
        return fail(2, &error);
    }
    let source = Source { path: arguments.config, node: arguments.node };
    let json = arguments.output == Output::Json;
    match arguments.command {
        Command::Serve => serve::run(source),
        Command::Check => check(&source, json),
        Command::Explain { url, headers } => client::explain(&source, json, &url, &headers),
        Command::Status => client::status(&source, json),
        Command::Drain => client::order(&source, json, "drain"),
        Command::Undrain => client::order(&source, json, "undrain"),
        Command::Reload => client::order(&source, json, "reload"),
        Command::Completions { .. } => ExitCode::from(DONE),
    }
}

#[expect(clippy::print_stderr, reason = "what a command prints")]
fn fail(code: u8, message: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{}", message.to_string().trim_end());
    ExitCode::from(code)
}

/// The configuration, or the exit code after its problems have been printed.
fn configuration(
    source: &Source,
) -> Result<(shared::config::Loaded, crate::config::Plan), ExitCode> {
    load(source).map_err(|error| fail(BAD_CONFIGURATION, &error))
}

#[expect(clippy::print_stdout, reason = "what a command prints")]
fn check(source: &Source, json: bool) -> ExitCode {
    // Without --node every edge of the file is checked.
    let (problems, warnings, files) =
        match shared::config::load(&source.path, &shared::io::files::System) {
            Err(problems) => (problems, Vec::new(), Vec::new()),
            Ok(loaded) => {
                let nodes: Vec<String> = match &source.node {
                    Some(node) => vec![node.clone()],
                    None => loaded.spec.edge.keys().cloned().collect(),
                };
                let mut problems: Vec<shared::config::Problem> = Vec::new();
                let mut unusable = Vec::new();
                for node in &nodes {
                    match crate::config::Plan::new(&loaded, Some(node)) {
                        Err(found) => {
                            for problem in found {
                                if !problems.contains(&problem) {
                                    problems.push(problem);
                                }
                            }
                        }
                        Ok(plan) => unusable.extend(crate::io::node::unusable_files(&plan)),
                    }
                }
                unusable.sort();
                unusable.dedup();
                if !unusable.is_empty() {
                    let text: LoadError = LoadError::Unusable(unusable.join("\n"));
                    return fail(BAD_CONFIGURATION, &text);
                }
                (problems, loaded.warnings, loaded.files)
            }
        };
    let bad = problems.iter().any(shared::config::Problem::is_error);
    if json {
        let list: Vec<_> = problems
            .iter()
            .chain(&warnings)
            .map(|problem| {
                serde_json::json!({
                    "severity": if problem.is_error() { "error" } else { "warning" },
                    "file": problem.file,
                    "line": problem.place.as_ref().map(|place| place.line),
                    "column": problem.place.as_ref().map(|place| place.column),
                    "message": problem.message,
                    "note": problem.note,
                })
            })
            .collect();
        println!("{}", serde_json::json!({ "ok": !bad, "problems": list }));
    } else {
        for problem in problems.iter().chain(&warnings) {
            println!("{problem}");
        }
        if !bad {
            println!("{}: good ({} files)", source.path.display(), files.len());
        }
    }
    ExitCode::from(if bad { BAD_CONFIGURATION } else { DONE })
}
