//! `advise`: how large a cache should be, from a log, or from what a running node sees.

use std::path::{Path, PathBuf};

use serde::Serialize;
use shared::io::command::{DONE, FAILED, Global, Output, fail, print, print_json};

use super::replay::{PICKS, follow, reading, simulated};
use super::simulation::{Nodes, Run, Summary, percent, share};
use crate::io::trace::load;
use crate::predict::advice::{needed, of_sizing};
use crate::predict::plot::{Axis, plot, size, time};
use crate::predict::report::{Page, aligned};
use crate::predict::sim::{DiskSetup, SEGMENT_SIZE, Setup};
use crate::predict::ttl::{self, SPANS, Sizing};
use crate::trace::workload::Workload;

/// Sizes that are looked at, in shares of what all objects together take.
const SHARES: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0];
/// Shares of what can be had at all, for which sizes are told.
const GOALS: [f64; 4] = [0.8, 0.9, 0.95, 0.99];

/// From what the advice is.
#[derive(clap::Args)]
#[command(after_help = "\
Without --trace a running node is asked: it simulates itself all the time on a small sample of its requests, at a quarter \
to four times its memory and its disk and under each policy. It needs traffic for that, and for as long as the larger \
caches are not full their ratios are too low.

With --trace no node is asked: a log says how large a cache for its requests should be (see `replay` for the forms of \
logs). The lifetime of objects (--ttl) is what the textbook's product needs, and bounds what can be hit.

  edge-cache advise --trace access.log --ttl 1h --want 90")]
pub(super) struct Args {
    /// Advise from an access log instead of from a running node; `-`: standard input
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    nodes: Nodes,
    /// With --trace: the share of requests, in per cent, that the cache is to answer
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "trace")]
    want: Option<f64>,
    /// With --trace: the first so many per cent of the log's time fill the cache and are not counted
    #[arg(long, value_name = "PERCENT", default_value = "25", value_parser = percent)]
    warm_up: f64,
    /// With --trace: write a report with plots into this folder: index.html
    #[arg(long, value_name = "DIR", requires = "trace")]
    report: Option<PathBuf>,
}

#[derive(Serialize)]
struct Advice {
    trace: Summary,
    sizing: Vec<Sizing>,
    curve: Vec<Run>,
    /// With the policy that has the most object hits.
    best: &'static str,
    /// The share of requests that could be hit if everything were stored.
    most: f64,
    sizes: Vec<Goal>,
}

/// How much is needed for what.
#[derive(Serialize)]
struct Goal {
    hit_ratio: f64,
    memory: Option<f64>,
    /// What a tenth of that memory over a disk of that size would answer, where that was looked at.
    split: Option<Run>,
}

/// Advises and prints.
pub(super) fn run(global: &Global, args: &Args) -> u8 {
    match &args.trace {
        Some(trace) => of_log(global, args, trace).unwrap_or_else(|why| fail(&why, FAILED)),
        None => super::client::advise(global),
    }
}

fn of_log(global: &Global, args: &Args, trace: &Path) -> Result<u8, String> {
    let bar = reading();
    let loaded = load(trace, args.nodes.format(), |read, of| follow(&bar, read, of));
    bar.finish_and_clear();
    let loaded = loaded?;
    let advice = advise(args, &loaded.workload, Summary::new(trace, &loaded))?;
    if let Some(folder) = &args.report {
        let file = folder.join("index.html");
        crate::io::trace::write(&file, &page(&advice))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    match global.output {
        Output::Json => print_json(&advice),
        Output::Table => {
            let sections = sections(&advice);
            let mut text = advice.trace.words();
            for (title, lines, rows) in &sections {
                text += &format!("\n{title}\n");
                for line in lines {
                    text += &format!("{line}\n");
                }
                if !rows.is_empty() {
                    text += &aligned(rows);
                }
            }
            print(&text);
        }
    }
    Ok(DONE)
}

fn advise(args: &Args, workload: &Workload, trace: Summary) -> Result<Advice, String> {
    let spans = match args.nodes.ttl() {
        Some(ttl) => vec![ttl],
        None => SPANS.into_iter().filter(|span| *span <= workload.length()).collect(),
    };
    let sizing = spans.into_iter().filter_map(|ttl| ttl::size(workload, ttl)).collect();
    let mut sizes: Vec<u64> = args.nodes.memory().iter().map(|bytes| bytes.of(&trace)).collect();
    // What everything takes is always looked at: it is all that can be had.
    let all = trace.weight.ceil() as u64;
    match sizes.is_empty() {
        true => sizes.extend(SHARES.iter().map(|share| (trace.weight * share).ceil() as u64)),
        false => sizes.push(all),
    }
    sizes.sort_unstable();
    sizes.dedup();
    let ttl = args.nodes.ttl();
    let disks = args.nodes.disks(&trace);
    let mut setups = Vec::new();
    for policy in args.nodes.policies() {
        for disk in &disks {
            let sizes = sizes.iter();
            setups.extend(sizes.map(|memory| {
                let (memory, disk, segment) = (*memory, *disk, SEGMENT_SIZE);
                Setup { policy, memory, disk, segment, ttl }
            }));
        }
    }
    let curve = simulated(workload, &setups, args.warm_up)?;
    let most = curve.iter().map(|run| run.outcome.ratios.objects).fold(0.0, f64::max);
    let curve_of = |policy: &str| -> Vec<(f64, f64)> {
        let first = disks.first().copied().flatten().map_or(0, |disk| disk.size);
        let runs = curve.iter().filter(|run| run.policy == policy && run.disk == first);
        runs.map(|run| (run.memory as f64, run.outcome.ratios.objects)).collect()
    };
    let area = |policy: &str| curve_of(policy).iter().map(|(_, share)| share).sum::<f64>();
    let names = args.nodes.policies().into_iter().map(|policy| policy.name());
    let best = names.max_by(|a, b| area(a).total_cmp(&area(b))).unwrap_or("lru");
    let wanted: Vec<f64> = match args.want {
        Some(want) => vec![want],
        None => GOALS.iter().map(|goal| goal * most).collect(),
    };
    let points = curve_of(best);
    let kind = args.nodes.policies().into_iter().find(|policy| policy.name() == best);
    let mut sizes: Vec<Goal> = wanted
        .into_iter()
        .map(|hit_ratio| Goal { hit_ratio, memory: needed(&points, hit_ratio), split: None })
        .collect();
    // Instead of that much memory: a tenth of it over a disk of that size. The largest that was found says it for all.
    if let Some(goal) = sizes.iter_mut().rfind(|goal| goal.memory.is_some())
        && let (Some(size), Some(policy), [None]) = (goal.memory, kind, disks.as_slice())
    {
        let size = size as u64;
        let disk = DiskSetup { size, daily_writes: DiskSetup::daily_writes(size) };
        let (memory, disk, segment) = (size / 10, Some(disk), SEGMENT_SIZE);
        let setup = Setup { policy, memory, disk, segment, ttl };
        goal.split = simulated(workload, &[setup], args.warm_up)?.pop();
    }
    Ok(Advice { trace, sizing, curve, best, most, sizes })
}

type Section = (&'static str, Vec<String>, Vec<Vec<String>>);

fn sections(advice: &Advice) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut rows =
        vec![["TTL", "TEXTBOOK", "UNIQUE BYTES", "TOO MUCH BY"].map(str::to_owned).to_vec()];
    for sizing in &advice.sizing {
        rows.push(vec![
            time(sizing.ttl),
            size(sizing.textbook),
            size(sizing.unique),
            format!("{:.1} ×", sizing.overestimate()),
        ]);
    }
    if let Some(last) = advice.sizing.last() {
        sections.push(("BY HAND: REQUESTS/S × MEAN SIZE × TTL", vec![of_sizing(last)], rows));
    }
    let mut rows = vec![vec!["MEMORY".to_owned()]];
    for run in &advice.curve {
        let name = size(run.memory as f64);
        let disk =
            if run.disk > 0 { format!(" + {}", size(run.disk as f64)) } else { String::new() };
        let head = format!("{}{disk} OBJECTS / BYTES", run.policy);
        if let Some(heads) = rows.first_mut().filter(|heads| !heads.contains(&head)) {
            heads.push(head);
        }
        let ratios = &run.outcome.ratios;
        let cell = format!("{} / {}", share(ratios.objects), share(ratios.bytes));
        match rows.iter_mut().skip(1).find(|row| row.first() == Some(&name)) {
            Some(row) => row.push(cell),
            None => rows.push(vec![name, cell]),
        }
    }
    sections.push(("HIT RATIO BY SIZE, SIMULATED", Vec::new(), rows));
    let mut lines = vec![format!(
        "{} of the requests can be hit at most: the others are the first for their object, or come after its lifetime.",
        share(advice.most)
    )];
    for goal in &advice.sizes {
        lines.push(match goal.memory {
            Some(memory) => {
                format!(
                    "{} of the requests: {} with {}",
                    share(goal.hit_ratio),
                    size(memory),
                    advice.best
                )
            }
            None => format!("{} of the requests: no size is enough", share(goal.hit_ratio)),
        });
        if let Some(split) = &goal.split {
            let ratios = &split.outcome.ratios;
            lines.push(format!(
                "Or {} of memory over a disk of {}: {} of the requests, {} of the bytes, {:.3} bytes written for each byte \
                 requested. It fills no faster than its `daily_writes`, here three times its size.",
                size(split.memory as f64),
                size(split.disk as f64),
                share(ratios.objects),
                share(ratios.bytes),
                split.outcome.disk_writes
            ));
        }
    }
    sections.push(("ADVICE", lines, Vec::new()));
    sections
}

fn page(advice: &Advice) -> String {
    let mut page = Page::new(&format!("How large a cache for {}", advice.trace.file));
    for line in advice.trace.words().lines() {
        page.text(line);
    }
    for (title, lines, rows) in sections(advice) {
        page.heading(title);
        for line in &lines {
            page.text(line);
        }
        if !rows.is_empty() {
            page.table(&rows);
        }
    }
    for (title, pick) in PICKS {
        let lines = Run::over_size(&advice.curve, pick);
        if let Some(svg) = plot(&format!("{title} over size"), Axis::Size, &lines) {
            page.plot(&svg);
        }
    }
    page.end()
}
