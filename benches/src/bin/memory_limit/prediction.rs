//! What the live prediction costs: the CPU time of its thread, beside all that the node takes for store hits over HTTP/1.1,
//! and what each request pays for being told to it.
//!
//! The thread's time is the kernel's, so that no second run without it is needed, which on a busy machine would say nothing.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use benches::random::{Random, mix};
use edge_cache::io::predict::Predicting;
use edge_cache::predict::live::{Fate, Shape};

use super::{Args, Node, head_end, origin::object_size, start_node, until_it_serves};

/// Share of the CPU time of a request that may be the prediction's.
const GOAL: f64 = 0.03;
/// Connections, one request at a time on each.
const CLIENTS: u64 = 4;
/// Their requests before it counts: what is predicted has found its sample.
const BEFORE: Duration = Duration::from_secs(20);
const ROUNDS: u32 = 3;

/// For a few keys, all of which may be in the sample, and for many. Whether the goal is met.
pub(super) async fn measure(args: &Args, origin: SocketAddr) -> anyhow::Result<bool> {
    let own = told();
    println!("being told of it: {:.0} ns a request", own * 1e9);
    println!(
        "{:>10}{:>12}{:>12}{:>14}{:>12}",
        "objects", "requests/s", "µs each", "predicting µs", "share"
    );
    let mut good = true;
    for (objects, length) in [(100, 1), (100, 63), (20_000, 1)] {
        let scratch = tempfile::tempdir()?;
        let (node, places) = start_node(args, 2 << 30, origin, scratch.path())?;
        until_it_serves(places.http).await?;
        let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut seen = Vec::new();
        std::thread::scope(|scope| -> anyhow::Result<()> {
            for client in 0..CLIENTS {
                let (over, count) = (&over, &count);
                // A failure shows as a rate of nothing.
                scope.spawn(move || ask(places.http, (objects, length), client, over, count));
            }
            std::thread::sleep(BEFORE);
            let mut look = || -> anyhow::Result<()> {
                seen.push((Instant::now(), count.load(Ordering::Relaxed), times(&node)?));
                Ok(())
            };
            let looked = (0..=ROUNDS).try_for_each(|_| {
                look()?;
                std::thread::sleep(Duration::from_secs(args.seconds) / 6);
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            looked
        })?;
        let shares = seen.windows(2).map(|pair| {
            let [(begun, before, (all, own_before)), (ended, after, (all_after, own_after))] = pair
            else {
                return Vec::new();
            };
            let requests = (after - before) as f64;
            let each = (all_after - all) / requests;
            let predicting = (own_after - own_before) / requests;
            let rate = requests / ended.duration_since(*begun).as_secs_f64();
            vec![rate, each, predicting, (predicting + own) / each]
        });
        let mut shares: Vec<Vec<f64>> = shares.collect();
        shares.sort_by(|a, b| a[3].total_cmp(&b[3]));
        let [rate, each, predicting, share] = shares[shares.len() / 2][..] else { continue };
        ensure!(rate > 100.0, "the node does not answer");
        good &= share <= GOAL;
        println!(
            "{objects:>10}{rate:>12.0}{:>12.1}{:>14.2}{:>10.1} %",
            each * 1e6,
            predicting * 1e6,
            share * 100.0
        );
    }
    println!("goal: {:.0} % of a request's CPU time", GOAL * 100.0);
    Ok(good)
}

/// Seconds that a request takes to be told of, mostly of keys that are in no sample.
fn told() -> f64 {
    const COUNT: u64 = 4_000_000;
    let Ok(predicting) = Predicting::start(Shape::new(1 << 30, None, None)) else { return 0.0 };
    let least = (0..5).map(|_| {
        let begun = Instant::now();
        for at in 0..COUNT {
            let key = u128::from(black_box(mix(at) | 1 << 63));
            predicting.note(key, 1024, 1024, Fate::Hit);
        }
        begun.elapsed().as_secs_f64() / COUNT as f64
    });
    least.fold(f64::INFINITY, f64::min)
}

/// Asks for objects of one length until it is over.
fn ask(
    address: SocketAddr,
    (objects, length): (u64, u64),
    client: u64,
    over: &AtomicBool,
    count: &AtomicU64,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut random, mut buffer) = (Random::new(client), vec![0; 128 << 10]);
    while !over.load(Ordering::Relaxed) {
        // Of a length that is the same for all.
        let id = random.below(objects) * 63 + length - 1;
        let request = format!("GET /o/{id} HTTP/1.1\r\nHost: bench.test\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let (mut have, mut whole) = (0, usize::MAX);
        while have < whole {
            let read = stream.read(buffer.get_mut(have..).context("a response too long")?)?;
            ensure!(read > 0, "a connection was cut");
            have += read;
            if whole == usize::MAX
                && let Some(end) = head_end(buffer.get(..have).unwrap_or_default())
            {
                whole = end + usize::try_from(object_size(id))?;
            }
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Seconds that the node's threads have run, and those of the one that predicts.
fn times(node: &Node) -> anyhow::Result<(f64, f64)> {
    let (mut all, mut own) = (0.0, 0.0);
    for task in std::fs::read_dir(format!("/proc/{}/task", node.0.id()))? {
        let task = task?.path();
        // One may have ended.
        let Ok(stat) = std::fs::read_to_string(task.join("schedstat")) else { continue };
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let nanos: f64 = stat.split(' ').next().context("no schedstat")?.parse()?;
        all += nanos / 1e9;
        own += if name.trim() == "predict" { nanos / 1e9 } else { 0.0 };
    }
    Ok((all, own))
}
