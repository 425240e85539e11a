//! The cache node of a CDN: first tier, second tier, or both.
//!
//! What is to be done is decided by plain functions over values: [`admit`] (which requests are taken in), [`route`] and
//! [`rules`] (what its route asks of a request and does to the response), [`key`] and [`url`] (what two requests have in
//! common), [`lookup`] (answer, revalidate, fetch or pass), [`tier`] and [`origin`] (whom to ask), [`reply`] (which answers
//! are believed), all by the rules in [`semantics`]. [`store`] keeps what may be kept, in aligned [`segment`]s, [`fill`]
//! shares one fetch among all who wait for it, [`purge`] says what of both is too old, [`framing`] finds requests in a
//! client's bytes, [`encode`] makes encodings of what is stored, [`sigv4`] signs what goes to buckets, [`meter`] reckons what
//! the node did lately, [`trace`] reads access logs, [`config`] is one node's configuration.
//! [`io`] does it, [`cmd`] is the command line. [`conformance`] says what is done of which specification.

pub mod admit;
pub mod cmd;
pub mod config;
pub mod conformance;
pub mod encode;
pub mod fill;
pub mod framing;
pub mod io;
pub mod key;
pub mod lookup;
pub mod meter;
pub mod origin;
pub mod predict;
pub mod purge;
pub mod reply;
pub mod route;
pub mod rules;
pub mod segment;
pub mod semantics;
pub mod sigv4;
pub mod store;
pub mod tier;
pub mod trace;
pub mod url;

/// What the program tells its allocator, for a string of C. Freed pages go back within a tenth of a second, also while nothing
/// is allocated; arenas are few, for what one has free another cannot use; and no page is added to each large allocation,
/// which costs bodies of some pages a tenth.
pub const ALLOCATOR_CONF: &[u8; 91] =
    b"background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0,narenas:4,cache_oblivious:false\0";
