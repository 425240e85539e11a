#!/usr/bin/env bash
# Everything that a change must pass. Needs Rust's toolchain; cargo-deny for the licences.
set -euo pipefail

if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
  cat <<'TEXT'
usage: scripts/check.sh [STEP]...

Runs the steps named, or all of them in this order:
  fmt      formatting (cargo fmt --check)
  clippy   lints, warnings are errors
  test     unit, property and end-to-end tests (cargo test --workspace)
  doc      the documentation builds without warnings
  deny     licences, sources, banned and outdated crates (cargo-deny)
TEXT
  exit 0
fi

cd "$(dirname "$0")/.."
steps=("$@")
[[ ${#steps[@]} -gt 0 ]] || steps=(fmt clippy test doc deny)

for step in "${steps[@]}"; do
  case "$step" in
    fmt | clippy | test | doc | deny) ;;
    *) echo "unknown step '$step' (see --help)" >&2; exit 2 ;;
  esac
done

for step in "${steps[@]}"; do
  printf '\n== %s\n' "$step"
  case "$step" in
    fmt) cargo fmt --all --check ;;
    clippy) cargo clippy --workspace --all-targets --locked -- -D warnings ;;
    test) cargo test --workspace --locked ;;
    doc) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet ;;
    deny)
      if ! command -v cargo-deny >/dev/null; then
        echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2
        exit 1
      fi
      cargo deny --log-level error check licenses bans sources
      # Advisories need their database from the network: a machine that cannot reach it says so and goes on. The
      # versions that are known to be needed are floors in deny.toml.
      if output=$(cargo deny --log-level error check advisories 2>&1); then
        echo "advisories ok"
      elif grep -qiE 'failed to (fetch|acquire|open)|unable to|network|resolve host|could not' <<<"$output"; then
        echo "advisories not checked: their database cannot be reached from here"
      else
        printf '%s\n' "$output" >&2
        exit 1
      fi
      ;;
  esac
done
printf '\nall checks passed: %s\n' "${steps[*]}"
