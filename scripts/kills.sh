#!/usr/bin/env bash
# Kills a node that writes, again and again. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/kills.sh [KILLS] [SEED]

  A cache node with little memory and a small disk, clients, purges of all kinds, and `kill -9` KILLS times (200) in the
  middle of it. After each, what it answers is looked at byte by byte: nothing wrong, nothing torn, nothing older than a
  purge that was acknowledged. SEED (1) decides what is asked for, purged and killed when.

  Takes some three seconds a kill on two cores. Exit 0: all is right. 1: something is not, the seed is printed. 2: usage.
END
}

kills=200
seed=1
case ${1:-} in
  -h | --help) usage; exit 0 ;;
esac
(($# <= 2)) || { usage >&2; exit 2; }
for number; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || { printf 'no number: %s\n' "$number" >&2; usage >&2; exit 2; }
done
kills=${1:-$kills}
seed=${2:-$seed}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
MERIDIAN_KILLS=$kills MERIDIAN_SEED=$seed exec cargo test -q -p tests --test all -- \
  cache::durability::kills --nocapture
