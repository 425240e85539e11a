//! What small objects take in the memory tier beside their bodies, against what they are weighed with.
//!
//! The constant in `edge_cache::store` comes from here. A process of its own, so that its resident memory is theirs.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads its own memory and prints"
)]

use std::sync::Arc;

use anyhow::Context;
use benches::stored::object;
use edge_cache::store::Memory;

const OBJECTS: u64 = 400_000;
const BODY: u64 = 1024;

fn main() -> anyhow::Result<()> {
    let memory = Memory::new(16 << 30, 1 << 20);
    // moka's own tables are part of what an object costs; the first ones are there before we look.
    memory.insert(Arc::new(object(0, BODY)?));
    let before = resident()?;
    let mut weighed = 0;
    for id in 1..=OBJECTS {
        let object = object(id, BODY)?;
        // Bodies are slices of one static page: they are weighed, but take nothing here.
        weighed += object.weight() - BODY;
        memory.insert(Arc::new(object));
    }
    let each = (resident()? - before) / OBJECTS;
    println!(
        "{OBJECTS} objects, each beside its body: {each} bytes resident, {} weighed",
        weighed / OBJECTS
    );
    Ok(())
}

fn resident() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).context("/proc/self/statm has another form")?;
    Ok(pages.parse::<u64>()? * 4096)
}
