//! The `edge-cache` program.

/// Objects of all sizes come and go for months, and `memory` bounds the process: what has been freed must go back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CONF: &[u8; 91] =
    b"background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0,narenas:4,cache_oblivious:false\0";

/// Read by jemalloc when it starts. Freed pages go back within a tenth of a second, also while nothing is allocated; arenas
/// are few, for what one has free another cannot use; and no page is added to each large allocation, which costs bodies of
/// some pages a tenth. `_RJEM_MALLOC_CONF` in the environment comes after it.
// SAFETY: the name is jemalloc's alone, and what it finds there is what it expects: a pointer to text that ends with a
// zero.
#[expect(unsafe_code, reason = "the allocator looks for a symbol of this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_CONF: &[u8; CONF.len()] = CONF;

fn main() -> std::process::ExitCode {
    edge_cache::cmd::main()
}
