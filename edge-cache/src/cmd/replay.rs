//! `replay`: a user's own log, run through simulated nodes of several sizes and policies, or sent to a running node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shared::config::Dur;
use shared::io::command::{DONE, FAILED, Global, Output, USAGE, fail, print, print_json};

use super::simulation::{Nodes, Run, Summary, percent, share};
use crate::io::replay::{self, Live, Order};
use crate::io::trace::{Log, load, nothing};
use crate::predict::plot::{Axis, Line, plot, size};
use crate::predict::replay::PARTS;
use crate::predict::report::{Page, aligned};
use crate::trace::Reader;

/// What is replayed, and against what.
#[derive(clap::Args)]
#[command(after_help = "\
TRACE is an access log: the common or combined log format (nginx, Apache, varnishncsa), lines of JSON (our own log, or \
fields such as time, host, uri, status, body_bytes_sent), or a table of time, key and size. gzip and Zstandard are \
unpacked, `-` is standard input. Broken lines are counted and named; GET and HEAD of statuses that a cache keeps count.

Which cache would have answered more of it? Sizes in bytes, or in per cent of all its objects together:

  edge-cache replay access.log --memory 256MiB,1GiB,4GiB --policy size-aware,s3-fifo,lru --report out

And a running node, asked for the same on one connection at a time, or by 64 at twice the log's speed:

  edge-cache replay access.log --url http://127.0.0.1:8080 --concurrency 1
  edge-cache replay access.log --url http://127.0.0.1:8080 --concurrency 64 --speed 2

Objects are taken as good for ever, unless --ttl says for how long. Without --memory the node of the configuration is \
simulated.")]
pub(super) struct Args {
    /// The access log; `-`: standard input
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    #[command(flatten)]
    nodes: Nodes,
    /// The first so many per cent of the log's time fill the cache and are not counted
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    warm_up: f64,
    /// Write a report with plots into this folder: index.html
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Send the requests to a running node, or to any cache, `http://ADDRESS:PORT`
    #[arg(long, value_name = "URL", value_parser = node)]
    url: Option<std::net::SocketAddr>,
    /// With --url: Host of requests whose lines have none
    #[arg(long, value_name = "NAME", default_value = "localhost", requires = "url")]
    host: String,
    /// With --url: requests at once
    #[arg(long, value_name = "N", default_value_t = 16, requires = "url", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// With --url: requests a second [default: as they are answered]
    #[arg(long, value_name = "N", requires = "url", value_parser = positive)]
    rate: Option<f64>,
    /// With --url: so many times as fast as the log [default: its times do not matter]
    #[arg(long, value_name = "N", requires = "url", value_parser = positive)]
    speed: Option<f64>,
    /// With --url: no more requests than these
    #[arg(long, value_name = "N", requires = "url")]
    limit: Option<u64>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "it is a number above 0".to_owned())
}

fn node(text: &str) -> Result<std::net::SocketAddr, String> {
    let rest = text.strip_prefix("http://").ok_or("it begins with http://")?;
    let authority = rest.trim_end_matches('/');
    authority.parse().map_err(|_| {
        format!(
            "`{authority}` is no address with a port, such as 127.0.0.1:8080; names go into --host"
        )
    })
}

#[derive(Serialize)]
struct Result_<'a> {
    trace: &'a Summary,
    #[serde(skip_serializing_if = "<[Run]>::is_empty")]
    simulated: &'a [Run],
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<LiveResult<'a>>,
}

#[derive(Serialize)]
struct LiveResult<'a> {
    #[serde(flatten)]
    live: &'a Live,
    hit_ratio: f64,
    byte_hit_ratio: f64,
    offload_ratio: f64,
    byte_offload_ratio: f64,
}

/// Replays and prints.
pub(super) fn run(global: &Global, args: &Args) -> u8 {
    match replayed(global, args) {
        Ok(code) | Err(code) => code,
    }
}

fn replayed(global: &Global, args: &Args) -> Result<u8, u8> {
    let failed = |why: String| fail(&why, FAILED);
    if args.url.is_some() && args.trace == Path::new("-") && args.nodes.is_named() {
        return Err(fail("standard input can be read once: --url or --memory, not both", USAGE));
    }
    let live = match args.url {
        Some(node) => Some(asked(args, node).map_err(failed)?),
        None => None,
    };
    let simulate = live.is_none() || args.nodes.is_named();
    let (summary, runs) = match (simulate, &live) {
        (false, Some((_, summary))) => (summary.clone(), Vec::new()),
        _ => {
            // What is wrong with the command line is said before a long log is read.
            let nodes = args.nodes.wanted(global)?;
            let bar = reading();
            let loaded = load(&args.trace, args.nodes.format(), |read, of| follow(&bar, read, of));
            bar.finish_and_clear();
            let loaded = loaded.map_err(failed)?;
            let summary = Summary::new(&args.trace, &loaded);
            let setups = nodes.setups(&summary);
            let runs = simulated(&loaded.workload, &setups, args.warm_up).map_err(failed)?;
            (summary, runs)
        }
    };
    let live = live.as_ref().map(|(live, _)| live);
    if live.is_some_and(|live| live.answered == 0) {
        let why = live.and_then(|live| live.failure.clone()).unwrap_or_default();
        return Err(failed(format!("no request was answered: {why}")));
    }
    if let Some(folder) = &args.report {
        write_report(folder, &summary, &runs, live, args.warm_up).map_err(failed)?;
    }
    match global.output {
        Output::Json => print_json(&Result_ {
            trace: &summary,
            simulated: &runs,
            live: live.map(|live| {
                let (node, offload) = (live.node.ratios(), live.offload.ratios());
                let (node, offload) = (node.unwrap_or_default(), offload.unwrap_or_default());
                LiveResult {
                    live,
                    hit_ratio: node.objects,
                    byte_hit_ratio: node.bytes,
                    offload_ratio: offload.objects,
                    byte_offload_ratio: offload.bytes,
                }
            }),
        }),
        Output::Table => {
            let mut text = summary.words();
            if !runs.is_empty() {
                text += &format!("\n{}", aligned(&Run::rows(&runs)));
            }
            if let Some(live) = live {
                text += &format!("\n{}", live_words(live));
            }
            if let Some(folder) = &args.report {
                text += &format!("\nwritten: {}\n", folder.join("index.html").display());
            }
            print(&text);
        }
    }
    Ok(DONE)
}

/// A bar for reading a file; nothing where standard error is no terminal.
pub(super) fn reading() -> ProgressBar {
    bar("{msg:12} {bar:40} {bytes}/{total_bytes} {eta} left", "reading")
}

fn bar(template: &str, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}

pub(super) fn follow(bar: &ProgressBar, read: u64, of: Option<u64>) {
    bar.set_length(of.unwrap_or(read));
    bar.set_position(read);
}

/// Runs a log through nodes, as many at once as there are cores.
pub(super) fn simulated(
    workload: &crate::trace::workload::Workload,
    setups: &[crate::predict::sim::Setup],
    warm_up: f64,
) -> Result<Vec<Run>, String> {
    let bar = bar("{msg:12} {bar:40} {percent:>3} % {eta} left", "simulating");
    bar.set_length((workload.records().len() * setups.len()) as u64);
    let runs = crate::io::trace::in_parallel(setups, |setup| {
        Run::new(setup, crate::predict::replay::run(workload, setup, warm_up, |done| bar.inc(done)))
    });
    bar.finish_and_clear();
    runs
}

fn asked(args: &Args, node: std::net::SocketAddr) -> Result<(Live, Summary), String> {
    let path = &args.trace;
    let log =
        Log::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let order = Order {
        node,
        host: args.host.clone(),
        concurrency: usize::from(args.concurrency),
        rate: args.rate,
        speed: args.speed,
        limit: args.limit,
    };
    let bar = reading();
    let shown = bar.clone();
    let (live, reader, cut) =
        replay::run(&order, log, Reader::new(args.nodes.format()), move |log| {
            follow(&shown, log.read(), log.size());
        })?;
    bar.finish_and_clear();
    if live.answered + live.failed == 0 {
        return Err(nothing(path, &reader, cut.as_deref()));
    }
    let summary = Summary::of_reader(path, &reader, cut);
    Ok((live, summary))
}

fn live_words(live: &Live) -> String {
    let (node, offload) =
        (live.node.ratios().unwrap_or_default(), live.offload.ratios().unwrap_or_default());
    let mut text = aligned(&[
        vec!["LIVE".into(), "OBJECTS".into(), "BYTES".into()],
        vec!["hits of the node".into(), share(node.objects), share(node.bytes)],
        vec!["kept from the origin".into(), share(offload.objects), share(offload.bytes)],
    ]);
    text += &format!(
        "{} answered in {:.1} s, {} failed, {} with another status than in the log; {} in all; \
         first byte: half within {:.1} ms, 99 % within {:.1} ms\n",
        live.answered,
        live.seconds,
        live.failed,
        live.other_status,
        size(live.node.bytes),
        live.first_byte_p50,
        live.first_byte_p99
    );
    if let Some(failure) = &live.failure {
        text += &format!("the first failure: {failure}\n");
    }
    text
}

fn write_report(
    folder: &Path,
    summary: &Summary,
    runs: &[Run],
    live: Option<&Live>,
    warm_up: f64,
) -> Result<(), String> {
    let mut page = Page::new(&format!("Replay of {}", summary.file));
    for line in summary.words().lines() {
        page.text(line);
    }
    if warm_up > 0.0 {
        page.text(&format!("The first {} of its time is not counted.", share(warm_up)));
    }
    if !runs.is_empty() {
        page.heading("Simulated");
        page.table(&Run::rows(runs));
        for (title, pick) in PICKS {
            let lines = Run::over_size(runs, pick);
            if lines.iter().any(|line| line.points.len() > 1)
                && let Some(svg) = plot(&format!("{title} over size"), Axis::Size, &lines)
            {
                page.plot(&svg);
            }
        }
        for (title, pick) in PICKS {
            let step = summary.seconds / PARTS as f64;
            // More lines than colours would tell nothing.
            let lines: Vec<Line> =
                runs.iter().take(8).map(|run| run.over_time(step, pick)).collect();
            if let Some(svg) = plot(&format!("{title} over time"), Axis::Time, &lines) {
                page.plot(&svg);
            }
        }
    }
    if let Some(live) = live {
        page.heading("Live");
        for line in live_words(live).lines() {
            page.text(line);
        }
        let line = |name: &str, pick: fn(crate::predict::Ratios) -> f64| Line {
            name: name.to_owned(),
            points: live
                .parts
                .iter()
                .filter_map(|(at, part)| Some((*at, pick(part.ratios()?))))
                .collect(),
        };
        let lines =
            [line("objects", |ratios| ratios.objects), line("bytes", |ratios| ratios.bytes)];
        if let Some(svg) = plot("Hit ratio over time", Axis::Time, &lines) {
            page.plot(&svg);
        }
    }
    let file = folder.join("index.html");
    crate::io::trace::write(&file, &page.end())
        .map_err(|error| format!("cannot write {}: {error}", file.display()))
}

pub(super) type Pick = fn(&crate::predict::Ratios) -> f64;

/// What is plotted.
pub(super) const PICKS: [(&str, Pick); 2] =
    [("Object hit ratio", |ratios| ratios.objects), ("Byte hit ratio", |ratios| ratios.bytes)];

/// A length of time on the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    Dur::try_from(text.to_owned()).map(Dur::get)
}
