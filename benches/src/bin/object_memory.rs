//! What objects take in memory beside their fields and bodies, against what they are weighed with.
//!
//! The constants in `edge_cache::store` come from here. A process of its own, so that its resident memory is theirs.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads its own memory and prints"
)]

use std::ffi::CStr;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use benches::random::Random;
use bytes::Bytes;
use clap::Parser;
use edge_cache::ALLOCATOR_CONF;
use edge_cache::key::{CacheKey, KeyRules};
use edge_cache::semantics::freshness::Exchange;
use edge_cache::semantics::vary::VariantKey;
use edge_cache::semantics::{Lines as _, Policy, StoredHead};
use edge_cache::store::memory::Settings;
use edge_cache::store::{Memory, Object};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use shared::time::UnixMillis;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is stored: so many objects, with bodies of so many bytes on the average. They differ in length, so that all sizes
/// of the allocator come up.
const ROWS: [(u64, u64); 3] = [(100_000, 1 << 10), (20_000, 16 << 10), (3_000, 96 << 10)];
/// How often each is replaced by another, in no order, in the second half of a row.
const ROUNDS: u64 = 4;
/// Bytes that an object may take in memory beside names and values of its fields and its body; the key counts.
const GOAL: i64 = 250;
/// What objects are weighed with may be off by so many per cent.
const OFF: u64 = 4;

/// What objects take in memory beside their fields and bodies.
///
/// Exit code 1: the small ones take more than the goal, or some are weighed wrong.
#[derive(Debug, Parser)]
#[command(name = "object_memory")]
struct Cli {
    /// Only this row, in a process whose memory is nothing else.
    #[arg(long, hide = true)]
    row: Option<usize>,
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(row) = Cli::parse().row {
        let (objects, mean) = *ROWS.get(row).context("no such row")?;
        return measure(objects, mean);
    }
    let mut is_met = true;
    for row in 0..ROWS.len() {
        let mut command = Command::new(std::env::current_exe()?);
        // As the program has it: without it each large piece takes a page more.
        let conf = CStr::from_bytes_with_nul(ALLOCATOR_CONF)?;
        command.env("_RJEM_MALLOC_CONF", conf.to_str()?);
        is_met &= command.args(["--row", &row.to_string()]).status()?.success();
    }
    println!("goal: {GOAL} bytes beyond names, values and body of 1 KiB; weighed within {OFF} %");
    println!("{}", if is_met { "ok" } else { "missed" });
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(count: u64, mean: u64) -> anyhow::Result<ExitCode> {
    let mut sums = Sums::default();
    let before = resident()?;
    let mut objects = Vec::with_capacity(usize::try_from(count)?);
    for id in 0..count {
        let object = object(id, 0, mean)?;
        sums.add(&object);
        objects.push(object);
    }
    let list = count * size_of::<Arc<Object>>() as u64;
    let alone = (resident()? - before - list) / count;
    let memory = Memory::new(Settings::new(4 << 30, 1 << 20));
    let with_table = resident()?;
    for object in &objects {
        memory.insert(Arc::clone(object));
    }
    let table = (resident()? - with_table) / count;
    let stored = alone + table;
    let Sums { wire, text, key, body, weight } = sums;
    println!("{count} objects with heads as origins send them, bytes of each:");
    println!("  fields as HTTP/1 writes them    {:6}", wire / count);
    println!("  fields, names and values alone  {:6}", text / count);
    println!("  body                            {:6}", body / count);
    println!("  key                             {:6}", key / count);
    println!("  resident, without a table       {alone:6}");
    println!("  resident, the table's part      {table:6}");
    println!("  weighed                         {:6}", weight / count);
    let beyond =
        |taken: u64, fields: u64| taken.cast_signed() - ((fields + body) / count).cast_signed();
    println!(
        "beyond names, values and body: {} without a table, {} in all",
        beyond(alone, text),
        beyond(stored, text)
    );
    println!(
        "beyond fields as HTTP/1 writes them, and body: {} without a table, {} in all",
        beyond(alone, wire),
        beyond(stored, wire)
    );
    // What was freed is used again, by what is longer or shorter.
    drop(objects);
    let mut random = Random::new(1);
    for turn in 1..=count * ROUNDS {
        memory.insert(object(random.below(count), turn, mean)?);
    }
    // What is free goes back soon.
    std::thread::sleep(Duration::from_secs(1));
    let held = memory.stats().bytes;
    let taken = resident()? - before;
    println!(
        "each replaced {ROUNDS} times by others: resident {} for {} weighed, {:+.1} %",
        taken / count,
        held / count,
        (taken as f64 / held as f64 - 1.0) * 100.0
    );
    let mut missed = Vec::new();
    if mean == 1 << 10 && beyond(stored, text) > GOAL {
        missed.push(format!("{} bytes an object, goal {GOAL}", beyond(stored, text)));
    }
    let weighed = weight / count;
    if weighed.abs_diff(stored) * 100 > stored * OFF {
        missed.push(format!("weighed {weighed} bytes for {stored}, goal: within {OFF} %"));
    }
    println!();
    if missed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("missed: {}", missed.join("; "));
    Ok(ExitCode::FAILURE)
}

#[derive(Default)]
struct Sums {
    wire: u64,
    text: u64,
    key: u64,
    body: u64,
    weight: u64,
}

impl Sums {
    fn add(&mut self, object: &Object) {
        for (name, value) in &object.fields().to_header_map() {
            let text = (name.as_str().len() + value.len()) as u64;
            self.text += text;
            self.wire += text + 4;
        }
        self.key += object.key_text().len() as u64;
        self.body += object.length();
        self.weight += object.weight();
    }
}

/// An object under a key of its own, as a fetch would store it, with ten fields.
fn object(id: u64, turn: u64, mean: u64) -> anyhow::Result<Arc<Object>> {
    let length = (id ^ turn << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (2 * mean);
    let path = format!("/assets/{id:08x}/image-1200x630.webp");
    let mut response = HeaderMap::new();
    for (name, value) in [
        ("content-type", "image/webp".to_owned()),
        ("content-length", length.to_string()),
        ("cache-control", "public, max-age=31536000, immutable".to_owned()),
        ("etag", format!("\"{id:x}-5f3a9c\"")),
        ("last-modified", "Tue, 15 Sep 2026 08:12:31 GMT".to_owned()),
        ("date", "Sat, 21 Nov 2026 13:00:40 GMT".to_owned()),
        ("server", "nginx".to_owned()),
        ("accept-ranges", "bytes".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("x-origin-node", format!("app-{}", id % 8)),
    ] {
        response.insert(HeaderName::from_static(name), HeaderValue::try_from(value)?);
    }
    let now = UnixMillis::from_secs(1_795_266_040);
    let exchange = Exchange {
        method: &Method::GET,
        path: &path,
        request: &HeaderMap::new(),
        status: StatusCode::OK,
        response: &response,
        request_time: now,
        response_time: now,
    };
    let head = StoredHead::new(&exchange, &Policy::default())
        .map_err(|reason| anyhow::anyhow!("the store refuses the benchmark's objects: {reason}"))?;
    let rules = KeyRules::default();
    let key = CacheKey::new("https", "www.cdn.test", &path, None, &HeaderMap::new(), &rules);
    let body = Bytes::from(vec![7; usize::try_from(length)?]);
    Ok(Arc::new(Object::new(key, VariantKey::NONE, head, vec![body])))
}

fn resident() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).context("/proc/self/statm has another form")?;
    Ok(pages.parse::<u64>()? * 4096)
}
