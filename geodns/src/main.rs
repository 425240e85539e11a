//! The `geodns` program: see [`geodns`].

fn main() -> std::process::ExitCode {
    geodns::cmd::run()
}
