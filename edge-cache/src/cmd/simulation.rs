//! What `replay` and `advise --trace` share: which nodes are simulated, what a log was, what came of a node.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use shared::io::command::{Global, USAGE, fail};
use shared::size::parse_size;

use super::configuration;
use super::replay::{Pick, duration};
use crate::io::trace::Loaded;
use crate::predict::Ratios;
use crate::predict::plot::{Line, size, time};
use crate::predict::replay::Outcome;
use crate::predict::sim::{DiskSetup, SEGMENT_SIZE, Setup, policy_of};
use crate::store::policy::Kind;
use crate::trace::workload::Footprint;
use crate::trace::{Broken, Counts, Format};

/// Which nodes are simulated.
#[derive(clap::Args)]
pub(super) struct Nodes {
    /// Sizes of the memory tier to compare, such as 256MiB,1GiB or 1%,10% of what all objects together take
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = bytes)]
    memory: Vec<Bytes>,
    /// Sizes of the disk tier to compare; 0 is none
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = bytes, requires = "memory")]
    disk: Vec<Bytes>,
    /// Policies of the memory tier to compare [default: size-aware, or the node's]
    #[arg(long, value_name = "POLICY", value_delimiter = ',')]
    policy: Vec<Policy>,
    /// Objects are good for so long, such as 10m [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// Form of the log
    #[arg(long, value_enum, default_value = "auto")]
    format: Form,
}

/// Bytes, or a share of a log's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bytes {
    Exact(u64),
    Share(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Policy {
    SizeAware,
    S3Fifo,
    Lru,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// What its first good line is
    Auto,
    /// Common or combined log format
    Combined,
    /// Lines of JSON
    Json,
    /// Time, key, size
    Csv,
}

impl Policy {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::SizeAware => Kind::SizeAware,
            Self::S3Fifo => Kind::S3Fifo,
            Self::Lru => Kind::Lru,
        }
    }
}

pub(super) fn bytes(text: &str) -> Result<Bytes, String> {
    match text.strip_suffix('%') {
        Some(number) => percent(number).map(Bytes::Share),
        None => parse_size(text).map(Bytes::Exact),
    }
}

/// A number of per cent, as a share.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim_end_matches('%').parse().ok();
    let share = number.map(|number| number / 100.0).filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is no number of per cent from 0 to 100"))
}

/// What is to be simulated, as the command line or the configuration has it.
pub(super) struct Wanted {
    memory: Vec<Bytes>,
    disk: Vec<(Bytes, Option<u64>)>,
    policy: Vec<Kind>,
    segment: u64,
    ttl: Option<Duration>,
}

impl Nodes {
    /// Whether the command line says which.
    pub(super) const fn is_named(&self) -> bool {
        !self.memory.is_empty()
    }

    pub(super) const fn format(&self) -> Option<Format> {
        match self.format {
            Form::Auto => None,
            Form::Combined => Some(Format::Combined),
            Form::Json => Some(Format::Json),
            Form::Csv => Some(Format::Csv),
        }
    }

    pub(super) const fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// The policies named, else all.
    pub(super) fn policies(&self) -> Vec<Kind> {
        match self.policy.as_slice() {
            [] => Kind::ALL.to_vec(),
            named => named.iter().map(|policy| policy.kind()).collect(),
        }
    }

    /// The disks that are named, one after the other; none if none is.
    pub(super) fn disks(&self, trace: &Summary) -> Vec<Option<DiskSetup>> {
        disks(self.disk.iter().map(|disk| (*disk, None)), trace)
    }

    /// The sizes of memory that are named.
    pub(super) fn memory(&self) -> &[Bytes] {
        &self.memory
    }

    /// What is named; where nothing is, the configuration's node. The exit code, after what is wrong was printed.
    pub(super) fn wanted(&self, global: &Global) -> Result<Wanted, u8> {
        let policy: Vec<Kind> = self.policy.iter().map(|policy| policy.kind()).collect();
        if self.is_named() {
            let policy = if policy.is_empty() { vec![Kind::SizeAware] } else { policy };
            let disk = self.disk.iter().map(|disk| (*disk, None)).collect();
            let memory = self.memory.clone();
            return Ok(Wanted { memory, disk, policy, segment: SEGMENT_SIZE, ttl: self.ttl });
        }
        if global.config_path().is_err() {
            return Err(fail("or name the sizes to compare, such as --memory 256MiB,1GiB", USAGE));
        }
        let (_, plan) = configuration(global)?;
        let edge = &plan.edge;
        let policy = match (policy_of(edge), policy.is_empty()) {
            (_, false) => policy,
            (Some(kind), true) => vec![kind],
            (None, true) => {
                let why = "the node's policy is `moka`, which cannot be simulated: compare others with --policy";
                return Err(fail(why, USAGE));
            }
        };
        let disk =
            DiskSetup::of(edge).map(|disk| (Bytes::Exact(disk.size), Some(disk.daily_writes)));
        Ok(Wanted {
            memory: vec![Bytes::Exact(edge.memory.0)],
            disk: disk.into_iter().collect(),
            policy,
            segment: edge.segment.0,
            ttl: self.ttl,
        })
    }
}

impl Bytes {
    /// For a log.
    pub(super) fn of(self, trace: &Summary) -> u64 {
        match self {
            Self::Exact(bytes) => bytes,
            Self::Share(share) => (trace.weight * share).round() as u64,
        }
    }
}

/// Disks of these sizes and daily writes, one after the other; none if there are none.
fn disks(
    named: impl Iterator<Item = (Bytes, Option<u64>)>,
    trace: &Summary,
) -> Vec<Option<DiskSetup>> {
    let mut disks: Vec<Option<DiskSetup>> = named
        .map(|(disk, daily)| {
            let size = disk.of(trace);
            let daily_writes = daily.unwrap_or_else(|| DiskSetup::daily_writes(size));
            (size > 0).then_some(DiskSetup { size, daily_writes })
        })
        .collect();
    if disks.is_empty() {
        disks.push(None);
    }
    disks
}

impl Wanted {
    /// Every combination, for this log.
    pub(super) fn setups(&self, trace: &Summary) -> Vec<Setup> {
        let disks = disks(self.disk.iter().copied(), trace);
        let mut setups = Vec::new();
        for policy in &self.policy {
            for disk in &disks {
                for memory in &self.memory {
                    let memory = memory.of(trace);
                    let (policy, disk) = (*policy, *disk);
                    let Self { segment, ttl, .. } = *self;
                    setups.push(Setup { policy, memory, disk, segment, ttl });
                }
            }
        }
        setups
    }
}

/// What a log was.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) file: String,
    format: Option<Format>,
    #[serde(flatten)]
    counts: Counts,
    /// The first broken lines.
    broken_lines: Vec<Broken>,
    /// Why the rest of it could not be read.
    cut: Option<String>,
    /// Bytes sent.
    pub(super) bytes: f64,
    /// Different objects.
    objects: f64,
    /// Their bytes, each once.
    pub(super) footprint: f64,
    /// What all of them take in memory, heads included.
    pub(super) weight: f64,
    /// From the first request to the last.
    pub(super) seconds: f64,
    /// Of the keys.
    sampled: f64,
    /// What the log itself says of its cache.
    said: Option<Ratios>,
}

impl Summary {
    pub(super) fn new(path: &Path, loaded: &Loaded) -> Self {
        let workload = &loaded.workload;
        let Footprint { objects, bytes, weight } = workload.footprint();
        let share = workload.share();
        Self {
            bytes: workload.all().bytes,
            objects: objects as f64 / share,
            footprint: bytes as f64 / share,
            weight: weight as f64 / share,
            seconds: workload.length().as_secs_f64(),
            sampled: share,
            said: workload.said().and_then(crate::predict::Tally::ratios),
            ..Self::of_reader(path, &loaded.reader, loaded.cut.clone())
        }
    }

    pub(super) fn of_reader(
        path: &Path,
        reader: &crate::trace::Reader,
        cut: Option<String>,
    ) -> Self {
        Self {
            file: path.display().to_string(),
            format: reader.format(),
            counts: reader.counts().clone(),
            broken_lines: reader.broken().to_vec(),
            cut,
            bytes: 0.0,
            objects: 0.0,
            footprint: 0.0,
            weight: 0.0,
            seconds: 0.0,
            sampled: 1.0,
            said: None,
        }
    }

    /// For people, a line each.
    pub(super) fn words(&self) -> String {
        let Counts { lines, requests, other_methods, other_statuses, passed, broken, .. } =
            self.counts;
        let mut text = format!("{}: {lines} lines, {requests} requests", self.file);
        for (count, what) in [
            (other_methods, "of other methods than GET and HEAD"),
            (other_statuses, "of statuses that no cache keeps"),
            (passed, "not for the cache by the log's own word"),
            (broken, "broken"),
        ] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text.push('\n');
        for line in &self.broken_lines {
            text += &format!("  line {}: {}: {}\n", line.line, line.why, line.text);
        }
        if broken > self.broken_lines.len() as u64 {
            text += &format!("  and {} more\n", broken - self.broken_lines.len() as u64);
        }
        if let Some(cut) = &self.cut {
            text += &format!("  it could not be read to its end: {cut}\n");
        }
        if self.objects > 0.0 {
            text += &format!(
                "{:.0} objects of {} together, {} sent in {}\n",
                self.objects,
                size(self.footprint),
                size(self.bytes),
                time(self.seconds)
            );
        }
        if self.sampled < 1.0 {
            let one_in = 1.0 / self.sampled;
            text += &format!("simulated: one of {one_in:.0} objects, in caches as much smaller\n");
        }
        if let Some(said) = &self.said {
            text += &format!(
                "its own cache, by its own word: {} of the requests, {} of the bytes\n",
                share(said.objects),
                share(said.bytes)
            );
        }
        text
    }
}

/// A simulated node, and what it would have answered.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) policy: &'static str,
    pub(super) memory: u64,
    pub(super) disk: u64,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

impl Run {
    pub(super) fn new(setup: &Setup, outcome: Outcome) -> Self {
        let disk = setup.disk.map_or(0, |disk| disk.size);
        Self { policy: setup.policy.name(), memory: setup.memory, disk, outcome }
    }

    pub(super) fn rows(runs: &[Self]) -> Vec<Vec<String>> {
        let has_disk = runs.iter().any(|run| run.disk > 0);
        let mut head = vec!["POLICY", "MEMORY"];
        if has_disk {
            head.extend(["DISK", "FROM MEMORY", "FROM DISK"]);
        }
        head.extend(["OBJECT HITS", "BYTE HITS", "ORIGIN REQUESTS", "ORIGIN BYTES"]);
        if has_disk {
            head.push("DISK WRITES");
        }
        let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
        for run in runs {
            let outcome = &run.outcome;
            let mut row = vec![run.policy.to_owned(), size(run.memory as f64)];
            if has_disk {
                row.extend([
                    size(run.disk as f64),
                    share(outcome.from_memory),
                    share(outcome.from_disk),
                ]);
            }
            row.extend([
                share(outcome.ratios.objects),
                share(outcome.ratios.bytes),
                format!("{:.0}", outcome.origin_requests),
                size(outcome.origin_bytes),
            ]);
            if has_disk {
                row.push(format!("{:.3}", outcome.disk_writes));
            }
            rows.push(row);
        }
        rows
    }

    fn name(&self) -> String {
        let disk =
            if self.disk > 0 { format!(" + {}", size(self.disk as f64)) } else { String::new() };
        format!("{}, {}{disk}", self.policy, size(self.memory as f64))
    }

    pub(super) fn over_time(&self, step: f64, pick: Pick) -> Line {
        let parts = self.outcome.parts.iter().enumerate();
        Line {
            name: self.name(),
            points: parts
                .filter_map(|(at, ratios)| Some(((at as f64 + 0.5) * step, pick(ratios.as_ref()?))))
                .collect(),
        }
    }

    /// A line for each policy and disk, over sizes of memory; over sizes of disk, where those differ and memory does not.
    pub(super) fn over_size(runs: &[Self], pick: Pick) -> Vec<Line> {
        let by_disk =
            runs.iter().all(|run| runs.first().is_some_and(|first| first.memory == run.memory));
        let mut lines: Vec<Line> = Vec::new();
        for run in runs {
            let (x, other, what) = match by_disk {
                true => (run.disk, run.memory, "memory"),
                false => (run.memory, run.disk, "disk"),
            };
            let name = match other {
                0 => run.policy.to_owned(),
                other => format!("{}, {what} {}", run.policy, size(other as f64)),
            };
            let point = (x.max(1) as f64, pick(&run.outcome.ratios));
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name, points: vec![point] }),
            }
        }
        for line in &mut lines {
            line.points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        }
        lines
    }
}

/// A share in per cent.
pub(super) fn share(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
