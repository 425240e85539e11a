//! See `structured` in `src/http.rs` for what holds whatever the bytes.
#![no_main]

#[path = "../src/http.rs"]
mod http;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http::target("structured", input));
