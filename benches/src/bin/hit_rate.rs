//! Hit rate of the cache node's store beside exact LRU and FIFO, on streams that are the same on every run.
//!
//! Prints a table, writes `target/bench/hit_rate.json` and `.svg`. The last line is `ok`, or what is below its goal.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark prints and writes files"
)]

use std::path::PathBuf;

use anyhow::Context as _;
use benches::replay::{Policy, Row, SIZES, Workload};
use benches::report;
use benches::trace::MIXES;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Hit rate of the store beside exact LRU and FIFO.
///
/// Replays Zipf, one-hit-wonder and churn mixes with fixed seeds at cache sizes of 0.1, 1, 3, 10 and 30 % of their
/// footprint. LRU and FIFO give the same numbers on every run; the store's own upkeep goes by the clock, so its numbers
/// may differ in the third digit. Exit code 1: something is below its goal.
#[derive(Debug, Parser)]
#[command(name = "hit_rate")]
struct Cli {
    /// A tenth of the requests: seconds instead of minutes.
    #[arg(long)]
    quick: bool,
    /// Where the JSON and the SVG are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let (requests, ranks) = if cli.quick { (200_000, 30_000) } else { (2_000_000, 300_000) };
    let replays = MIXES.len() * SIZES.len() * Policy::ALL.len();
    let bar = ProgressBar::new((replays * requests) as u64);
    bar.set_style(ProgressStyle::with_template("{msg:24} {bar:40} {percent:>3} % {eta:>5} left")?);
    let mut rows = Vec::new();
    for mix in MIXES {
        bar.set_message(format!("{}: make", mix.name));
        let workload = Workload::new(mix, &mix.trace(requests, ranks))?;
        for size in SIZES {
            for policy in Policy::ALL {
                bar.set_message(format!("{} {} % {}", mix.name, size as f64 / 10.0, policy.name()));
                let ratios = workload.replay(policy, size, |done| bar.inc(done));
                let capacity = workload.capacity(size);
                rows.push(Row { mix: mix.name, size, capacity, policy, ratios });
            }
        }
    }
    bar.finish_and_clear();
    println!("{}", report::table(&rows));

    let out = &cli.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let json = format!("{:#}\n", report::json(&rows, requests, cli.quick));
    let file = out.join("hit_rate.json");
    std::fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    let plot = out.join("hit_rate.svg");
    report::plot(&rows, &plot)?;
    println!("written: {} and {}", file.display(), plot.display());

    println!("goal: at 0.1 and 1 % of the footprint no fewer object hits than exact LRU");
    let below = report::below_goal(&rows);
    if below.is_empty() {
        println!("ok");
        return Ok(());
    }
    println!("below goal: {}", below.join("; "));
    std::process::exit(1);
}
