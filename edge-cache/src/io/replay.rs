//! A log's requests, sent to a running node in their order, and what it makes of them.
//!
//! Whether the node had a response, it says itself: `Cache-Status` (RFC 9211) where there is one, else `X-Cache` or
//! `X-Cache-Status`, else an `Age` above 0. So another cache can be asked just as well.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AGE, HOST};
use http::{HeaderMap, HeaderName, Method, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use shared::time::UnixMillis;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::trace::Log;
use crate::predict::Tally;
use crate::trace::Reader;

/// A response that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(30);
/// Times to the first byte are kept of so many requests.
const TIMED: usize = 1 << 20;

/// Whom to ask, and how fast.
#[derive(Clone, Debug)]
pub struct Order {
    /// The node.
    pub node: SocketAddr,
    /// `Host` for requests whose line has none.
    pub host: String,
    /// Requests at once.
    pub concurrency: usize,
    /// Requests a second. None: as fast as they are answered.
    pub rate: Option<f64>,
    /// So many times as fast as the log. None: its times do not matter.
    pub speed: Option<f64>,
    /// No more requests than these.
    pub limit: Option<u64>,
}

/// What the node made of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Live {
    /// Answered by the node that was asked.
    pub node: Tally,
    /// Answered by it or by a node between it and the origin: what the origin is spared.
    pub offload: Tally,
    /// Responses that came without an error.
    pub answered: u64,
    /// With another status than in the log.
    pub other_status: u64,
    /// No response, or none that was whole.
    pub failed: u64,
    /// The first failure.
    pub failure: Option<String>,
    /// From the first request to the last response, in seconds.
    pub seconds: f64,
    /// Time to the first byte, in milliseconds: half of the requests had it sooner.
    pub first_byte_p50: f64,
    /// 99 % had it sooner.
    pub first_byte_p99: f64,
    /// In each part of it, of 60.
    #[serde(skip)]
    pub parts: Vec<(f64, Tally)>,
    #[serde(skip)]
    times: Vec<f32>,
}

struct Item {
    number: u64,
    at: UnixMillis,
    host: String,
    target: String,
    is_head: bool,
    status: u16,
}

/// Sends all of a log. `done` is told of every response.
///
/// # Errors
/// There is nobody at that address.
pub fn run(
    order: &Order,
    mut log: Log,
    mut reader: Reader,
    done: impl Fn(&Log) + Send + 'static,
) -> Result<(Live, Reader, Option<String>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let (items, queue) = mpsc::channel::<Item>(1024);
    let limit = order.limit.unwrap_or(u64::MAX);
    // Reading, and what is compressed in it, is a thread of its own.
    let feeder = std::thread::spawn(move || {
        let mut number = 0;
        let end = log.requests(&mut reader, |request, log| {
            let item = Item {
                number,
                at: request.at,
                host: request.host.to_string(),
                target: sendable(&request.target),
                is_head: request.is_head,
                status: request.status,
            };
            number += 1;
            done(log);
            items.blocking_send(item).is_ok() && number < limit
        });
        (reader, end.err().map(|error| error.to_string()))
    });
    let live = runtime.block_on(ask_all(order, queue))?;
    let (reader, cut) = feeder.join().map_err(|_| "the log's reader has failed".to_owned())?;
    Ok((live, reader, cut))
}

async fn ask_all(order: &Order, queue: mpsc::Receiver<Item>) -> Result<Live, String> {
    // Who is not there at all, is said before anything is counted.
    drop(connect(order.node).await.map_err(|why| format!("cannot reach {}: {why}", order.node))?);
    let live = Arc::new(Mutex::new(Live::default()));
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    let first = Arc::new(std::sync::OnceLock::new());
    let begun = Instant::now();
    let workers: Vec<_> = (0..order.concurrency.max(1))
        .map(|_| {
            let (order, live) = (order.clone(), Arc::clone(&live));
            let (queue, first) = (Arc::clone(&queue), Arc::clone(&first));
            tokio::spawn(async move {
                let mut connection = None;
                loop {
                    let item = queue.lock().await.recv().await;
                    let Some(item) = item else { return };
                    let first = *first.get_or_init(|| item.at);
                    wait(&order, begun, &item, first).await;
                    let asked = Instant::now();
                    let answer = ask(&order, &mut connection, &item).await;
                    let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
                    live.note(&item, answer, (asked, begun.elapsed()));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.map_err(|error| error.to_string())?;
    }
    let mut live = std::mem::take(&mut *live.lock().unwrap_or_else(PoisonError::into_inner));
    live.seconds = begun.elapsed().as_secs_f64();
    live.times.sort_by(f32::total_cmp);
    let quantile = |share: f64| {
        let at = (live.times.len() as f64 * share) as usize;
        live.times.get(at).map_or(0.0, |time| f64::from(*time))
    };
    (live.first_byte_p50, live.first_byte_p99) = (quantile(0.5), quantile(0.99));
    Ok(live)
}

/// Until a request is due.
async fn wait(order: &Order, begun: Instant, item: &Item, first: UnixMillis) {
    let by_rate = order.rate.map_or(0.0, |rate| item.number as f64 / rate);
    let by_speed = order.speed.map_or(0.0, |speed| item.at.since(first).as_secs_f64() / speed);
    let due = begun + Duration::try_from_secs_f64(by_rate.max(by_speed)).unwrap_or_default();
    tokio::time::sleep_until(due.into()).await;
}

/// What came back.
struct Came {
    status: u16,
    headers: HeaderMap,
    bytes: u64,
    first_byte: Instant,
}

type Connection = SendRequest<Empty<Bytes>>;

async fn connect(node: SocketAddr) -> Result<Connection, String> {
    let stream = timeout(PATIENCE, TcpStream::connect(node)).await;
    let stream = stream.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    // A request that waits for another's acknowledgement would be slow for no reason.
    let _ = stream.set_nodelay(true);
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        // Whoever uses it sees the error.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn ask(order: &Order, held: &mut Option<Connection>, item: &Item) -> Result<Came, String> {
    let fresh = held.is_none();
    match ask_once(order, held, item).await {
        // The node may close a connection that nothing was asked on for long.
        Err(_) if !fresh => {
            *held = None;
            ask_once(order, held, item).await
        }
        answer => answer,
    }
    .inspect_err(|_| *held = None)
}

async fn ask_once(
    order: &Order,
    held: &mut Option<Connection>,
    item: &Item,
) -> Result<Came, String> {
    if held.as_ref().is_none_or(|sender| sender.is_closed()) {
        *held = Some(connect(order.node).await?);
    }
    let Some(sender) = held else { return Err("no connection".to_owned()) };
    let uri: Uri = item.target.parse().map_err(|error| format!("{}: {error}", item.target))?;
    let host = if item.host.is_empty() { &order.host } else { &item.host };
    let request = Request::builder()
        .method(if item.is_head { Method::HEAD } else { Method::GET })
        .uri(uri)
        .header(HOST, host)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let first_byte = Instant::now();
        let (head, mut body) = response.into_parts();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok(Came { status: head.status.as_u16(), headers: head.headers, bytes, first_byte })
    };
    timeout(PATIENCE, exchange).await.map_err(|_| "it took longer than 30 s".to_owned())?
}

impl Live {
    fn note(&mut self, item: &Item, answer: Result<Came, String>, times: (Instant, Duration)) {
        let (asked, since) = times;
        let came = match answer {
            Ok(came) => came,
            Err(why) => {
                self.failed += 1;
                self.failure.get_or_insert(why);
                return;
            }
        };
        self.answered += 1;
        // The log's 206 and 304 had conditions that it does not tell.
        let same =
            came.status == item.status || (matches!(item.status, 206 | 304) && came.status == 200);
        self.other_status += u64::from(!same);
        let (here, before) = hits(&came.headers);
        self.node.count(here, came.bytes, 1.0);
        self.offload.count(here || before, came.bytes, 1.0);
        let second = since.as_secs();
        match self.parts.last_mut() {
            Some((at, part)) if *at as u64 == second => part.count(here, came.bytes, 1.0),
            _ => {
                let mut part = Tally::default();
                part.count(here, came.bytes, 1.0);
                self.parts.push((second as f64, part));
            }
        }
        if self.times.len() < TIMED {
            self.times.push((came.first_byte - asked).as_secs_f32() * 1000.0);
        }
    }
}

/// Whether the node had it, and whether one before it had it.
fn hits(headers: &HeaderMap) -> (bool, bool) {
    const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
    let lines = headers.get_all(CACHE_STATUS);
    let members: Vec<bool> = lines
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(members)
        .map(|member| member.split(';').skip(1).any(|parameter| parameter.trim() == "hit"))
        .collect();
    if let Some((last, before)) = members.split_last() {
        return (*last, before.contains(&true));
    }
    for name in ["x-cache", "x-cache-status"] {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            let value = value.to_ascii_lowercase();
            // Of several caches the last word is that of the one which was asked.
            let mut words = value.rsplit(',').map(|word| word.contains("hit"));
            return (words.next().unwrap_or(false), words.any(|hit| hit));
        }
    }
    let age = headers.get(AGE).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    (age.is_some_and(|age| age > 0), false)
}

/// The members of a list; commas in quotes separate none.
fn members(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// A request target: what may not stand in one is escaped, and a key that is no path becomes one.
fn sendable(target: &str) -> String {
    let mut out = String::with_capacity(target.len() + 1);
    if !target.starts_with('/') {
        out.push('/');
        if target.starts_with('?') {
            out.push_str(target);
            return out;
        }
    }
    for byte in target.bytes() {
        match byte {
            b'!' | b'#'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~'
                if byte != b'#' =>
            {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    #[test]
    fn who_had_it_is_read_of_the_response() {
        let ours = [("cache-status", "p1; hit; ttl=9, e1; fwd=uri-miss; detail=\"a, b; hit\"")];
        for (pairs, expected) in [
            (&ours[..], (false, true)),
            (&[("cache-status", "e1; hit; ttl=5; detail=fresh")], (true, false)),
            (
                &[("cache-status", "p1; fwd=miss; stored"), ("cache-status", "e1; hit")],
                (true, false),
            ),
            (&[("cache-status", "e1; fwd=stale"), ("age", "7")], (false, false)),
            (&[("x-cache", "MISS, HIT")], (true, false)),
            (&[("x-cache", "HIT, MISS")], (false, true)),
            (&[("x-cache-status", "EXPIRED")], (false, false)),
            (&[("age", "7")], (true, false)),
            (&[("age", "0")], (false, false)),
            (&[], (false, false)),
        ] {
            let headers: HeaderMap = match pairs {
                [first, second] if first.0 == second.0 => {
                    let mut headers = fields(&[*first]);
                    headers.append(
                        HeaderName::from_static(second.0),
                        http::HeaderValue::from_static(second.1),
                    );
                    headers
                }
                pairs => fields(pairs),
            };
            assert_eq!(hits(&headers), expected, "{pairs:?}");
        }
    }

    #[test]
    fn any_key_can_be_sent() {
        for (key, target) in [
            ("/a?b=1&c=%20", "/a?b=1&c=%20"),
            ("4711", "/4711"),
            ("/a b\"<>#é", "/a%20b%22%3C%3E%23%C3%A9"),
            ("?x", "/?x"),
        ] {
            assert_eq!(sendable(key), target);
            target.parse::<Uri>().unwrap();
        }
    }
}
