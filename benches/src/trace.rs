//! A request of a trace, and traces out of access logs.

use std::path::Path;

use anyhow::Context as _;
use edge_cache::io::trace::Log;
use edge_cache::trace::Reader;

/// The number of an object.
pub type Id = u64;

/// A request for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When, in milliseconds since the trace began.
    pub at: u64,
    /// The object.
    pub id: Id,
    /// The length of its body.
    pub bytes: u64,
    /// How long the response may be used without asking, in seconds.
    pub ttl: u32,
}

/// The requests of a user's log: combined, JSON, or a table of time, key and size. Broken lines are left out, and said.
pub fn from_log(path: &Path) -> anyhow::Result<(Vec<Request>, Reader)> {
    let mut log = Log::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut reader, mut requests) = (Reader::new(None), Vec::new());
    log.requests(&mut reader, |request, _| {
        let at = request.at.0;
        let bytes = request.size.unwrap_or(0);
        // The highest bit is a crawler's in the streams of our own.
        let id = request.key() as u64 >> 1;
        requests.push(Request { at, id, bytes, ttl: 0 });
        true
    })
    .with_context(|| format!("{} cannot be read to its end", path.display()))?;
    anyhow::ensure!(!requests.is_empty(), "{} has no request in it", path.display());
    // Logs are written when requests end; the time of the first is the beginning.
    requests.sort_by_key(|request| request.at);
    let first = requests.first().map_or(0, |request| request.at);
    requests.iter_mut().for_each(|request| request.at -= first);
    Ok((requests, reader))
}
