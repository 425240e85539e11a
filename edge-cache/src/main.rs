//! The `edge-cache` program.

fn main() -> std::process::ExitCode {
    edge_cache::cmd::main()
}
