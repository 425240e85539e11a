#!/usr/bin/env bash
# Servers to compare with, from Debian's packages. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/peers.sh PACKAGE | PROGRAM:PACKAGE ...

Installs those of Debian's packages that are not installed, when run as root, without starting their services. A PROGRAM
is where it differs from its package's name.

Exit 0: all are there. 3: some are not and cannot be installed; says which. 2: usage.
END
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  '' | -*) usage >&2; exit 2 ;;
esac

export PATH=$PATH:/usr/sbin:/sbin
missing() {
  local wanted
  for wanted; do
    local program=${wanted%%:*} package=${wanted##*:}
    # A package may add nothing but a module to a program that another one brings.
    if ! command -v "$program" >/dev/null; then
      echo "$package"
    elif command -v dpkg-query >/dev/null && [[ $program != "$package" ]]; then
      dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    fi
  done
}

packages=$(missing "$@" | sort -u)
[[ -n $packages ]] || exit 0
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  # Packages of servers start them; this says that they may not. What stood there before stands there again afterwards.
  policy=/usr/sbin/policy-rc.d
  if [[ -e $policy ]]; then
    kept=$(mktemp)
    cp -p "$policy" "$kept"
    trap 'mv -f "$kept" "$policy"' EXIT
  else
    trap 'rm -f "$policy"' EXIT
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  # shellcheck disable=SC2086
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >&2 || true
  packages=$(missing "$@" | sort -u)
  [[ -n $packages ]] || exit 0
fi
echo "not installed: ${packages//$'\n'/ }" >&2
exit 3
