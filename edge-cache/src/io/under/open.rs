//! Opening a node's disks at its start, and closing them at its end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use shared::config::DiskSpec;

use super::Under;
use crate::config::Plan;
use crate::io::disk::{DiskConfig, Disks, OpenError, Start, State, Stats};
use crate::io::purge_log::PurgeLog;
use crate::key::KeyRules;
use crate::store::Store;
use crate::store::record::FORMAT;

/// How long an ending node waits for what it has still to write.
const LAST_WRITES: Duration = Duration::from_secs(20);

/// Opens the disks of a node and puts them under its store. `run` is a number that no other run of the node has; `purges`
/// has been read.
///
/// A disk that fails is left out: the node serves without it. What an operator has to decide, keeps it from starting.
///
/// # Errors
/// That, for the operator.
pub fn open(
    plan: &Plan,
    store: &Store,
    run: u64,
    purges: Option<&PurgeLog>,
) -> Result<Option<Arc<Under>>, String> {
    let spec = plan.edge.disk.iter().chain(&plan.edge.disks);
    let mut configs: Vec<DiskConfig> = spec.map(config).collect();
    let rules = key_rules(plan, purges.map_or(0, PurgeLog::identity));
    let lasting = purges.map(PurgeLog::lasting).unwrap_or_default();
    while !configs.is_empty() {
        let error = match Disks::open(&configs, rules) {
            Ok(disks) => {
                let under = Arc::new(Under::new(disks, store.layout(), run, lasting.clone()));
                store.set_below(Arc::clone(&under) as Arc<dyn crate::store::Below>);
                return Ok(Some(under));
            }
            Err(error) => error,
        };
        match failed(&error) {
            Some(path) => {
                tracing::error!(%error, "a disk has failed, and is left out until the node is started anew");
                let before = configs.len();
                configs.retain(|config| config.path != path && !path.starts_with(&config.path));
                if configs.len() == before {
                    return Err(error.to_string());
                }
            }
            None => return Err(format!("edge.{}: {error}", plan.node)),
        }
    }
    Ok(None)
}

/// The disk that it is about, if what has gone wrong is the disk and not what was said of it.
fn failed(error: &OpenError) -> Option<std::path::PathBuf> {
    let OpenError::Io { path, error, .. } = error else { return None };
    let is_said = matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidInput
    );
    (!is_said).then(|| path.clone())
}

pub(super) fn config(spec: &DiskSpec) -> DiskConfig {
    DiskConfig {
        path: spec.path.clone(),
        size: spec.size.0,
        daily_writes: spec.daily_writes.map(|size| size.0),
        mismatch: spec.mismatch,
    }
}

/// A hash of what the form of keys on disk depends on. Routes whose keys are made as usual do not count: to add or drop one
/// costs nothing that is stored. What was stored beside another log of purges may have been purged there. Heads say in
/// segments of which size their bodies lie: those of another size are not used.
pub(super) fn key_rules(plan: &Plan, purges: u64) -> u64 {
    let mut text = format!("{FORMAT} {purges:016x}");
    for site in &plan.sites {
        for route in &site.routes {
            let rules = route.policy.as_ref().map(|policy| &policy.key);
            if let Some(rules) = rules.filter(|rules| **rules != KeyRules::default()) {
                text += &format!("\n{:?} {} {rules:?}", site.hosts, route.pattern);
            }
        }
    }
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

impl Under {
    /// Stops the disks; the next start finds what they hold at once. Not longer than a bound: then it finds it as after a crash.
    pub async fn close(&self) {
        if tokio::time::timeout(LAST_WRITES, self.disks.close()).await.is_err() {
            tracing::error!("a disk takes too long: at the next start it is read as after a crash");
        }
    }

    /// Says once of each disk how it has become ready, until all have.
    pub async fn announce(&self) {
        let mut told = Vec::new();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let stats = self.disks.stats();
            for disk in &stats {
                if !told.contains(&disk.path) && say(disk) {
                    told.push(disk.path.clone());
                }
            }
            if told.len() == stats.len() {
                return;
            }
        }
    }
}

/// Says how a disk has become ready, if it has.
fn say(disk: &Stats) -> bool {
    let Some((start, took)) = &disk.start else {
        return matches!(disk.state, State::Isolated | State::Closed);
    };
    let took = took.as_secs_f64();
    let (path, records) = (disk.path.display(), disk.objects);
    match start {
        Start::Copy | Start::Segments => {
            tracing::info!(%path, records, took, how = ?start, "a disk is ready");
        }
        Start::Empty(why) => tracing::warn!(%path, ?why, "a disk begins empty"),
        Start::Damaged => tracing::error!(%path, "a disk was damaged, and begins empty"),
    }
    true
}
