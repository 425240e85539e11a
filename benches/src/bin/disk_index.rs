//! The index of a disk alone: how soon it is ready after a clean stop and after a crash, what an entry takes in memory and
//! how long a look takes.
//!
//! The file is sparse: it has the segments' headers and footers of so many records, and no bodies. So the figures are those of
//! a disk of many hundred gigabytes where there is none; what a slow disk adds to read the footers (40 bytes a record) or
//! the copy (16) is not in them.

#![expect(clippy::disallowed_methods, reason = "a benchmark leaves the cores to what it measures")]

use std::fs::OpenOptions;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::meter::Meter;
use benches::random::Random;
use clap::Parser;
use edge_cache::io::disk::{Device, Disks, FileDevice, Opened, Start, Stats};
use edge_cache::semantics::vary::VariantKey;
use edge_cache::store::ObjectKey;
use edge_cache::store::disk::format::{
    Role, Superblock, encode_footer, encode_header, footer_bytes,
};
use edge_cache::store::disk::geometry::SUPERBLOCKS;
use edge_cache::store::disk::index::{Entry as IndexEntry, Index, Location};
use edge_cache::store::disk::log::Entry;
use edge_cache::store::disk::{Geometry, first_sequence, place_hash};
use shared::config::Mismatch;

const KEY_RULES: u64 = 1;
const SEGMENT: u32 = 64 << 20;
/// Units of a record: 16 KiB, and a little less so that a footer has room.
const UNITS: u32 = 127;
const PER_SEGMENT: u32 = 4096;
/// An insertion that takes so many nanoseconds of its own would be felt.
const STALL: u64 = 200_000;

/// How soon a disk's index is ready, what it takes, how fast it is.
#[derive(Parser)]
struct Arguments {
    /// Records on the disk.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Where the sparse file is made; it is removed afterwards. By default the folder for temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Half a million records, and no goals.
    #[arg(long)]
    quick: bool,
}

fn place(n: u64) -> ObjectKey {
    ObjectKey { key: u128::from(n) << 32 | 5, variant: VariantKey::NONE }
}

/// The file of a disk with so many records, as a crash would leave it.
fn make(path: &Path, records: u64) -> Result<Geometry> {
    let segments = records.div_ceil(u64::from(PER_SEGMENT)) + 4;
    let size = (segments + 2) * u64::from(SEGMENT) * 96 / 95;
    let geometry = Geometry::with_segment(size, SEGMENT).context("no geometry")?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    file.set_len(geometry.size)?;
    let salt = 0x5eed_0fd1_5c01;
    let superblock = Superblock {
        uuid: 7,
        salt,
        run: 1,
        key_rules: KEY_RULES,
        size: geometry.size,
        segment: geometry.segment,
        is_clean: false,
        void: None,
    };
    for at in SUPERBLOCKS {
        file.write_all_at(&superblock.encode(), at)?;
    }
    let (mut n, mut segment) = (0, 0);
    while n < records {
        let sequence = first_sequence(1) + u64::from(segment) + 1;
        let count = (records - n).min(u64::from(PER_SEGMENT)) as u32;
        let entry = |k: u32| Entry {
            hash: place_hash(place(n + u64::from(k)), salt),
            sequence: first_sequence(1) + n + u64::from(k),
            epoch: sequence,
            unit: 1 + k * UNITS,
            units: UNITS,
            role: Role::Content,
            flags: 0,
        };
        let entries: Vec<Entry> = (0..count).map(entry).collect();
        let end = geometry.start(segment + 1);
        file.write_all_at(
            &encode_footer(&entries, sequence, salt),
            end - footer_bytes(entries.len()) as u64,
        )?;
        file.write_all_at(&encode_header(sequence, segment, salt), geometry.start(segment))?;
        n += u64::from(count);
        segment += 1;
    }
    file.sync_all()?;
    Ok(geometry)
}

/// The kernel forgets what it has of the file, as far as it can be asked to.
fn cool(path: &Path) -> bool {
    let from = format!("if={}", path.display());
    let mut dd = Command::new("dd");
    dd.args([&from, "iflag=nocache", "count=0"]).stderr(Stdio::null());
    matches!(dd.status(), Ok(status) if status.success())
}

/// Seconds of processors' time that this process has had.
fn processor() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has another form")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / 100.0)
}

fn open(path: &Path, geometry: Geometry) -> Result<(Disks, Stats, Duration)> {
    let began = Instant::now();
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let device: Arc<dyn Device> = Arc::new(FileDevice::new(file));
    let path = path.to_owned();
    let opened = Opened::new(path, device, geometry, KEY_RULES, Mismatch::Refuse)?;
    let disks = Disks::start(vec![(opened, None)])?;
    while disks.is_recovering() {
        // A lookup meanwhile is a miss, at once.
        black_box(disks.contains(place(1)));
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed();
    let stats = disks.stats().pop().context("no disk")?;
    Ok((disks, stats, took))
}

struct Figures {
    rows: Vec<(String, f64, Option<f64>)>,
}

impl Figures {
    fn add(&mut self, name: &str, value: f64, goal: Option<f64>) {
        self.rows.push((name.to_owned(), value, goal));
    }

    #[expect(clippy::print_stdout, reason = "the report is for a terminal")]
    fn print(&self) -> bool {
        let mut held = true;
        for (name, value, goal) in &self.rows {
            let missed = goal.is_some_and(|goal| *value > goal);
            held &= !missed;
            let goal = goal.map_or_else(String::new, |goal| format!("at most {goal}"));
            println!("{name:<58} {value:>10.3}  {goal}{}", if missed { "  MISSED" } else { "" });
        }
        println!("{}", if held { "ok" } else { "below its goal" });
        held
    }
}

fn starts(figures: &mut Figures, path: &Path, records: u64, goals: bool) -> Result<()> {
    let goal = |seconds: f64| goals.then_some(seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let geometry = make(path, records)?;
    let cold = cool(path);
    for (kept, what) in [(!cold, "the file not in memory"), (true, "the file in memory")] {
        if kept || cold {
            let before = processor()?;
            let (disks, stats, took) = open(path, geometry)?;
            let busy = processor()? - before;
            ensure!(matches!(stats.start, Some((Start::Segments, _))), "{stats:?}");
            ensure!(stats.objects == records, "{} records", stats.objects);
            let name = format!("after a crash, ready in s ({what})");
            figures.add(&name, took.as_secs_f64(), goal(5.0));
            figures.add("  processors' time of it, in s", busy, None);
            if kept {
                figures.add(
                    "bytes of memory an entry",
                    stats.index_bytes as f64 / records as f64,
                    Some(40.0),
                );
                look(figures, &disks, records);
                let began = Instant::now();
                runtime.block_on(disks.close());
                figures.add("clean stop in s", began.elapsed().as_secs_f64(), None);
            }
        }
    }
    let cold = cool(path);
    let what = if cold { "the file not in memory" } else { "the file in memory" };
    let (disks, stats, took) = open(path, geometry)?;
    ensure!(matches!(stats.start, Some((Start::Copy, _))), "{stats:?}");
    ensure!(stats.objects == records, "{} records", stats.objects);
    let name = format!("after a clean stop, ready in s ({what})");
    figures.add(&name, took.as_secs_f64(), if cold { None } else { goal(0.5) });
    runtime.block_on(disks.close());
    let (disks, stats, took) = open(path, geometry)?;
    ensure!(stats.objects == records, "{} records", stats.objects);
    let name = "after a clean stop, ready in s (the file in memory)";
    figures.add(name, took.as_secs_f64(), goal(0.5));
    runtime.block_on(disks.close());
    Ok(())
}

fn look(figures: &mut Figures, disks: &Disks, records: u64) {
    let mut random = Random::new(1);
    const LOOKS: u64 = 2_000_000;
    for (what, offset) in [("there", 0), ("not there", records)] {
        let places: Vec<_> = (0..LOOKS).map(|_| place(offset + random.below(records))).collect();
        let began = Instant::now();
        let found = places.iter().filter(|place| disks.contains(**place)).count();
        let took = began.elapsed().as_nanos() as f64 / LOOKS as f64;
        assert_eq!(found as u64, if offset == 0 { LOOKS } else { 0 });
        figures.add(&format!("a look for what is {what}, in ns"), took, None);
    }
}

/// Entries one by one, as a disk fills: the longest of them is one that makes a shard grow.
fn fill(figures: &mut Figures, records: u64) {
    let index = Index::new(records);
    let mut random = Random::new(2);
    let mut meter = Meter::default();
    let (mut longest, mut over) = (0, 0);
    let began = Instant::now();
    for n in 0..records {
        let at =
            Location { segment: (n >> 12) as u32, unit: (n & 4095) as u32 * UNITS, units: UNITS };
        let hash = random.next().max(1);
        let (_, _, own) = meter.measure(|| index.insert(hash, IndexEntry::new(at)));
        longest = longest.max(own);
        over += u64::from(own > STALL);
    }
    let mean = began.elapsed().as_nanos() as f64 / records as f64;
    figures.add("an entry more, in ns", mean, None);
    figures.add("the longest of them, in µs", longest as f64 / 1e3, None);
    figures.add("of a million, longer than 200 µs", over as f64 * 1e6 / records as f64, Some(10.0));
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let records = if arguments.quick { 500_000 } else { arguments.records };
    let folder = match arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let mut figures = Figures { rows: Vec::new() };
    figures.add("records", records as f64, None);
    starts(&mut figures, &folder.path().join("disk"), records, !arguments.quick)?;
    fill(&mut figures, records);
    Ok(if figures.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
