//! Any bytes as a query: see `src/target.rs` for what every answer keeps to.
#![no_main]

#[path = "../src/target.rs"]
mod target;

use std::sync::LazyLock;

static TARGET: LazyLock<target::Target> = LazyLock::new(target::Target::new);

libfuzzer_sys::fuzz_target!(|packet: &[u8]| TARGET.check(packet));
