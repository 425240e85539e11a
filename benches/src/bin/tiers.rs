//! Edges over parents: what the origin is spared.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark prints and writes files"
)]

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use benches::cdn::Class;
use benches::figures::{self, Goal};
use benches::replay::Workload;
use benches::tiers::{Choice, Event, Outcome, Setup, run};
use clap::Parser;
use edge_cache::store::policy::Kind;

/// Edges over parents: what the origin is spared.
///
/// Eight edges of 2 % of the footprint each, over four parents that have 20 % together, with the cache node's tables and its
/// choice of a parent. Exit code 1: a goal is missed by half a point or more.
#[derive(Debug, Parser)]
#[command(name = "tiers")]
struct Cli {
    /// A tenth of the objects. Goals are for full traces: none is checked.
    #[arg(long)]
    quick: bool,
    /// Where the table and the JSON are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

const BASE: Setup = Setup {
    edges: 8,
    edge: 20,
    edge_policy: Kind::SizeAware,
    parents: 4,
    parent: 200,
    parent_policy: Kind::S3Fifo,
    choice: Choice::Hashed,
    event: Event::None,
};
/// A parent's default over a disk is another policy than without.
const DISKS: Setup = Setup { parent_policy: Kind::SizeAware, ..BASE };
const LRU: Setup = Setup { edge_policy: Kind::Lru, parent_policy: Kind::Lru, ..BASE };

const SETUPS: [(&str, Setup); 11] = [
    ("edges only, lru", Setup { choice: Choice::None, ..LRU }),
    ("any parent, lru", Setup { choice: Choice::Any, ..LRU }),
    ("hashed parents, lru", LRU),
    ("edges only", Setup { choice: Choice::None, ..BASE }),
    ("any parent", Setup { choice: Choice::Any, ..BASE }),
    ("hashed parents", BASE),
    ("a parent is added", Setup { event: Event::Added, ..BASE }),
    ("a parent is removed", Setup { event: Event::Removed, ..BASE }),
    ("a parent restarts, cold", Setup { event: Event::RestartedCold, ..BASE }),
    ("with disks: hashed parents", Setup { event: Event::NoneWithDisk, ..DISKS }),
    ("with disks: a parent restarts", Setup { event: Event::RestartedWithDisk, ..DISKS }),
];

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut results: Vec<(&str, &str, Outcome)> = Vec::new();
    for name in ["web-us", "images"] {
        let class = Class::named(name).context("a class is missing")?;
        let objects = if cli.quick { class.objects / 10 } else { class.objects };
        let workload = Workload::new(name, &class.sample(objects, 0).requests);
        for (what, setup) in SETUPS {
            results.push((name, what, run(&setup, &workload)?));
        }
    }
    let mut text = String::from(
        "Share of requests/bytes that the origin is spared; the busiest parent's requests beside the mean; share of\n\
         requests that the origin sees in the 0.5 % of the trace after the middle, where something happens.\n\n",
    );
    for (class, what, outcome) in &results {
        let ratios = outcome.count.ratios();
        let _ = writeln!(
            text,
            "{class:<8}{what:<32}{:>7.3}/{:.3}{:>8.3}{:>8.3}",
            ratios.object, ratios.byte, outcome.load, outcome.origin_after
        );
    }
    let ours =
        results.iter().find(|(class, what, _)| *class == "web-us" && *what == "hashed parents");
    let ratios = ours.context("the goals' setup is missing")?.2.count.ratios();
    let goal = |what, goal, measured| Goal { what, goal, at_most: false, measured };
    let goals = [
        goal("two tiers: requests kept from the origin", 0.868, ratios.object),
        goal("two tiers: bytes kept from the origin", 0.860, ratios.byte),
    ];
    if !cli.quick {
        let _ = write!(text, "\n{}", figures::goals(&goals));
    }
    println!("{text}");
    std::fs::create_dir_all(&cli.out)?;
    std::fs::write(cli.out.join("tiers.txt"), &text)?;
    let json = serde_json::to_value(&results)?;
    std::fs::write(cli.out.join("tiers.json"), format!("{json:#}\n"))?;
    if cli.quick || !goals.iter().any(Goal::is_missed) {
        println!("ok");
        return Ok(());
    }
    println!("a goal is missed");
    std::process::exit(1);
}
