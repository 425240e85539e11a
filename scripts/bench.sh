#!/usr/bin/env bash
# Benchmarks. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/bench.sh hit [--quick]

  hit       hit rate of the store beside exact LRU and FIFO on Zipf, one-hit-wonder and churn mixes

  --quick   a tenth of the requests: seconds instead of minutes

Prints a table, writes JSON and SVG under target/bench/. The last line is `ok` or what is below its goal.
Exit 0: every goal is met. 1: one is not. 2: usage.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mode=''
options=()
for argument; do
  case $argument in
    -h | --help) usage; exit 0 ;;
    --quick) options+=(--quick) ;;
    hit) [[ -z $mode ]] || { usage >&2; exit 2; }; mode=$argument ;;
    *) printf 'unknown: %s\n' "$argument" >&2; usage >&2; exit 2 ;;
  esac
done

case $mode in
  hit)
    cd "$root"
    exec cargo run --release -q -p benches --bin hit_rate -- ${options[@]+"${options[@]}"}
    ;;
  *) usage >&2; exit 2 ;;
esac
