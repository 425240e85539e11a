//! Encodings of stored objects: chosen for a client, made by threads of their own, kept in the store.
//!
//! Nobody waits for one: until it is there the identity is served. An encoding lies in the store beside its object, under
//! a place that only this module asks for, and counts as long as the object has the body that it was made of: what is
//! purged, replaced or not valid any more takes its encodings with it, and an object that is updated keeps them.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::node::Node;
use super::telemetry::COMPRESSIONS;
use crate::encode::encode;
use crate::semantics::compress::{
    Accepted, Coding, MAX_LENGTH, MIN_LENGTH, encoded, may_be_encoded, named,
};
use crate::semantics::conditional::{Verdict, evaluate};
use crate::semantics::{Policy, StoredHead};
use crate::store::Object;

/// Objects that wait to be encoded at most; more are encoded when they are asked for again.
const QUEUE: usize = 64;
/// Threads at most; of a small machine one core's share is enough.
const MAX_THREADS: usize = 4;
/// An encoding that the store did not keep is made again after this.
const REST: Duration = Duration::from_secs(10);
/// Bodies that did not get shorter, remembered at most.
const MAX_POOR: u64 = 16_384;

type Job = (Arc<Object>, Coding);
type Place = (u64, Coding);

/// What makes encodings.
pub struct Encoder {
    queue: OnceLock<SyncSender<Job>>,
    /// What waits or is being made.
    pending: Arc<Mutex<HashSet<Place>>>,
    /// What is not worth it.
    poor: moka::sync::Cache<Place, ()>,
    /// What was made a moment ago. If it is gone already, the store has better things to keep.
    recent: moka::sync::Cache<Place, ()>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            queue: OnceLock::new(),
            pending: Arc::default(),
            poor: moka::sync::Cache::new(MAX_POOR),
            recent: moka::sync::Cache::builder().max_capacity(MAX_POOR).time_to_live(REST).build(),
        }
    }
}

impl Encoder {
    /// The encoding of an object that a request is answered with, or `None`: the object as it is. Has one made where it is
    /// missing.
    pub fn represent(
        &self,
        node: &Arc<Node>,
        object: &Arc<Object>,
        policy: &Policy,
        method: &Method,
        request: &HeaderMap,
    ) -> Option<Arc<Object>> {
        if policy.compress.is_empty() || !is_encodable(object) {
            return None;
        }
        let headers = &object.fields();
        let chosen = Accepted::of(request).choose(&policy.compress);
        let named = named(request, headers, chosen, &policy.compress);
        let coding = named.unwrap_or(chosen)?;
        if let Some(made) = node.store.encoding(object, coding) {
            return Some(made);
        }
        self.submit(node, object, coding);
        // The client has it already: nothing of it need be here to say so.
        let head = StoredHead { headers: encoded(headers, coding, None), ..object.head() };
        let is_valid =
            || evaluate(method, request, head.status, &head.headers) == Verdict::NotModified;
        (named.is_some() && is_valid()).then(|| Arc::new(object.with_head(&head)))
    }

    /// Has the encoding made that this client would get, so that the next one gets it.
    pub fn prepare(
        &self,
        node: &Arc<Node>,
        object: &Arc<Object>,
        policy: &Policy,
        request: &HeaderMap,
    ) {
        if policy.compress.is_empty() || !is_encodable(object) {
            return;
        }
        if let Some(coding) = Accepted::of(request).choose(&policy.compress) {
            self.submit(node, object, coding);
        }
    }

    fn submit(&self, node: &Arc<Node>, object: &Arc<Object>, coding: Coding) {
        let place = (object.body_id(), coding);
        if self.poor.contains_key(&place)
            || self.recent.contains_key(&place)
            || !node.store.is_in_memory(object)
            || !lock(&self.pending).insert(place)
        {
            return;
        }
        let queue = self.queue.get_or_init(|| self.start(node));
        match queue.try_send((Arc::clone(object), coding)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                lock(&self.pending).remove(&place);
                node.telemetry.registry.counter(&COMPRESSIONS, &[coding.token(), "dropped"]).inc();
            }
        }
    }

    /// Starts the threads. They end with the node.
    fn start(&self, node: &Arc<Node>) -> SyncSender<Job> {
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(cores / 4).clamp(1, MAX_THREADS) {
            let (jobs, node) = (Arc::clone(&jobs), Arc::downgrade(node));
            let started = std::thread::Builder::new()
                .name("encoder".to_owned())
                .spawn(move || run(&jobs, &node));
            if let Err(error) = started {
                tracing::warn!(%error, "a thread that compresses cannot be started");
            }
        }
        queue
    }
}

fn run(jobs: &Mutex<Receiver<Job>>, node: &Weak<Node>) {
    loop {
        let Ok((object, coding)) = lock(jobs).recv() else { return };
        let Some(node) = node.upgrade() else { return };
        let result = make(&node, &object, coding);
        node.telemetry.registry.counter(&COMPRESSIONS, &[coding.token(), result]).inc();
        lock(&node.encoder.pending).remove(&(object.body_id(), coding));
    }
}

/// Encodes an object and stores what comes of it; what came of that.
fn make(node: &Node, object: &Object, coding: Coding) -> &'static str {
    let Some(body) = node.store.body(object) else { return "gone" };
    let made = match encode(coding, &body) {
        Ok(made) => made,
        Err(error) => {
            tracing::warn!(key = object.key_text(), coding = coding.token(), %error, "cannot be encoded");
            node.encoder.poor.insert((object.body_id(), coding), ());
            return "failed";
        }
    };
    // A tenth is what a client gains by decoding at least.
    if made.len() as u64 > object.length() / 10 * 9 {
        node.encoder.poor.insert((object.body_id(), coding), ());
        return "poor";
    }
    node.encoder.recent.insert((object.body_id(), coding), ());
    node.store.put_encoding(object, coding, Bytes::from(made));
    "made"
}

fn is_encodable(object: &Object) -> bool {
    (MIN_LENGTH..=MAX_LENGTH).contains(&object.length())
        && may_be_encoded(object.status(), &object.fields())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
