//! The `edge-cache` program.

use edge_cache::ALLOCATOR_CONF;

/// Objects of all sizes come and go for months, and `memory` bounds the process: what has been freed must go back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc when it starts. `_RJEM_MALLOC_CONF` in the environment comes after it.
// SAFETY: the name is jemalloc's alone, and what it finds there is what it expects: a pointer to text that ends with a
// zero.
#[expect(unsafe_code, reason = "the allocator looks for a symbol of this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONF: &[u8; ALLOCATOR_CONF.len()] = ALLOCATOR_CONF;

fn main() -> std::process::ExitCode {
    edge_cache::cmd::main()
}
