#!/usr/bin/env bash
# Signed requests against a real S3-speaking server. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/bucket.sh

Tests edge-cache in front of an S3-compatible bucket: moto checks the signature of every request, and botocore signs two
hundred random ones again, which must come to the same. Both are Python's: they are installed into target/bucket, once.
After that `cargo test` runs these tests, too.

Exit 0: all is well. 1: a test failed, or Python with venv cannot be had. 2: usage.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) printf 'unknown: %s\n' "$1" >&2; usage >&2; exit 2 ;;
esac

cd "$root"
venv=$root/target/bucket
python=$venv/bin/python
if ! "$python" -c 'import moto.server, boto3, flask' 2>/dev/null; then
  command -v python3 >/dev/null || { echo "python3 is needed" >&2; exit 1; }
  mkdir -p target
  python3 -m venv --clear "$venv" || { echo "python3-venv is needed" >&2; exit 1; }
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'moto[server]==5.2.5'
fi
MERIDIAN_BUCKET_PYTHON=$python cargo test --locked -p tests --test all cache::buckets
