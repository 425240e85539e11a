//! `whatif`: rehearses a change, from the configuration files alone or with the health that a running node sees.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use shared::config::{Rate, listing};

use super::{
    BAD_CONFIG, DONE, FAILED, Global, Output, USAGE, call, fail, nodes, print, print_json,
};
use crate::io::admin::Status;
use crate::io::load::{self, Loading};
use crate::io::whatif::{self, Replayed, facts_of, replay};
use crate::snapshot::Snapshot;
use crate::whatif::population::Fineness;
use crate::whatif::report::{Report, Traffic};
use crate::whatif::{Change, Rehearsal, facts_for, parse_weight};

/// Rehearse a change: where clients go now, and where they would go
///
/// Runs the decision that answers queries for many clients, once as things are and once changed, and prints per
/// steering policy what share each datacenter gets before and after, who moves where, and, when the traffic is known,
/// who would get more than its `capacity`. Nothing is changed by it.
///
/// The clients are those of a query log (`[log] query` of the configuration), or else all client networks that the
/// geography knows, weighed by their addresses. The order of clients and the health of edges come from the
/// configuration with everything presumed up, or with --live from a running node.
///
/// Several changes count together: --down icn --weight fra=3.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    geodns whatif --down icn --total 30Gbps\n  \
    geodns whatif --live --drain icn\n  \
    zcat queries.gz | geodns whatif --config-b new.toml --log -")]
pub(super) struct Args {
    /// This datacenter is down
    #[arg(long, value_name = "DC")]
    down: Vec<String>,
    /// This datacenter is drained
    #[arg(long, value_name = "DC")]
    drain: Vec<String>,
    /// This datacenter is up, whatever checks and operator say
    #[arg(long, value_name = "DC")]
    up: Vec<String>,
    /// This datacenter has another weight
    #[arg(long, value_name = "DC=W", value_parser = parse_weight)]
    weight: Vec<(String, u32)>,
    /// This configuration is in service instead of the one that is
    #[arg(long, value_name = "FILE")]
    config_b: Option<PathBuf>,
    /// Query log to replay; -: standard input
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Traffic of all datacenters together, such as 30Gbps [default: with --live, what the edges report]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    total: Option<Rate>,
    /// Begin with the health and the overrides that a running node has now
    #[arg(long)]
    live: bool,
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    Rate::try_from(text.to_owned())
}

pub(super) fn run(global: &Global, args: &Args) -> u8 {
    match rehearse(global, args) {
        Ok(report) => {
            match global.output {
                Output::Json => print_json(&report),
                Output::Table => print(&report.to_string()),
            }
            DONE
        }
        Err(code) => code,
    }
}

fn rehearse(global: &Global, args: &Args) -> Result<Report, u8> {
    // Opened first: a name that is wrong should not wait for databases to load.
    let log = args.log.as_deref().map(|path| {
        let failed = |error| fail(&format!("{} cannot be read: {error}", path.display()), FAILED);
        whatif::open(path).map_err(failed)
    });
    let log = log.transpose()?;
    let before = snapshot(load(&global.config_path()?)?);
    let before = match args.live {
        true => with_live_health(global, &before)?,
        false => before,
    };
    let change = Change {
        down: args.down.clone(),
        drain: args.drain.clone(),
        up: args.up.clone(),
        weights: args.weight.clone(),
    };
    let base = match &args.config_b {
        None => before.clone(),
        Some(path) => {
            let other = snapshot(load(path)?);
            let facts = facts_for(&other.tables.world, &before.tables.world, &before.health.facts);
            other.with_health(facts)
        }
    };
    let after =
        change.apply(&base, || base.tables.zones.clone()).map_err(|why| fail(&why, USAGE))?;
    let mut changes: Vec<String> =
        args.config_b.iter().map(|path| format!("configuration {}", path.display())).collect();
    changes.extend(change.describe());
    let mut rehearsal = Rehearsal::new(&before, &after);
    let replayed = match log {
        Some(log) => Some(replay_with_progress(log, &mut rehearsal)?),
        None => {
            rehearsal.add_population(Fineness::COMMAND);
            None
        }
    };
    let traffic = match args.total {
        Some(Rate(bits)) => Traffic::Total(bits as f64),
        None => Traffic::reported(&before),
    };
    let unreadable = replayed.as_ref().map(|replayed| replayed.unreadable);
    let mut report = rehearsal.report(changes, unreadable, &traffic);
    if let Some((line, why)) = replayed.and_then(|replayed| replayed.first_problem) {
        report.notes.push(format!("the first of them is line {line}: {why}"));
    }
    report.notes.extend(change.idle_parts(&after.tables.world));
    if !args.live {
        report.notes.push("every edge counts as up (--live asks a running node)".to_owned());
    }
    Ok(report)
}

fn load(path: &Path) -> Result<Loading, u8> {
    load::load(path).map_err(|problems| fail(&listing(&problems), BAD_CONFIG))
}

fn snapshot(loading: Loading) -> Snapshot {
    Snapshot::presumed_up(loading.tables)
}

/// The same tables at the health of the first node that answers.
fn with_live_health(global: &Global, snapshot: &Snapshot) -> Result<Snapshot, u8> {
    let mut last = "no nameserver is configured".to_owned();
    for (name, node) in nodes(global)? {
        let status = call(&node, http::Method::GET, "/v1/status")
            .map_err(|error| error.to_string())
            .and_then(|body| {
                serde_json::from_slice::<Status>(&body).map_err(|error| error.to_string())
            });
        match status {
            Ok(status) => {
                if global.output == Output::Table {
                    fail(&format!("with the health that {name} sees"), DONE);
                }
                return Ok(snapshot.with_health(facts_of(&status, &snapshot.tables.world)));
            }
            Err(why) => last = format!("{name}: {why}"),
        }
    }
    Err(fail(&format!("{last}; without --live no node is asked"), FAILED))
}

fn replay_with_progress(
    log: Box<dyn BufRead>,
    rehearsal: &mut Rehearsal<'_>,
) -> Result<Replayed, u8> {
    let mut terminal = std::io::stderr();
    let shows = terminal.is_terminal();
    let replayed = replay(log, rehearsal, |lines| {
        if shows {
            let _ = write!(terminal, "\r{lines} lines");
        }
    });
    if shows {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let replayed = replayed.map_err(|error| fail(&format!("the log: {error}"), FAILED))?;
    match &replayed.first_problem {
        Some((line, why)) if replayed.unreadable == replayed.lines => {
            let why = format!("this is no query log of geodns: line {line}: {why}");
            Err(fail(&why, FAILED))
        }
        _ => Ok(replayed),
    }
}
