//! Hit rate of the cache node's policies beside others, on traces that are the same on every run.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark prints, measures time and writes files"
)]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use benches::cdn::{CLASSES, Class};
use benches::contest::{self, Contestant};
use benches::replay::{SIZES, Workload};
use benches::report::{self, Row};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Hit rate of the cache node's policies beside others.
#[derive(Debug, Parser)]
#[command(name = "hit_rate")]
struct Cli {
    /// Only these classes of content, separated by commas.
    #[arg(long, value_delimiter = ',')]
    class: Vec<String>,
    /// Only these policies, separated by commas.
    #[arg(long, value_delimiter = ',')]
    policy: Vec<String>,
    /// Only these cache sizes, in per cent of the footprint, separated by commas.
    #[arg(long, value_delimiter = ',')]
    size: Vec<f64>,
    /// A sixth of the objects.
    #[arg(long)]
    quick: bool,
    /// Where the JSON and the SVG are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let classes = match cli.class.is_empty() {
        true => CLASSES.to_vec(),
        false => cli
            .class
            .iter()
            .map(|name| Class::named(name).with_context(|| format!("there is no class {name:?}")))
            .collect::<anyhow::Result<_>>()?,
    };
    let contestants = match cli.policy.is_empty() {
        true => contest::ALL.to_vec(),
        false => cli
            .policy
            .iter()
            .map(|name| {
                Contestant::named(name).with_context(|| format!("there is no policy {name:?}"))
            })
            .collect::<anyhow::Result<_>>()?,
    };
    let sizes = match cli.size.is_empty() {
        true => SIZES.to_vec(),
        false => cli.size.iter().map(|percent| (percent * 10.0).round() as u64).collect(),
    };
    let bar = ProgressBar::new((classes.len() * sizes.len() * contestants.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{msg:36} {bar:40} {percent:>3} % {eta:>5} left")?);
    let mut rows = Vec::new();
    for class in classes {
        bar.set_message(format!("{}: make", class.name));
        let objects = if cli.quick { class.objects / 6 } else { class.objects };
        let workload = Workload::new(class.name, &class.sample(objects, 0).requests);
        for size in &sizes {
            for contestant in &contestants {
                bar.set_message(format!(
                    "{} {} % {}",
                    class.name,
                    *size as f64 / 10.0,
                    contestant.name
                ));
                let capacity = workload.capacity(*size);
                let mut cache = contestant.cache(capacity, &workload);
                let started = Instant::now();
                let count = workload.replay(&mut *cache);
                let ns = started.elapsed().as_nanos() as f64 / workload.items.len() as f64;
                let trace = workload.name.clone();
                rows.push(Row { trace, size: *size, capacity, policy: contestant.name, count, ns });
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    println!(
        "object/byte hit ratio by cache size in % of the footprint\n\n{}",
        report::table(&rows)
    );

    let out = &cli.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let file = out.join("hit_rate.json");
    std::fs::write(&file, format!("{:#}\n", serde_json::json!({ "rows": rows })))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let plot = out.join("hit_rate.svg");
    report::plot(&rows, &plot)?;
    println!("written: {} and {}", file.display(), plot.display());
    Ok(())
}
