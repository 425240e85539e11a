//! Hit rate of the cache node beside others, on traces that are the same on every run.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark prints, measures time and writes files"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use benches::cdn::{CLASSES, Class};
use benches::contest::{self, Contestant};
use benches::figures::{self, Figures, GOAL_CLASS, Goal};
use benches::policy::product::Node;
use benches::replay::{SIZES, Workload};
use benches::report::{self, Row, find};
use benches::trace;
use clap::Parser;
use edge_cache::predict::sim::DiskSetup;
use edge_cache::store::policy::Kind;
use indicatif::{ProgressBar, ProgressStyle};

/// Hit rate of the cache node's policies beside others.
///
/// Replays request streams like those of a CDN (web, images, video, downloads), or a log of yours, at cache sizes from 0.1 to
/// 30 % of their footprint. A quarter of each warms the cache up and is not counted. All but moka give the same figures on
/// every run and machine. Exit code 1: a goal is missed by half a point or more, or a figure has fallen by more than 0.3 points behind the committed
/// ones.
#[derive(Debug, Parser)]
#[command(name = "hit_rate")]
struct Cli {
    /// A tenth of the objects: minutes instead of half an hour. Goals are for full traces: none is checked.
    #[arg(long)]
    quick: bool,
    /// A log to replay in place of the classes: combined, JSON lines, or a table of time, key and size; `-`: standard input.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Only these classes of content, separated by commas.
    #[arg(long, value_delimiter = ',')]
    class: Vec<String>,
    /// Only these policies, separated by commas.
    #[arg(long, value_delimiter = ',')]
    policy: Vec<String>,
    /// Only these cache sizes, in per cent of the footprint, separated by commas.
    #[arg(long, value_delimiter = ',')]
    size: Vec<f64>,
    /// Where the table, the JSON and the SVG are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The committed figures to hold the run against.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Commits the figures, with table and plot, to this folder.
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    record: Option<PathBuf>,
}

/// Counts what is allocated: what the caches take per object.
struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
// SAFETY: every call goes on to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system's condition.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let contestants: Vec<Contestant> = match cli.policy.as_slice() {
        [] => contest::ALL.to_vec(),
        names => named(names, "policy", Contestant::named)?,
    };
    let sizes: Vec<u64> = match cli.size.as_slice() {
        [] => SIZES.to_vec(),
        sizes => sizes.iter().map(|percent| (percent * 10.0).round() as u64).collect(),
    };
    let sources = sources(&cli)?;
    let steps = sources.len() * (sizes.len() * contestants.len() + 1) + 3;
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(ProgressStyle::with_template("{msg:40} {bar:40} {percent:>3} % {eta:>5} left")?);
    let mut rows = Vec::new();
    for source in &sources {
        bar.set_message(format!("{}: make", source.name()));
        let workload = source.workload()?;
        for size in &sizes {
            for contestant in &contestants {
                let percent = *size as f64 / 10.0;
                bar.set_message(format!("{} {percent} % {}", workload.name, contestant.name));
                rows.push(replay(contestant, *size, &workload));
                bar.inc(1);
            }
        }
        bar.set_message(format!("{} with a disk", workload.name));
        rows.extend(node(&workload));
        bar.inc(1);
        if let Source::Class(class, objects) = source
            && class.name == GOAL_CLASS
        {
            bar.set_message(format!("{} with a crawl", workload.name));
            let crawl = Workload::new("web-us + crawl", &class.sample(*objects, 200).requests);
            rows.extend(crawled(&workload, &crawl, &contestants));
            bar.inc(3);
        }
    }
    bar.finish_and_clear();
    let goals = goals(&rows);
    let show_goals = !cli.quick && !goals.is_empty();
    let mut text = format!(
        "Object/byte hit ratio by cache size in % of the footprint.\n\n{}",
        report::table(&rows)
    );
    if show_goals {
        text += &format!("{}\n{}", figures::anchors(&rows), figures::goals(&goals));
    }
    println!("{text}");
    write(&cli.out, &text, &rows)?;
    if let Some(folder) = &cli.record {
        record(folder, cli.quick, &text, &rows)?;
    }

    let mut wrong: Vec<String> = Vec::new();
    if show_goals {
        let missed = goals.iter().filter(|goal| goal.is_missed());
        wrong.extend(
            missed
                .map(|goal| format!("{}: {:.3}, goal {:.3}", goal.what, goal.measured, goal.goal)),
        );
    }
    if let Some(file) = &cli.check {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the committed figures, {}", file.display()))?;
        let committed = serde_json::from_str(&text);
        let committed: Figures =
            committed.with_context(|| format!("{} is broken", file.display()))?;
        wrong.extend(Figures::of(&rows).behind(&committed));
    }
    if wrong.is_empty() {
        println!("ok");
        return Ok(());
    }
    println!("{}", wrong.join("\n"));
    std::process::exit(1);
}

fn named<T>(names: &[String], what: &str, find: fn(&str) -> Option<T>) -> anyhow::Result<Vec<T>> {
    let found = |name: &String| find(name).with_context(|| format!("there is no {what} {name:?}"));
    names.iter().map(found).collect()
}

/// What a node with a disk is called.
const BOTH: &str = "1 % + disk 10 %";

/// Where requests come from.
enum Source {
    Class(Class, u64),
    Log(PathBuf),
}

fn sources(cli: &Cli) -> anyhow::Result<Vec<Source>> {
    if let Some(file) = &cli.trace {
        return Ok(vec![Source::Log(file.clone())]);
    }
    let classes = match cli.class.as_slice() {
        [] => CLASSES.to_vec(),
        names => named(names, "class", Class::named)?,
    };
    let objects = |class: &Class| if cli.quick { class.objects / 10 } else { class.objects };
    Ok(classes.into_iter().map(|class| Source::Class(class, objects(&class))).collect())
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Class(class, _) => class.name.to_owned(),
            Self::Log(file) => file.display().to_string(),
        }
    }

    fn workload(&self) -> anyhow::Result<Workload> {
        let file = match self {
            Self::Class(class, objects) => {
                return Ok(Workload::new(class.name, &class.sample(*objects, 0).requests));
            }
            Self::Log(file) => file,
        };
        let (requests, reader) = trace::from_log(file)?;
        let counts = reader.counts();
        println!(
            "{}: {} lines, {} requests; left out: {} of other methods, {} of other statuses, {} passed; broken: {}",
            file.display(),
            counts.lines,
            counts.requests,
            counts.other_methods,
            counts.other_statuses,
            counts.passed,
            counts.broken
        );
        for broken in reader.broken() {
            println!("line {}: {}: {}", broken.line, broken.why, broken.text);
        }
        Ok(Workload::new("log", &requests))
    }
}

fn replay(contestant: &Contestant, size: u64, workload: &Workload) -> Row {
    let capacity = workload.capacity(size);
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut cache = contestant.cache(capacity, workload);
    let started = Instant::now();
    let count = workload.replay(&mut *cache);
    let ns = started.elapsed().as_nanos() as f64 / workload.items.len() as f64;
    let taken = ALLOCATED.load(Ordering::Relaxed).saturating_sub(before);
    let held = cache.held().filter(|held| *held > 0);
    Row {
        exact: contestant.exact,
        ns: Some(ns),
        overhead: held.map(|held| taken as f64 / held as f64),
        ..Row::new(&workload.name, size, capacity, contestant.name, count)
    }
}

/// Memory of 1 % over a disk of 10 %, on which three times its size is written a day at most, as by default.
fn node(workload: &Workload) -> Option<Row> {
    const SIZE: u64 = 10;
    let (memory, disk) = (workload.capacity(SIZE), workload.capacity(100));
    let disk = DiskSetup { size: disk, daily_writes: disk * 3 };
    let mut node = Node::over(Kind::SizeAware, memory, disk)?;
    let started = Instant::now();
    let got = workload.replay_node(&mut node);
    let ns = started.elapsed().as_nanos() as f64 / workload.items.len() as f64;
    let row = Row::new(&workload.name, SIZE, memory, BOTH, got.count);
    Some(Row { ns: Some(ns), written: Some(got.write_share()), ..row })
}

/// The same cache with a crawler passing through: what is counted are the requests of the others.
fn crawled(plain: &Workload, crawl: &Workload, contestants: &[Contestant]) -> Vec<Row> {
    let capacity = plain.capacity(10);
    let row = |contestant: &Contestant| {
        let count = crawl.replay(&mut *contestant.cache(capacity, crawl));
        let row = Row::new(&crawl.name, 10, capacity, contestant.name, count);
        Row { exact: contestant.exact, ..row }
    };
    contestants.iter().map(row).collect()
}

/// The goals that these rows say something about.
fn goals(rows: &[Row]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut goal = |what, goal, at_most, measured: Option<f64>| {
        if let Some(measured) = measured {
            goals.push(Goal { what, goal, at_most, measured });
        }
    };
    let object = |size, policy| find(rows, GOAL_CLASS, size, policy).map(|ratios| ratios.object);
    let byte = |size, policy| find(rows, GOAL_CLASS, size, policy).map(|ratios| ratios.byte);
    const OURS: &str = "size-aware";
    goal("memory 1 %: object hit ratio", 0.80, false, object(10, OURS));
    goal("memory 1 %: byte hit ratio", 0.66, false, byte(10, OURS));
    goal("memory 10 %: object hit ratio", 0.87, false, object(100, OURS));
    goal("memory 10 %: byte hit ratio", 0.80, false, byte(100, OURS));
    goal("memory 1 % + disk 10 %: object hit ratio", 0.855, false, object(10, BOTH));
    goal("memory 1 % + disk 10 %: byte hit ratio", 0.822, false, byte(10, BOTH));
    let written = rows.iter().find(|row| row.trace == GOAL_CLASS && row.policy == BOTH);
    let written = written.and_then(|row| row.written);
    goal("memory 1 % + disk 10 %: written per byte asked for", 0.08, true, written);
    let share = object(10, OURS).zip(object(10, "Belady-size")).map(|(ours, best)| ours / best);
    goal("memory 1 %: share of Belady-size", 0.94, false, share);
    let crawl = find(rows, "web-us + crawl", 10, OURS).map(|ratios| ratios.object);
    let lost = object(10, OURS).zip(crawl).map(|(without, with)| without - with);
    goal("a crawl of 20 %: object hit ratio lost", 0.01, true, lost);
    goals
}

fn write(out: &Path, text: &str, rows: &[Row]) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let file = |name: &str, content: String| {
        let file = out.join(name);
        std::fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))
    };
    file("hit.txt", text.to_owned())?;
    file("hit.json", format!("{:#}\n", serde_json::to_value(rows)?))?;
    report::plot(rows, &out.join("hit.svg"))?;
    println!("written: hit.txt, hit.json and hit.svg in {}", out.display());
    Ok(())
}

/// What later runs are held against: figures of all but moka, and of full traces the table and the plot as well.
fn record(folder: &Path, quick: bool, text: &str, rows: &[Row]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = if quick { "hit-quick" } else { "hit" };
    let figures = serde_json::to_value(Figures::of(rows))?;
    let write = |extension: &str, content: String| {
        let file = folder.join(format!("{name}.{extension}"));
        std::fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))
    };
    write("json", format!("{figures:#}\n"))?;
    if !quick {
        write("txt", text.to_owned())?;
        report::plot(rows, &folder.join("hit.svg"))?;
    }
    Ok(())
}
