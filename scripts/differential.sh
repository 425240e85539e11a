#!/usr/bin/env bash
# geodns against other servers, query by query. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/differential.sh [--quick] [--seed N]

Sends the same random queries to geodns and to gdnsd (steered and static names, client subnets), Knot and NSD (static
names), which serve the same zones and map: response code, flags, sections, client subnet and scope must be the same
but for differences that are known by name. Then clients ask through unbound with its subnet cache, and must get what
they get directly. Debian's packages of these servers are installed when run as root.

  --quick   a tenth of the queries to authoritative servers
  --seed N  another draw of map and queries; 1 by default

Exit 0: nothing else differs, or the servers cannot be installed here, which is said. 1: something differs; the query is
printed with both answers and how to repeat it. 2: usage.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
queries=100000 clients=10000 seed=1
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) queries=10000 ;;
    --seed)
      [[ ${2:-} =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }
      seed=$2
      shift
      ;;
    *) printf 'unknown: %s\n' "$1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

cd "$root"
if ! scripts/peers.sh gdnsd knotd:knot nsd unbound; then
  echo "skipped: there is nobody to compare with"
  exit 0
fi
# What is compared is the answers, not the speed: the build that tests use will do.
cargo build -q -p geodns
cargo build -q -p benches --bin dns_differential
target=${CARGO_TARGET_DIR:-target}/debug
failed=()
compare() {
  echo "== $*"
  "$target/dns_differential" "$@" --seed "$seed" --programs "$target" || failed+=("$*")
}
compare peer gdnsd --v4-only --queries $((queries / 10))
for peer in gdnsd knot nsd; do
  compare peer "$peer" --queries "$queries"
done
compare unbound --queries "$clients"
if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'differs: %s\n' "${failed[@]}"
  exit 1
fi
echo "ok"
