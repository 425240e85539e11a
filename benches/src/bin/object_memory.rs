//! What objects take in memory beside their fields and bodies, against what they are weighed with.
//!
//! The constants in `edge_cache::store` come from here. A process of its own, so that its resident memory is theirs.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads its own memory and prints"
)]

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
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

const OBJECTS: u64 = 100_000;
/// Bodies differ in length, so that all sizes of the allocator come up.
const MEAN_BODY: u64 = 1024;
/// Bytes that an object may take in memory beside names and values of its fields and its body; the key counts.
const GOAL: i64 = 250;
/// What objects are weighed with may be off by so many per cent.
const OFF: u64 = 4;

fn main() -> anyhow::Result<ExitCode> {
    let mut sums = Sums::default();
    let before = resident()?;
    let mut objects = Vec::with_capacity(usize::try_from(OBJECTS)?);
    for id in 0..OBJECTS {
        let object = object(id)?;
        sums.add(&object);
        objects.push(object);
    }
    let list = OBJECTS * size_of::<Arc<Object>>() as u64;
    let alone = (resident()? - before - list) / OBJECTS;
    let memory = Memory::new(Settings::new(4 << 30, 1 << 20));
    let before = resident()?;
    for object in &objects {
        memory.insert(Arc::clone(object));
    }
    let table = (resident()? - before) / OBJECTS;
    let stored = alone + table;
    let Sums { wire, text, key, body, weight } = sums;
    println!("{OBJECTS} objects with heads as origins send them, bytes of each:");
    println!("  fields as HTTP/1 writes them    {:6}", wire / OBJECTS);
    println!("  fields, names and values alone  {:6}", text / OBJECTS);
    println!("  body                            {:6}", body / OBJECTS);
    println!("  key                             {:6}", key / OBJECTS);
    println!("  resident, without a table       {alone:6}");
    println!("  resident, the table's part      {table:6}");
    println!("  weighed                         {:6}", weight / OBJECTS);
    let beyond =
        |taken: u64, fields: u64| taken.cast_signed() - ((fields + body) / OBJECTS).cast_signed();
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
    let mut missed = Vec::new();
    if beyond(stored, text) > GOAL {
        missed.push(format!("{} bytes an object, goal {GOAL}", beyond(stored, text)));
    }
    let weighed = weight / OBJECTS;
    if weighed.abs_diff(stored) * 100 > stored * OFF {
        missed.push(format!("weighed {weighed} bytes for {stored}, goal: within {OFF} %"));
    }
    println!("goal: {GOAL} bytes beyond names, values and body; weighed within {OFF} %");
    if missed.is_empty() {
        println!("ok");
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

/// An object as a fetch would store it, with ten fields.
fn object(id: u64) -> anyhow::Result<Arc<Object>> {
    let length = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (2 * MEAN_BODY);
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
