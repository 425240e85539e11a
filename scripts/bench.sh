#!/usr/bin/env bash
# Benchmarks. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/bench.sh dns [--quick] [--no-peers]
       scripts/bench.sh hit [--quick]

  dns         geodns beside gdnsd, Knot, NSD, BIND and PowerDNS (Debian's packages, installed when run as root) and a
              bare echo: static, negative, steered answers by source and client subnet, cookies, TCP; a reload every
              second; a million names. Wants a quiet machine with two cores
  hit         hit rate of the store beside exact LRU and FIFO on Zipf, one-hit-wonder and churn mixes

  --quick     short: dns 2 minutes instead of 20, hit seconds instead of minutes
  --no-peers  dns: only geodns and the echo

Prints tables beside their goals, writes JSON and SVG under target/bench/. The last line is `ok` or what is below its
goal. Exit 0: every goal is met. 1: one is not, or a peer is missing. 2: usage.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mode=''
options=()
for argument; do
  case $argument in
    -h | --help) usage; exit 0 ;;
    --quick | --no-peers) options+=("$argument") ;;
    dns | hit) [[ -z $mode ]] || { usage >&2; exit 2; }; mode=$argument ;;
    *) printf 'unknown: %s\n' "$argument" >&2; usage >&2; exit 2 ;;
  esac
done
peers=1
for option in ${options[@]+"${options[@]}"}; do
  [[ $option != --no-peers ]] || peers=''
done
[[ $mode == dns || -n $peers ]] || { echo "--no-peers is for dns" >&2; exit 2; }

cd "$root"
case $mode in
  dns)
    [[ -z $peers ]] || scripts/peers.sh gdnsd knotd:knot knotd:knot-module-geoip nsd named:bind9 \
      pdns_server:pdns-backend-geoip || exit 1
    target=${CARGO_TARGET_DIR:-target}
    cargo build --release -q -p geodns
    cargo build --release -q -p benches --bin dns
    # Quick rounds leave the memory of millions out.
    quick=''
    for option in ${options[@]+"${options[@]}"}; do
      [[ $option != --quick ]] || quick=1
    done
    [[ -n $quick ]] || cargo run --release -q -p benches --bin dns_memory
    exec "$target/release/dns" --programs "$target/release" ${options[@]+"${options[@]}"}
    ;;
  hit)
    exec cargo run --release -q -p benches --bin hit_rate -- ${options[@]+"${options[@]}"}
    ;;
  *) usage >&2; exit 2 ;;
esac
