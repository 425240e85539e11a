//! The log of purges on disk: read before a node answers anything from its store, written by a thread of its own.
//!
//! Whoever gives a purge waits until it is durable, as do those whose unsafe methods make something invalid
//! ([`super::doubt`]); those that come meanwhile share the next `fdatasync`. Within a second the position that the node knows
//! of is durable, too, and what is stored on disk has no fence above it ([`Lasting`]).
//!
//! A log that cannot be written is begun anew, beside the old one, when the next purge comes or a second later: all that
//! the node knows goes into its snapshot, so that nothing is lost but the acknowledgement. That is also how it stays
//! bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use shared::io::clock;
use tokio::sync::watch;

use super::node::Node;
use crate::config::Plan;
use crate::purge::log::{self, Replayed};
use crate::purge::{Fences, Kind, Ledger, Position, Positions, Record, Target};

/// The file in the folder for state.
pub(super) const FILE: &str = "purges.log";
/// Held by the process that writes it.
const LOCK: &str = "purges.lock";
/// What could not be read is kept beside, until something else cannot be read.
const DAMAGED: &str = "purges.damaged";
/// A log that has grown by this, and by the length of its snapshot, is begun anew.
const LEAST_GROWTH: usize = 4 << 20;
/// Entries that wait for the writer; where there are more, the log is begun anew instead, and holds them.
const MOST_WAITING: usize = 8 << 20;
/// A log on disk larger than this is none of ours.
const MOST_READ: u64 = 1 << 30;
/// How long what nobody waits for may not be durable, and between two attempts to begin anew.
const TICK: Duration = Duration::from_secs(1);

/// What is handed to the writer, and what it says of it.
#[derive(Debug)]
pub struct PurgeLog {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    identity: u64,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The last position that is durable.
    lasting: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: Vec<u8>,
    /// How many entries there have been.
    last: u64,
    /// Somebody waits.
    urgent: bool,
    /// Entries found no room.
    overflowed: bool,
    closed: bool,
}

/// How far the writer has come.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// It has tried to make all entries durable up to this one,
    tried: u64,
    /// and has, up to this one.
    durable: u64,
    /// Why not further.
    why: Option<Arc<str>>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PurgeLog {
    /// Adds a purge that is in force, and in the ledger, already. Never waits. Its number.
    pub fn add(
        &self,
        targets: &[Target],
        kind: Kind,
        at: Position,
        record: Option<&Record>,
    ) -> u64 {
        let mut queue = self.shared.queue();
        queue.last += 1;
        if queue.entries.len() < MOST_WAITING {
            log::purge(&mut queue.entries, targets, kind, at, record);
        } else {
            queue.overflowed = true;
        }
        let number = queue.last;
        drop(queue);
        self.shared.wake.notify_one();
        number
    }

    /// Waits until an entry is durable; one that could not be made so is tried again.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn settle(&self, number: u64) -> Result<(), Arc<str>> {
        let mut progress = self.progress.clone();
        let wanted = {
            let mut queue = self.shared.queue();
            let now = progress.borrow_and_update();
            if now.durable >= number {
                return Ok(());
            }
            if now.tried >= number {
                queue.last += 1;
            }
            queue.urgent = true;
            if now.tried >= number { queue.last } else { number }
        };
        self.shared.wake.notify_one();
        let came = |progress: &Progress| progress.tried >= wanted || progress.durable >= number;
        let Ok(end) = progress.wait_for(came).await else {
            return Err("the node is ending".into());
        };
        match &end.why {
            _ if end.durable >= number => Ok(()),
            Some(why) => Err(Arc::clone(why)),
            None => Err("it was not written".into()),
        }
    }

    /// Whether an entry is durable.
    pub fn is_durable(&self, number: u64) -> bool {
        self.progress.borrow().durable >= number
    }

    /// Waits until all that has been added is durable, for the end of the process.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn flush(&self) -> Result<(), Arc<str>> {
        let last = self.shared.queue().last;
        self.settle(last).await
    }

    /// Which position is durable now: none of a fence that is written to disk may be above it. Then all purges after a restart
    /// are above all of them, whatever the clock says.
    pub fn lasting(&self) -> Lasting {
        Lasting(Some(Arc::clone(&self.shared)))
    }

    /// Which log this is: what was stored with another one may have missed purges.
    pub const fn identity(&self) -> u64 {
        self.identity
    }
}

/// The last position that is durable.
#[derive(Clone, Debug, Default)]
pub struct Lasting(Option<Arc<Shared>>);

impl Lasting {
    /// It; where there is no log, there is none.
    pub fn position(&self) -> Position {
        let last = self.0.as_ref().map(|shared| shared.lasting.load(Ordering::Acquire));
        Position(last.unwrap_or_default())
    }
}

impl Drop for PurgeLog {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_one();
    }
}

/// The folder where a node keeps its purges, if it has one.
///
/// # Errors
/// Why it has none, though it stores on disk.
pub fn folder(plan: &Plan) -> Result<Option<PathBuf>, String> {
    let edge = &plan.edge;
    if let Some(state) = &edge.state {
        return Ok(Some(state.clone()));
    }
    let Some(disk) = edge.disk.iter().chain(&edge.disks).next() else { return Ok(None) };
    match fs::metadata(&disk.path) {
        Ok(found) if found.is_file() => Err(format!(
            "edge.{}: the disk {} is a file: name a folder, in which the store's file is made, or a block device",
            plan.node,
            disk.path.display()
        )),
        Ok(found) if !found.is_dir() => Err(format!(
            "edge.{}: the disk {} is no folder, so that purges have no place to be kept over restarts: set `state` to a folder",
            plan.node,
            disk.path.display()
        )),
        _ => Ok(Some(disk.path.clone())),
    }
}

/// Reads the log in this folder into the tables, or begins one.
///
/// # Errors
/// Why it cannot be read or written, for the operator.
pub fn open(
    folder: &Path,
    fences: &Fences,
    ledger: &mut Ledger,
    positions: &Arc<Positions>,
) -> Result<(PurgeLog, Writer), String> {
    let failed = |what: &str, error: &io::Error| {
        format!(
            "{what} {}: {error}; purges are kept there over restarts, see `state` of this edge",
            folder.display()
        )
    };
    fs::create_dir_all(folder).map_err(|error| failed("cannot make the folder", &error))?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK));
    let lock = lock.map_err(|error| failed("cannot write into", &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(format!(
                "another node keeps its purges in {}: give each node a folder of its own, see `state`",
                folder.display()
            ));
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed("cannot lock", &error)),
    }
    let path = folder.join(FILE);
    let bytes = match shared::io::files::read_file(&path, MOST_READ) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("cannot read purges.log in", &error)),
    };
    let replayed = bytes.as_ref().map(|bytes| log::replay(bytes, fences, ledger, clock::now()));
    if let Some(replayed) = &replayed {
        tell(&path, replayed, bytes.as_ref().map_or(0, Vec::len));
        positions.observe(replayed.ceiling);
    }
    let identity = replayed.as_ref().and_then(|replayed| replayed.identity).unwrap_or_else(number);
    let lasting = AtomicU64::new(positions.current().0);
    let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), lasting });
    let (sender, progress) = watch::channel(Progress::default());
    let mut writer = Writer {
        shared: Arc::clone(&shared),
        positions: Arc::clone(positions),
        progress: sender,
        folder: folder.to_owned(),
        identity,
        open: None,
        snapshot: 0,
        grown: bytes.as_ref().map_or(0, Vec::len),
        written: 0,
        pending: None,
        _lock: lock,
    };
    match &replayed {
        Some(replayed) if replayed.is_sound => {
            let file = OpenOptions::new().write(true).open(&path);
            // Another process's crash left what it did not make durable; this one takes it for durable.
            let file = file.and_then(|file| file.sync_data().map(|()| file));
            let file = file.map_err(|error| failed("cannot write purges.log in", &error))?;
            let end = bytes.as_ref().map_or(0, Vec::len) as u64;
            let (sequence, marks) = (replayed.sequence, replayed.marks);
            writer.open = Some(Open { file, end, sequence, durable: sequence, marks });
        }
        other => {
            if other.as_ref().is_some_and(|replayed| replayed.damage.is_some()) {
                // For whoever wants to know what was lost; the node goes on without it, too.
                let _ = fs::copy(&path, folder.join(DAMAGED));
            }
            let bytes = log::snapshot(identity, positions.current(), fences, ledger);
            writer.begin(bytes).map_err(|error| failed("cannot write into", &error))?;
        }
    }
    Ok((PurgeLog { shared, progress, identity }, writer))
}

fn tell(path: &Path, replayed: &Replayed, length: usize) {
    let file = path.display();
    if let Some(damage) = &replayed.damage {
        let log::Damage { at, before, why } = damage;
        tracing::error!(
            %file, bytes = length, at, position = before.0,
            "purges may be lost: {why}; all that was stored before counts as purged"
        );
    }
    if replayed.torn > 0 && replayed.damage.is_none() {
        tracing::warn!(
            %file, bytes = replayed.torn,
            "the last purges were not whole and had not been acknowledged: they are dropped"
        );
    }
}

/// A number that no other log has.
fn number() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(clock::now().0);
    hasher.finish()
}

/// What writes.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    positions: Arc<Positions>,
    progress: watch::Sender<Progress>,
    folder: PathBuf,
    identity: u64,
    /// None: it cannot be written on.
    open: Option<Open>,
    /// Bytes of its snapshot,
    snapshot: usize,
    /// and since.
    grown: usize,
    /// The last entry that is in the file.
    written: u64,
    /// The ceiling of what was written and is not durable, and since when.
    pending: Option<(Position, Instant)>,
    _lock: File,
}

/// The file, as far as it has been written.
#[derive(Debug)]
struct Open {
    file: File,
    end: u64,
    /// The last frame,
    sequence: u64,
    /// and the last durable one.
    durable: u64,
    /// What its marks say of that.
    marks: [u64; 2],
}

impl Open {
    /// Writes a frame; how long it is.
    fn append(&mut self, entries: &[u8], ceiling: Position) -> io::Result<usize> {
        let turn = log::Turn { sequence: self.sequence + 1, durable: self.durable };
        let mut bytes = Vec::new();
        log::frame(&mut bytes, entries, turn, ceiling);
        self.file.write_all_at(&bytes, self.end)?;
        self.sequence += 1;
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// All that was written is durable from now on.
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.durable = self.sequence;
        Ok(())
    }

    /// Has the older of the marks say what is durable. `false`: they do.
    fn mark(&mut self, identity: u64) -> io::Result<bool> {
        let [first, second] = self.marks;
        if first.max(second) >= self.durable {
            return Ok(false);
        }
        let which = usize::from(second < first);
        let (at, mark) = log::mark(which, identity, self.durable);
        self.file.write_all_at(&mark, at)?;
        if let Some(mark) = self.marks.get_mut(which) {
            *mark = self.durable;
        }
        Ok(true)
    }
}

/// What there is to do.
struct Work {
    entries: Vec<u8>,
    last: u64,
    urgent: bool,
    overflowed: bool,
    closed: bool,
}

impl Writer {
    /// Starts the thread, which ends with the node.
    ///
    /// # Errors
    /// Why there is no thread.
    pub fn start(mut self, node: Weak<Node>) -> Result<(), String> {
        let thread = std::thread::Builder::new().name("purges".to_owned());
        let run = move || while self.step(&node) {};
        thread.spawn(run).map(drop).map_err(|error| format!("no thread to write purges: {error}"))
    }

    /// Waits for work and does it. False at the end.
    fn step(&mut self, node: &Weak<Node>) -> bool {
        let work = self.wait();
        let result = self.write(&work, node);
        if let Err(error) = &result {
            if self.open.take().is_some() {
                tracing::error!(
                    folder = %self.folder.display(), %error,
                    "purges cannot be written down: those that are given now are in force, but not acknowledged"
                );
            }
            self.pending = None;
        }
        let progress = self.progress.borrow();
        let durable = match (&result, self.pending) {
            (Ok(()), None) => self.written,
            _ => progress.durable,
        };
        // What nobody waits for has been tried when it is durable, or cannot be.
        let tried =
            if durable >= work.last || result.is_err() { work.last } else { progress.tried };
        drop(progress);
        let why = result.err().map(|error| error.to_string().into());
        self.progress.send_if_modified(|progress| {
            let is_new = (progress.tried, progress.durable) != (tried, durable);
            *progress = Progress { tried, durable, why };
            is_new
        });
        !work.closed
    }

    fn wait(&self) -> Work {
        // A log that must be begun anew is not tried again for what nobody waits for.
        let is_broken = self.open.is_none();
        let nothing = |queue: &mut Queue| {
            let has_entries = !queue.entries.is_empty() || queue.overflowed;
            !(queue.urgent || queue.closed || (has_entries && !is_broken))
        };
        let queue = self.shared.wake.wait_timeout_while(self.shared.queue(), TICK, nothing);
        let (mut queue, _) = queue.unwrap_or_else(PoisonError::into_inner);
        Work {
            entries: std::mem::take(&mut queue.entries),
            last: queue.last,
            urgent: std::mem::take(&mut queue.urgent),
            overflowed: std::mem::take(&mut queue.overflowed),
            closed: queue.closed,
        }
    }

    fn write(&mut self, work: &Work, node: &Weak<Node>) -> io::Result<()> {
        // After the entries were taken: none of them is above it.
        let ceiling = self.positions.current();
        if self.open.is_none() || work.overflowed || self.grown > LEAST_GROWTH.max(self.snapshot) {
            return self.begin_anew(work, node);
        }
        let lasting = Position(self.shared.lasting.load(Ordering::Acquire));
        let Some(open) = &mut self.open else { return Ok(()) };
        if !work.entries.is_empty() || (ceiling > lasting && self.pending.is_none()) {
            // It shares what makes the frame durable.
            open.mark(self.identity)?;
            self.grown += open.append(&work.entries, ceiling)?;
            let since = self.pending.map_or_else(clock::instant, |(_, since)| since);
            self.pending = Some((ceiling, since));
        }
        self.written = work.last;
        let is_due = |(_, since): (Position, Instant)| since.elapsed() >= TICK;
        let due = work.entries.is_empty() || self.pending.is_some_and(is_due);
        if work.urgent || due {
            // What no frame follows is marked in its own time.
            if self.pending.is_some() || !work.urgent && open.mark(self.identity)? {
                open.sync()?;
            }
            self.is_durable();
        }
        Ok(())
    }

    /// All that was written is.
    fn is_durable(&mut self) {
        if let Some((ceiling, _)) = self.pending.take() {
            self.shared.lasting.fetch_max(ceiling.0, Ordering::AcqRel);
        }
    }

    fn begin_anew(&mut self, work: &Work, node: &Weak<Node>) -> io::Result<()> {
        let Some(node) = node.upgrade() else {
            return Err(io::Error::other("the node is ending"));
        };
        let was_broken = self.open.is_none();
        let ceiling = self.positions.current();
        // All entries until now are in force, and in the ledger.
        let ledger = node.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = log::snapshot(self.identity, ceiling, node.store.fences(), &ledger);
        drop(node);
        self.begin(bytes)?;
        self.written = work.last;
        self.pending = Some((ceiling, clock::instant()));
        self.is_durable();
        if was_broken {
            tracing::info!(folder = %self.folder.display(), "purges are written down again");
        }
        Ok(())
    }

    /// A log that begins with these bytes takes the place of what there is.
    fn begin(&mut self, (bytes, sequence): (Vec<u8>, u64)) -> io::Result<()> {
        let path = self.folder.join(FILE);
        let beside = self.folder.join("purges.log.new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        // The rename must survive a crash, too.
        File::open(&self.folder)?.sync_all()?;
        let end = bytes.len() as u64;
        self.open = Some(Open { file, end, sequence, durable: sequence, marks: [sequence, 0] });
        (self.snapshot, self.grown) = (bytes.len(), 0);
        Ok(())
    }
}
