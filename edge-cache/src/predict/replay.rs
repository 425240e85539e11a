//! A log, run through simulated nodes: how many of its requests each would have answered.

use std::time::Duration;

use serde::Serialize;

use super::sim::{Answer, Setup, Sim};
use super::{Ratios, Tally};
use crate::trace::workload::Workload;

/// Parts of time that ratios are given for.
pub const PARTS: usize = 60;

/// What one node would have made of a log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Share of requests and bytes answered here: what the origin is spared.
    pub ratios: Ratios,
    /// Share of requests that the memory answered.
    pub from_memory: f64,
    /// Share of requests that the disk answered.
    pub from_disk: f64,
    /// Requests that go on.
    pub origin_requests: f64,
    /// Bytes that go on.
    pub origin_bytes: f64,
    /// Bytes written to the disk for each byte requested.
    pub disk_writes: f64,
    /// How full the memory was at the end, 0 to 1.
    pub memory_full: f64,
    /// The ratios in each of [`PARTS`] parts of the log's time, where there were requests.
    pub parts: Vec<Option<Ratios>>,
}

/// Runs a log through a node. Requests of the first `warm_up` (0 to 1) of its time fill the cache and are not counted.
/// `done` is told every so many requests.
pub fn run(workload: &Workload, setup: &Setup, warm_up: f64, mut done: impl FnMut(u64)) -> Outcome {
    const STEP: u64 = 1 << 14;
    let share = workload.share();
    let mut sim = Sim::new(&setup.scaled(share));
    let length = workload.length();
    let begin = length.mul_f64(warm_up.clamp(0.0, 1.0));
    let weight = 1.0 / share;
    let mut parts = vec![Tally::default(); PARTS];
    let mut by_disk = Tally::default();
    let mut all = Tally::default();
    let mut steps = 0;
    for record in workload.records() {
        steps += 1;
        if steps == STEP {
            done(steps);
            steps = 0;
        }
        let at = Duration::from_millis(record.at);
        let answer = sim.request(record.key, record.size, at);
        let had = answer.had(record.sent, record.size);
        if let Some(part) = parts.get_mut(part(at, length)) {
            part.count_part(answer.is_hit(), record.sent, had, weight);
        }
        if at < begin {
            continue;
        }
        all.count_part(answer.is_hit(), record.sent, had, weight);
        by_disk.count(answer == Answer::Disk, record.sent, weight);
    }
    done(steps);
    let truth = workload.since(begin).unwrap_or(all);
    let ratios = all.of_sample(&truth).unwrap_or_default();
    // What a sample lacks is asked for often: memory has it.
    let from_disk = by_disk.ratios().unwrap_or_default().objects.min(ratios.objects);
    Outcome {
        ratios,
        from_memory: ratios.objects - from_disk,
        from_disk,
        origin_requests: truth.requests * (1.0 - ratios.objects),
        origin_bytes: truth.bytes * (1.0 - ratios.bytes),
        disk_writes: sim.disk_written() as f64 * weight / workload.all().bytes.max(1.0),
        memory_full: sim.memory_full(),
        parts: parts.iter().map(Tally::ratios).collect(),
    }
}

/// In which part of the log's time a moment is.
pub fn part(at: Duration, length: Duration) -> usize {
    let share = at.as_secs_f64() / length.as_secs_f64().max(0.001);
    ((share * PARTS as f64) as usize).min(PARTS - 1)
}
