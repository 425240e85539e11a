//! A crowd for the demo: opens many connections, then sends the same GET on all of them in one moment, and prints what
//! came back as JSON.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of the demo, not a decision of a node"
)]

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Barrier;

/// Sends one GET on each of many connections at the same time.
#[derive(Debug, Parser)]
#[command(name = "demo-client")]
struct Cli {
    /// How many connections, one request each.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Where to connect.
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: SocketAddr,
    /// The Host of the request.
    #[arg(long)]
    host: String,
    /// Seconds that everything may take.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// The path asked for.
    path: String,
}

struct Seen {
    status: u16,
    bytes: usize,
    hash: u64,
    cache: String,
    took: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Arc::new(Cli::parse());
    anyhow::ensure!(cli.connections > 0, "--connections must be at least 1");
    let barrier = Arc::new(Barrier::new(cli.connections));
    let tasks: Vec<_> = (0..cli.connections)
        .map(|_| tokio::spawn(ask(Arc::clone(&cli), Arc::clone(&barrier))))
        .collect();
    let limit = tokio::time::Instant::now() + Duration::from_secs(cli.timeout);
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let mut caches: BTreeMap<String, u64> = BTreeMap::new();
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    let mut bodies = BTreeSet::new();
    let mut bytes = 0;
    let mut slowest = Duration::ZERO;
    for task in tasks {
        match tokio::time::timeout_at(limit, task).await {
            Ok(Ok(Ok(seen))) => {
                *statuses.entry(seen.status.to_string()).or_default() += 1;
                *caches.entry(seen.cache).or_default() += 1;
                bodies.insert(seen.hash);
                bytes += seen.bytes;
                slowest = slowest.max(seen.took);
            }
            Ok(Ok(Err(error))) => *errors.entry(format!("{error:#}")).or_default() += 1,
            Ok(Err(error)) => *errors.entry(error.to_string()).or_default() += 1,
            Err(_) => *errors.entry("timed out".to_owned()).or_default() += 1,
        }
    }
    let summary = json!({
        "requests": cli.connections,
        "statuses": statuses,
        "errors": errors,
        "bytes": bytes,
        "distinct_bodies": bodies.len(),
        "cache_status": caches,
        "duration_ms": slowest.as_millis(),
    });
    println!("{summary:#}");
    anyhow::ensure!(errors.is_empty(), "not every request was answered");
    Ok(())
}

async fn ask(cli: Arc<Cli>, barrier: Arc<Barrier>) -> anyhow::Result<Seen> {
    let connected = connect(&cli).await;
    // A connection that failed still comes to the barrier: the others must not wait for it.
    barrier.wait().await;
    let mut sender = connected?;
    let start = Instant::now();
    let request = Request::get(&cli.path).header("host", &cli.host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("cannot send")?;
    let status = response.status().as_u16();
    let cache = response.headers().get_all("cache-status").iter().next_back();
    let cache = cache.and_then(|value| value.to_str().ok()).map_or_else(String::new, outcome);
    let body = response.into_body().collect().await.context("cut short")?.to_bytes();
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let hash = hasher.finish();
    Ok(Seen { status, bytes: body.len(), hash, cache, took: start.elapsed() })
}

async fn connect(
    cli: &Cli,
) -> anyhow::Result<hyper::client::conn::http1::SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(cli.connect).await.context("cannot connect")?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("handshake")?;
    tokio::spawn(connection);
    Ok(sender)
}

/// What the nearest cache did: the last member of the list, without what differs between requests.
fn outcome(value: &str) -> String {
    let member = value.rsplit(',').next().unwrap_or_default();
    let words = member.split(';').map(str::trim);
    let telling = words.filter(|w| *w == "hit" || *w == "collapsed" || w.starts_with("fwd="));
    telling.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_cache_tells_the_outcome() {
        assert_eq!(outcome("p1; hit; ttl=5, e1; fwd=uri-miss; fwd-status=200"), "fwd=uri-miss");
        assert_eq!(outcome("e1; fwd=uri-miss; collapsed; detail=x"), "fwd=uri-miss; collapsed");
        assert_eq!(outcome("e1; hit; ttl=9"), "hit");
    }
}
