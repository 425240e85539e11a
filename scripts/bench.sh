#!/usr/bin/env bash
# Benchmarks. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/bench.sh dns [--quick] [--no-peers]
       scripts/bench.sh hit [--quick] [--record] [--trace FILE] [--class NAMES] [--policy NAMES] [--size PERCENTS]
       scripts/bench.sh tiers [--quick]
       scripts/bench.sh store [--quick]
       scripts/bench.sh replay [--quick] [--no-peers]

  dns         geodns beside gdnsd, Knot, NSD, BIND and PowerDNS (Debian's packages, installed when run as root) and a
              bare echo: static, negative, steered answers by source and client subnet, cookies, TCP; a reload every
              second; a million names. Wants a quiet machine with two cores
  hit         hit ratios of the store's policies beside FIFO, LRU, CLOCK, SIEVE, S3-FIFO, GDSF, moka, quick_cache, foyer and
              what nobody can beat, on request streams like a CDN's (web, images, video, downloads) or on a log of yours;
              memory over disk; a crawl. The same figures on every machine: the run is held against benches/results
  tiers       edges over parents: what the origin is spared, and what it sees when a parent comes, goes or restarts
  store       how long the memory tier takes to answer, by policy, beside moka and quick_cache; what an object takes beside
              its fields and body, and what it is weighed with; a disk's index: how soon it is ready, what an entry takes,
              how long a look and an entry more take
  replay      one trace through edge-cache and through nginx, Varnish, Traffic Server and Squid (Debian's packages,
              installed when run as root), with the same memory and disk, before the same origin: hit ratios, memory, CPU

  --quick     short: dns 2 minutes instead of 20, hit one instead of half an hour (a tenth of the objects, no goals), store
              an eighth of the requests and half a million records (no goals for how soon they are ready)
  --record    hit: the figures become the committed ones, in benches/results
  --trace, --class, --policy, --size
              hit: a log in place of the streams, or a part of all that; held against nothing committed
  --no-peers  dns: only geodns and the echo; replay: only edge-cache

Prints tables beside their goals, writes JSON and SVG under target/bench/. The last line is `ok` or what is below its
goal. Exit 0: every goal is met. 1: one is not, or a peer is missing. 2: usage.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mode=''
options=()
peers=1 quick='' record='' part=''
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) quick=1 options+=("$1") ;;
    --no-peers) peers='' options+=("$1") ;;
    --record) record=1 ;;
    --trace | --class | --policy | --size)
      [[ $# -gt 1 ]] || { usage >&2; exit 2; }
      part=1 options+=("$1" "$2")
      shift
      ;;
    dns | hit | tiers | store | replay) [[ -z $mode ]] || { usage >&2; exit 2; }; mode=$1 ;;
    *) printf 'unknown: %s\n' "$1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
[[ $mode == dns || $mode == replay || -n $peers ]] || { echo "--no-peers is for dns and replay" >&2; exit 2; }
[[ $mode == hit || -z $record$part ]] || { echo "--record, --trace, --class, --policy and --size are for hit" >&2; exit 2; }

cd "$root"
case $mode in
  dns)
    [[ -z $peers ]] || scripts/peers.sh gdnsd knotd:knot knotd:knot-module-geoip nsd named:bind9 \
      pdns_server:pdns-backend-geoip || exit 1
    target=${CARGO_TARGET_DIR:-target}
    cargo build --release -q -p geodns
    cargo build --release -q -p benches --bin dns
    # Quick rounds leave the memory of millions out.
    [[ -n $quick ]] || cargo run --release -q -p benches --bin dns_memory
    exec "$target/release/dns" --programs "$target/release" ${options[@]+"${options[@]}"}
    ;;
  replay)
    [[ -z $peers ]] || scripts/peers.sh nginx varnishd:varnish traffic_server:trafficserver squid || exit 1
    target=${CARGO_TARGET_DIR:-target}
    cargo build --release -q -p edge-cache
    cargo build --release -q -p benches --bin http_replay
    exec "$target/release/http_replay" --programs "$target/release" ${options[@]+"${options[@]}"}
    ;;
  hit)
    results=benches/results
    if [[ -n $record ]]; then
      options+=(--record "$results")
    elif [[ -z $part ]]; then
      options+=(--check "$results/hit${quick:+-quick}.json")
    fi
    exec cargo run --release -q -p benches --bin hit_rate -- ${options[@]+"${options[@]}"}
    ;;
  tiers)
    exec cargo run --release -q -p benches --bin tiers -- ${options[@]+"${options[@]}"}
    ;;
  store)
    bins=(store_speed disk_index object_memory)
    cargo build --release -q -p benches "${bins[@]/#/--bin=}"
    missed=''
    for bin in "${bins[@]}"; do
      printf '\n%s\n' "$bin"
      # What objects take is measured in seconds.
      [[ $bin != object_memory ]] || options=()
      "${CARGO_TARGET_DIR:-target}/release/$bin" ${options[@]+"${options[@]}"} || missed+=" $bin"
    done
    [[ -z $missed ]] || { printf '\nbelow its goal:%s\n' "$missed"; exit 1; }
    printf '\nok\n'
    ;;
  *) usage >&2; exit 2 ;;
esac
