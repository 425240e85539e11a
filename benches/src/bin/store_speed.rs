//! How long the memory tier of the cache node takes to answer, with evictions going on: by policy, on one thread and two,
//! beside quick_cache and moka; and what an entry of its tables takes.
//!
//! Each request is measured alone, see [`benches::meter`]. A loop that asks nothing, measured the same way, shows what the
//! machine and the clock do.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads clocks, starts threads, prints and writes files"
)]

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use benches::meter::Meter;
use benches::random::{Random, mix};
use benches::stored::object;
use clap::Parser;
use edge_cache::semantics::vary::VariantKey;
use edge_cache::store::memory::Settings;
use edge_cache::store::policy::{self, Kind, Table};
use edge_cache::store::{Memory, Object, ObjectKey};
use serde_json::json;
use shared::config::StorePolicy;

/// Objects that are asked for.
const OBJECTS: usize = 100_000;
/// What the tier may take: about a tenth of what all objects weigh.
const CAPACITY: u64 = 1 << 30;
/// The longest body: a segment.
const SEGMENT: u64 = 1 << 20;
/// Zipf's exponent.
const ALPHA: f64 = 0.9;
/// Quantiles in thousandths of bytes, as those of the web: the half is below 12 KB, and segments are cut.
const SIZES: [(u64, u64); 7] = [
    (0, 200),
    (250, 3_000),
    (500, 12_000),
    (750, 50_000),
    (900, 200_000),
    (960, SEGMENT),
    (1000, SEGMENT),
];

/// How long the memory tier takes to answer.
///
/// Exit code 1: something is above its goal.
#[derive(Debug, Parser)]
#[command(name = "store_speed")]
struct Cli {
    /// An eighth of the requests.
    #[arg(long)]
    quick: bool,
    /// Where the JSON is written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// One of what is measured, without what an entry takes.
    #[arg(long, value_parser = Subject::NAMES)]
    only: Option<String>,
    /// Only what an entry takes under this policy, in a process whose memory is nothing else.
    #[arg(long, hide = true)]
    entry: Option<String>,
}

/// What is measured.
enum Subject {
    Nothing,
    Ours(Box<Memory>),
    Quick(Box<quick_cache::sync::Cache<ObjectKey, Arc<Object>, Weigher>>),
}

#[derive(Clone)]
struct Weigher;

impl quick_cache::Weighter<ObjectKey, Arc<Object>> for Weigher {
    fn weight(&self, _: &ObjectKey, object: &Arc<Object>) -> u64 {
        object.weight()
    }
}

impl Subject {
    const NAMES: [&str; 6] = ["(nothing)", "size-aware", "s3-fifo", "lru", "moka", "quick_cache"];

    fn new(name: &str) -> Self {
        let policy = match name {
            "size-aware" => StorePolicy::SizeAware,
            "s3-fifo" => StorePolicy::S3Fifo,
            "lru" => StorePolicy::Lru,
            "moka" => StorePolicy::Moka,
            "quick_cache" => {
                let cache = quick_cache::sync::Cache::with_weighter(OBJECTS / 5, CAPACITY, Weigher);
                return Self::Quick(Box::new(cache));
            }
            _ => return Self::Nothing,
        };
        let settings = Settings { policy, seed: 7, ..Settings::new(CAPACITY, SEGMENT) };
        Self::Ours(Box::new(Memory::new(settings)))
    }

    fn get(&self, place: ObjectKey) -> Option<Arc<Object>> {
        match self {
            Self::Nothing => None,
            Self::Ours(memory) => memory.get(place),
            Self::Quick(cache) => cache.get(&place),
        }
    }

    fn insert(&self, object: Arc<Object>) {
        match self {
            Self::Nothing => {}
            Self::Ours(memory) => {
                memory.insert(object);
            }
            Self::Quick(cache) => cache.insert(object.place(), object),
        }
    }
}

/// Durations in nanoseconds, in buckets of 3 % and less.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Histogram {
    const FINE: u32 = 5;

    fn new() -> Self {
        Self { counts: vec![0; 64 << Self::FINE], total: 0, most: 0 }
    }

    fn add(&mut self, nanos: u64) {
        let exponent = (nanos | 1).ilog2().saturating_sub(Self::FINE);
        let bucket = (exponent << Self::FINE) as usize + (nanos >> exponent) as usize;
        self.counts[bucket] += 1;
        self.total += 1;
        self.most = self.most.max(nanos);
    }

    fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, other)| *own += other);
        self.total += other.total;
        self.most = self.most.max(other.most);
    }

    /// The duration that so many of ten thousand do not exceed.
    fn at(&self, share: u64) -> u64 {
        let wanted = (self.total * share).div_ceil(10_000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                let bucket = bucket as u64;
                let exponent = (bucket >> Self::FINE).saturating_sub(1);
                return ((bucket - (exponent << Self::FINE)) + 1) << exponent;
            }
        }
        0
    }
}

/// What one run has shown.
struct Shown {
    hits: Histogram,
    /// All requests, and what was put there after a miss, by the clock on the wall.
    wall: Histogram,
    /// The same without the time in which the thread did not run.
    own: Histogram,
}

impl Shown {
    fn new() -> Self {
        Self { hits: Histogram::new(), wall: Histogram::new(), own: Histogram::new() }
    }
}

fn place(id: u32) -> ObjectKey {
    ObjectKey {
        key: u128::from(mix(u64::from(id))) << 64 | u128::from(id),
        variant: VariantKey::NONE,
    }
}

fn size(id: u32) -> u64 {
    let quantile = mix(u64::from(id) ^ 0x517e) % 1000;
    let above = SIZES.iter().position(|(q, _)| *q > quantile).unwrap_or(SIZES.len() - 1);
    let ((q0, b0), (q1, b1)) = (SIZES[above - 1], SIZES[above]);
    b0 + (b1 - b0) * (quantile - q0) / (q1 - q0)
}

/// Requests by Zipf's law.
fn trace(requests: usize, seed: u64) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=OBJECTS)
        .map(|rank| {
            sum += (rank as f64).powf(-ALPHA);
            sum
        })
        .collect();
    let mut random = Random::new(seed);
    let mut draw = || {
        let point = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        sums.partition_point(|other| *other <= point).min(OBJECTS - 1) as u32
    };
    (0..requests).map(|_| draw()).collect()
}

/// The objects by their places: made before, for making them is no work of the store. What is put there is a copy, so that
/// what is evicted is freed.
struct Originals(Vec<Object>);

impl Originals {
    fn new() -> anyhow::Result<Self> {
        (0..OBJECTS as u32)
            .map(|id| object(u64::from(id), size(id)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn run(subject: &Subject, originals: &Originals, trace: &[u32]) -> Shown {
    let mut shown = Shown::new();
    let mut meter = Meter::default();
    let counted_from = trace.len() / 4;
    for (at, id) in trace.iter().enumerate() {
        let original = &originals.0[*id as usize];
        let place = original.place();
        let (found, wall, own) = meter.measure(|| black_box(subject.get(black_box(place))));
        let mut note = |is_hit, wall, own| {
            if at >= counted_from {
                shown.wall.add(wall);
                shown.own.add(own);
                if is_hit {
                    shown.hits.add(own);
                }
            }
        };
        note(found.is_some() || matches!(subject, Subject::Nothing), wall, own);
        if found.is_none() {
            let copy = Arc::new(original.clone());
            let ((), wall, own) = meter.measure(|| subject.insert(copy));
            note(false, wall, own);
        }
    }
    shown
}

/// Resident memory of an entry of a table under a policy, key and value of 16 bytes each included.
fn entry_bytes(kind: Kind) -> anyhow::Result<u64> {
    const ENTRIES: u64 = 1 << 18;
    let before = resident()?;
    let settings = policy::Settings { kind, capacity: ENTRIES * 100, over_disk: false, seed: 1 };
    let mut table: Table<u128, (u64, u64)> = Table::new(settings);
    let mut gone = Vec::new();
    // Three times as many as there is room for: those that are remembered after they have gone take memory, too.
    for id in 0..ENTRIES as u32 * 3 {
        table.insert(place(id).key, (1, 2), 100, &mut gone);
        gone.clear();
    }
    let each = resident()?.saturating_sub(before) / table.len() as u64;
    drop(table);
    Ok(each)
}

fn resident() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).context("/proc/self/statm has another form")?;
    Ok(pages.parse::<u64>()? * 4096)
}

fn time(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(name) = &cli.entry {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        println!("{}", entry_bytes(kind.context("no such policy")?)?);
        return Ok(());
    }
    let mut below = Vec::new();
    if cli.only.is_none() {
        println!("an entry of a table, key and value of 32 bytes included");
    }
    let mut entries = serde_json::Map::new();
    for kind in Kind::ALL.into_iter().filter(|_| cli.only.is_none()) {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args(["--entry", kind.name()]).output()?;
        let bytes: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
        println!("  {:12} {bytes:>5} bytes", kind.name());
        entries.insert(kind.name().to_owned(), bytes.into());
        if bytes > 110 {
            below.push(format!("{}: {bytes} bytes an entry, goal 110", kind.name()));
        }
    }

    let requests = if cli.quick { 500_000 } else { 4_000_000 };
    let originals = Originals::new()?;
    let traces = [trace(requests, 1), trace(requests, 2)];
    println!(
        "\n{:12} threads   hits: p50      p99   p99.99 | all: stalls    most own   most wall",
        ""
    );
    let mut rows = Vec::new();
    let wanted = |name: &&str| cli.only.as_ref().is_none_or(|only| only == name);
    for name in Subject::NAMES.into_iter().filter(wanted) {
        for threads in [1, 2] {
            let subject = Subject::new(name);
            let mut all = Shown::new();
            let runs: Vec<Shown> = std::thread::scope(|scope| {
                let (subject, originals) = (&subject, &originals);
                let start = |trace: &'_ Vec<u32>| {
                    let trace = trace.clone();
                    scope.spawn(move || run(subject, originals, &trace))
                };
                let started: Vec<_> = traces[..threads].iter().map(start).collect();
                started.into_iter().filter_map(|thread| thread.join().ok()).collect()
            });
            anyhow::ensure!(runs.len() == threads, "{name}: a thread has failed");
            for run in &runs {
                all.hits.merge(&run.hits);
                all.wall.merge(&run.wall);
                all.own.merge(&run.own);
            }
            let [p50, p99, p9999] = [5_000, 9_900, 9_999].map(|share| all.hits.at(share));
            let hit_ratio = all.hits.total as f64 / (traces[0].len() * 3 / 4 * threads) as f64;
            let stalls: u64 = all.own.counts[bucket_of(200_000)..].iter().sum();
            println!(
                "{name:12} {threads:>7} {:>11} {:>8} {:>8} | {stalls:>11} {:>11} {:>11}   hits {hit_ratio:.3}",
                time(p50),
                time(p99),
                time(p9999),
                time(all.own.most),
                time(all.wall.most),
            );
            rows.push(json!({
                "name": name, "threads": threads, "hit_ratio": hit_ratio,
                "hit_ns": { "p50": p50, "p99": p99, "p99.99": p9999 },
                "stalls": stalls, "most_own_ns": all.own.most, "most_wall_ns": all.wall.most,
            }));
            if !matches!(name, "size-aware" | "s3-fifo" | "lru") {
                continue;
            }
            let goals = [("p50", p50, 150), ("p99", p99, 2_000), ("p99.99", p9999, 100_000)];
            for (what, got, goal) in goals {
                if got > goal {
                    below.push(format!(
                        "{name}, {threads}: {what} {}, goal {}",
                        time(got),
                        time(goal)
                    ));
                }
            }
            if all.own.most > 200_000 {
                below.push(format!(
                    "{name}, {threads}: a stall of {}, goal 200 µs",
                    time(all.own.most)
                ));
            }
        }
    }

    std::fs::create_dir_all(&cli.out)
        .with_context(|| format!("cannot make {}", cli.out.display()))?;
    let file = cli.out.join("store_speed.json");
    let json =
        json!({ "requests": requests, "entry_bytes": entries, "rows": rows, "below_goal": below });
    std::fs::write(&file, format!("{json:#}\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nwritten: {}", file.display());
    println!(
        "goal: hits p50 150 ns, p99 2 µs, p99.99 100 µs, no request over 200 µs, 110 bytes an entry"
    );
    if below.is_empty() {
        println!("ok");
        return Ok(());
    }
    println!("below goal: {}", below.join("; "));
    std::process::exit(1);
}

/// The first bucket whose durations are longer.
fn bucket_of(nanos: u64) -> usize {
    let exponent = nanos.ilog2() - Histogram::FINE;
    (exponent << Histogram::FINE) as usize + (nanos >> exponent) as usize + 1
}
