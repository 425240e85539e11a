//! The disks of a node: one file or block device each, a writer thread, a few threads that read. What is decided is in
//! [`crate::store::disk`].
//!
//! What is promised, and from when on:
//! * A record that is found is one that was written for that place, byte by byte: anything else is a miss. This
//!   holds whatever the device does.
//! * What [`Disks::write`] replaces, and what [`Disks::remove`] removes, is found no more when the call returns.
//! * A moment later the writer has handed it to the kernel: from then on it outlives the end of the process, however
//!   it ends. When [`Disks::flush`] has returned true, all that was handed over before it outlives a loss of power, too. What
//!   had not come so far may be lost as if it had never been done: the place then has what it had before, or nothing.
//! * A byte that the device has changed is a miss, or the whole disk begins empty where it is open what else is lost. In a
//!   segment that had no footer yet when the process ended, such a byte may also undo a removal or an update whose record it
//!   has hit: purges do not rely on removals.
//! * A disk that fails is left alone; its places go to the others. It is emptied at the next start, as is one that was
//!   absent while the others were used: it would bring back what has been replaced since.

mod device;
mod engine;
mod open;
mod queue;
mod read;
mod reclaimer;
mod recover;
mod snapshot;
mod stats;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;

pub use device::{Device, FileDevice};
pub use open::{DiskConfig, Emptied, Holds, OpenError, Opened};
pub(crate) use open::{FILE, look};
pub use stats::{Start, State, Stats};

use crate::store::disk::format::{self, Void};
use crate::store::disk::{Kind, choose};
use crate::store::object::ObjectKey;
use engine::{Engine, lock};
use read::Outcome;

/// What was stored, as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Its meta: that of the last update, if there was one.
    pub meta: Bytes,
    /// Its body. It shares its memory with the meta.
    pub body: Bytes,
}

/// The bytes of a body that are wanted, from the first to behind the last; none: all of it.
pub type Part = Option<(usize, usize)>;

/// What can be said without waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// It is not there.
    Absent,
    /// Here.
    Ready(Record),
    /// The disk has to be asked: [`Disks::read`].
    Wait,
}

/// The disks of a node.
#[derive(Debug)]
pub struct Disks {
    engines: Vec<Arc<Engine>>,
    threads: std::sync::Mutex<Vec<(Arc<Engine>, JoinHandle<()>)>>,
}

impl Disks {
    /// Opens all of them. What they hold is found out by threads of their own; until then all lookups miss.
    ///
    /// `key_rules` is a hash of what the form of keys and metas depends on: a store with another one is not read.
    pub fn open(configs: &[DiskConfig], key_rules: u64) -> Result<Self, OpenError> {
        let opened: Vec<Opened> =
            configs.iter().map(|config| open::open(config, key_rules)).collect::<Result<_, _>>()?;
        let daily = configs.iter().map(|config| config.daily_writes);
        Self::start(opened.into_iter().zip(daily).collect())
    }

    /// With these devices, and the bytes that may be written to each in a day (three times its size if that is not said).
    pub fn start(mut disks: Vec<(Opened, Option<u64>)>) -> Result<Self, OpenError> {
        // Those that were in use last are in the highest run.
        let used = |opened: &Opened| opened.emptied.is_none().then_some(opened.superblock.run);
        let last = disks.iter().filter_map(|(opened, _)| used(opened)).max().unwrap_or(0);
        let any = disks.iter().map(|(opened, _)| opened.superblock.run).max().unwrap_or(0);
        let run = any + 1;
        for (opened, _) in &mut disks {
            if opened.emptied.is_none() && opened.superblock.run < last {
                opened.empty(Emptied::Absent);
            }
        }
        let node_run = Arc::new(AtomicU64::new(run));
        // Dropped on an error, it stops those that have begun.
        let mut started = Self { engines: Vec::new(), threads: std::sync::Mutex::default() };
        for (opened, daily) in disks {
            let failed = {
                let path = opened.path.clone();
                move |error| OpenError::Io { path, doing: "its beginning cannot be written", error }
            };
            let (was_clean, before) = (opened.superblock.is_clean, opened.superblock.run);
            let superblock =
                format::Superblock { run, is_clean: false, void: None, ..opened.superblock };
            if let Err(error) = open::write_superblock(&*opened.device, &superblock) {
                started.stop();
                return Err(failed(error));
            }
            let Some(engine) = Engine::new(opened, superblock, before, daily, &node_run) else {
                continue;
            };
            let engine = Arc::new(engine);
            started.engines.push(Arc::clone(&engine));
            started.spawn(&engine, was_clean)?;
        }
        Ok(started)
    }

    /// Nothing more is written, and files are unlocked when this returns.
    fn stop(self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        drop(self);
        join(threads);
    }

    fn spawn(&self, engine: &Arc<Engine>, was_clean: bool) -> Result<(), OpenError> {
        let failed =
            |error| OpenError::Io { path: engine.path.clone(), doing: "a thread for it", error };
        let named = || std::thread::Builder::new().name("disk".to_owned());
        let mut threads = lock(&self.threads);
        let writer = Arc::clone(engine);
        let writer = named().spawn(move || recover::run(&writer, was_clean));
        threads.push((Arc::clone(engine), writer.map_err(failed)?));
        for number in 0..read::THREADS {
            let reader = Arc::clone(engine);
            let reader = named().spawn(move || read::serve(&reader, number));
            threads.push((Arc::clone(engine), reader.map_err(failed)?));
        }
        let watcher = Arc::clone(engine);
        let watcher = named().spawn(move || watch::watch(&watcher));
        threads.push((Arc::clone(engine), watcher.map_err(failed)?));
        Ok(())
    }

    /// Whose a place is: healthy disks alone have any.
    fn engine(&self, place: ObjectKey) -> Option<&Engine> {
        if let [engine] = self.engines.as_slice() {
            return Some(engine);
        }
        let healthy = self
            .engines
            .iter()
            .enumerate()
            .filter(|(_, engine)| !matches!(engine.state(), State::Isolated | State::Closed));
        let healthy = healthy.map(|(index, engine)| (index, engine.uuid, engine.geometry.size));
        choose(place, healthy).and_then(|index| self.engines.get(index)).map(|engine| &**engine)
    }

    /// The others: what they still have of a place from a time when it was theirs.
    fn forget_elsewhere(&self, place: ObjectKey, owner: Option<&Engine>) {
        for engine in &self.engines {
            if owner.is_none_or(|owner| !std::ptr::eq(owner, &**engine)) {
                engine.remove(place);
            }
        }
    }

    /// Whether there is a record, as far as the index knows.
    pub fn contains(&self, place: ObjectKey) -> bool {
        self.engine(place).is_some_and(|engine| engine.contains(place))
    }

    /// A record, if that takes no waiting. Large ones always do.
    pub fn try_read(&self, place: ObjectKey) -> Read {
        self.try_read_part(place, None)
    }

    /// Likewise, with this part of its body alone.
    pub fn try_read_part(&self, place: ObjectKey, part: Part) -> Read {
        let Some(engine) = self.engine(place) else { return Read::Absent };
        match engine.try_read(place, part) {
            Outcome::Nothing => Read::Absent,
            Outcome::Found(record) => Read::Ready(record),
            Outcome::WouldWait => Read::Wait,
        }
    }

    /// A record, read by a thread of the disk. None: there is none, its bytes are not what was written, or it takes too
    /// long.
    pub async fn read(&self, place: ObjectKey) -> Option<Record> {
        self.read_part(place, None).await
    }

    /// Likewise, with this part of its body alone.
    pub async fn read_part(&self, place: ObjectKey, part: Part) -> Option<Record> {
        let engine = self.engine(place).filter(|engine| engine.is_serving())?;
        let Some(reply) = engine.reads.submit(place, part) else {
            engine.counters.timeouts.add(1);
            return None;
        };
        match tokio::time::timeout(read::DEADLINE, reply).await {
            Ok(reply) => reply.ok().flatten(),
            Err(_) => {
                engine.counters.timeouts.add(1);
                None
            }
        }
    }

    /// Has a record written in the place of what is there, which is found no more. It is found itself once it is written.
    /// `false`: it was not taken, for too much waits, or it is larger than a segment, or the disk is not ready.
    pub fn write(&self, place: ObjectKey, kind: Kind, meta: Bytes, body: Vec<Bytes>) -> bool {
        let owner = self.engine(place);
        self.forget_elsewhere(place, owner);
        owner.is_some_and(|owner| owner.write(place, kind, meta, body))
    }

    /// Whether an object of so many bytes is worth writing now: it has been asked for again, or little is being
    /// written. Asking is remembered.
    pub fn wanted(&self, place: ObjectKey, bytes: u64) -> bool {
        self.engine(place).is_some_and(|engine| engine.wanted(place, bytes))
    }

    /// A hit that was not a read: when room is made, what was asked for stays.
    pub fn touch(&self, place: ObjectKey) {
        if let Some(engine) = self.engine(place) {
            engine.touch(place);
        }
    }

    /// Has a later meta written for the record that is there; its body stays. `false`: there is none, or too much waits: the
    /// record stays as it is.
    pub fn update(&self, place: ObjectKey, kind: Kind, meta: Bytes) -> bool {
        self.engine(place).is_some_and(|engine| engine.update(place, kind, meta))
    }

    /// Removes a record: it is found no more, after a crash neither, once the writer has come to it.
    pub fn remove(&self, place: ObjectKey) {
        for engine in &self.engines {
            engine.remove(place);
        }
    }

    /// Returns when all that was handed over before outlives a loss of power. `false`: on some disk it does not.
    pub async fn flush(&self) -> bool {
        let waiting: Vec<_> = self.engines.iter().map(|engine| engine.flush()).collect();
        let mut done = true;
        for waiting in waiting {
            done &= match waiting {
                Some(waiting) => waiting.await.unwrap_or(false),
                None => false,
            };
        }
        done
    }

    /// Notes on each of them that what it holds must not outlast this run, or that it may. Waits for the disks. False: not
    /// all of them could be told.
    pub fn doubt(&self, in_doubt: bool) -> bool {
        let is_failed = |engine: &Engine| matches!(engine.state(), State::Isolated | State::Closed);
        let healthy = self.engines.iter().filter(|engine| !is_failed(engine));
        let told = healthy.map(|engine| {
            engine.change_superblock(|superblock| {
                superblock.void = match superblock.void {
                    Some(Void::Failed) => Some(Void::Failed),
                    _ => in_doubt.then_some(Void::Doubt),
                };
            })
        });
        told.fold(true, |all, told| all & told.is_ok())
    }

    /// What each of them holds and has done.
    pub fn stats(&self) -> Vec<Stats> {
        self.engines.iter().map(|engine| engine.stats()).collect()
    }

    /// Bytes of memory that the indexes take.
    pub fn index_bytes(&self) -> u64 {
        self.engines.iter().map(|engine| engine.index.bytes() as u64).sum()
    }

    /// Whether one of them is still finding out what it holds.
    pub fn is_recovering(&self) -> bool {
        self.engines.iter().any(|engine| engine.state() == State::Recovering)
    }

    /// Stops them: what waits is written, and a copy of the index is left for the next start. A disk that does not answer is
    /// waited for.
    pub async fn close(&self) {
        for engine in &self.engines {
            engine.queue.lock().close();
            engine.queue.notify();
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        // It has ended, or panicked.
        let _ = apart(move || join(threads)).await;
    }
}

/// Waits for threads to end; not for those of a device that does not answer.
fn join(threads: Vec<(Arc<Engine>, JoinHandle<()>)>) {
    for (engine, thread) in threads {
        if !engine.is_stuck() {
            // One that has panicked has left the disk as a crash would.
            let _ = thread.join();
        }
    }
}

/// Does what may wait for a device that never answers, in a thread that the end of the process does not wait for.
pub(super) fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (done, waiting) = oneshot::channel();
    // Without a thread there is no answer, which is one.
    let _ = std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
        let _ = done.send(work());
    });
    waiting
}

/// Without [`Disks::close`] nothing more is written: the next start finds what a crash would leave. A thread that waits for
/// its device ends when that answers; until then the file is locked.
impl Drop for Disks {
    fn drop(&mut self) {
        for engine in &self.engines {
            engine.set_state(State::Closed);
            engine.queue.notify();
            engine.reads.notify();
            engine.waiting.notify();
        }
    }
}
