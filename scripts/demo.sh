#!/usr/bin/env bash
# The whole story of the CDN on this machine, checked step by step. See --help.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/demo.sh [up|down]

Builds the programs, starts a CDN on loopback addresses (2 name servers; Seoul, Frankfurt and Virginia with 2 edges
and 1 parent each; static files, an object store and a JSON API as origins) and

  (no argument)  tells its story with real queries and requests, checks every step, and ends everything.
                 Exit 0: every step held. Exit 1: the step that did not is named.
  up             leaves it running, and prints what to type.
  down           ends what `up` left running.

Needs Linux, Rust's toolchain, bash, coreutils and curl; uses dig when it is installed.
Configuration: config/demo/meridian.toml. Logs and process ids: var/demo/.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-target}
# Cargo is run in the root.
[[ $target == /* ]] || target=$root/$target
bin=$target/release
var=$root/var/demo
config=$root/config/demo/meridian.toml
# What the static origins serve: a copy, for a file of it changes and a large one is added.
site=$var/site
film=/films/one.mp4
film_size=$((32 << 20))
bucket=$root/config/demo/bucket
host=www.cdn.test

edges=(icn-1 icn-2 fra-1 fra-2 iad-1 iad-2)
parents=(icn-p1 fra-p1 iad-p1)
nameservers=(ns1 ns2)
origins=(static-1 static-2 bucket api)
declare -A ip=(
  [ns1]=127.0.0.53 [ns2]=127.0.0.54
  [icn-1]=127.0.1.1 [icn-2]=127.0.1.2 [icn-p1]=127.0.1.10
  [fra-1]=127.0.2.1 [fra-2]=127.0.2.2 [fra-p1]=127.0.2.10
  [iad-1]=127.0.3.1 [iad-2]=127.0.3.2 [iad-p1]=127.0.3.10
  [static-1]=127.0.9.1:9001 [static-2]=127.0.9.2:9001 [api]=127.0.9.3:9003 [bucket]=127.0.9.4:9004
)
# Seconds within which a dead datacenter leaves the answers: interval x down_after + 1 of [check.edge].
failover=3

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else bold='' dim='' green='' red='' plain=''; fi

current='starting'
steps=0
checks=0

step() { current=$1; steps=$((steps + 1)); printf '\n%s%d. %s%s\n' "$bold" "$steps" "$1" "$plain"; }
say() { printf '   %s\n' "$1"; }
command_line() { printf '   %s$ %s%s\n' "$dim" "$1" "$plain"; }
good() { checks=$((checks + 1)); printf '   %sok%s  %s\n' "$green" "$plain" "$1"; }
fail() {
  printf '\n%sfailed%s in step %d (%s): %s\n' "$red" "$plain" "$steps" "$current" "$1" >&2
  exit 1
}
# check DESCRIPTION CONDITION...: the condition is a command, usually [[ ]] through `is`.
check() { local what=$1; shift; if "$@"; then good "$what"; else fail "$what"; fi; }
is() { [[ $1 == "$2" ]]; }
contains() { [[ $1 == *"$2"* ]]; }
lacks() { [[ $1 != *"$2"* ]]; }
same_file() { [[ $(cksum <"$1") == "$(cksum <"$2")" ]]; }

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }

# wait_for SECONDS DESCRIPTION COMMAND...: asks again until it succeeds; fails after so many seconds.
wait_for() {
  local limit=$1 what=$2 end; shift 2
  end=$(($(now_ms) + limit * 1000))
  until "$@"; do
    (($(now_ms) < end)) || fail "waited $limit s for $what"
    sleep 0.05
  done
}

# ---- processes ------------------------------------------------------------------------------------------------------

# Starts NAME COMMAND... in the background, its output in the log, its process id on file.
start() {
  local name=$1; shift
  nohup "$@" >>"$var/$name.log" 2>&1 </dev/null &
  starting=$!
  echo "$starting" >"$var/$name.pid"
  # Not a job of this shell: nothing is printed when it ends, and it may outlive the script.
  disown
  # Until it has become the program, its id does not show whose it is.
  local tries
  for ((tries = 0; tries < 500; tries++)); do
    if ! gone "$name" || ! kill -0 "$starting" 2>/dev/null; then break; fi
    sleep 0.01
  done
  starting=''
}
start_node() {
  local program=edge-cache
  [[ $1 == ns? ]] && program=geodns
  start "$1" "$bin/$program" serve --config "$config" --node "$1"
}

start_group() {
  local name
  for name; do start_node "$name"; done
  for name; do wait_for 20 "$name to be ready" ready "$name"; done
}

# The process id of NAME while it is really our process: ids are used again by others.
pid_of() {
  local file=$var/$1.pid pid
  [[ -r $file ]] && read -r pid <"$file" && [[ -r /proc/$pid/cmdline ]] || return 1
  local line
  line=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || return 1
  [[ $line == *"/release/geodns "* || $line == *"/release/edge-cache "* || $line == *"/release/demo-origin "* ]] || return 1
  echo "$pid"
}
gone() { ! pid_of "$1" >/dev/null; }

# Ends every process whose id is on file: asked first, made to after five seconds.
end_all() {
  local file name pid end
  local -a names=()
  for file in "$var"/*.pid; do
    [[ -e $file ]] || continue
    name=${file##*/}; name=${name%.pid}
    names+=("$name")
    if pid=$(pid_of "$name"); then kill -TERM "$pid" 2>/dev/null || true; fi
  done
  end=$(($(now_ms) + 5000))
  for name in ${names[@]+"${names[@]}"}; do
    while ! gone "$name" && (($(now_ms) < end)); do sleep 0.05; done
    if pid=$(pid_of "$name"); then kill -KILL "$pid" 2>/dev/null || true; fi
    rm -f "$var/$name.pid"
  done
}

leave_running=no
starting=''
on_exit() {
  local status=$?
  trap '' INT TERM
  if [[ $leave_running == no ]]; then
    if [[ -n $starting ]]; then kill -TERM "$starting" 2>/dev/null || true; fi
    end_all
    if ((status != 0)) && [[ -d $var ]]; then printf 'the logs are in %s\n' "$var" >&2; fi
  fi
  exit "$status"
}

# ---- ports ----------------------------------------------------------------------------------------------------------

# As /proc/net writes it: address in little-endian hexadecimal, port.
proc_address() {
  local a b c d port
  IFS='.:' read -r a b c d port <<<"$1"
  printf '%02X%02X%02X%02X:%04X' "$d" "$c" "$b" "$a" "$port"
}

# Whether somebody has this address, or the port on all addresses. Kind tcp: listening; udp: bound.
busy() {
  local kind=$1 own any any6 _ local_address state
  own=$(proc_address "$2")
  any=00000000:${own#*:}
  any6=00000000000000000000000000000000:${own#*:}
  while read -r _ local_address _ state _; do
    [[ $local_address == "$own" || $local_address == "$any" || $local_address == "$any6" ]] || continue
    [[ $kind == udp || $state == 0A ]] && return 0
  done < <(cat "/proc/net/$kind" "/proc/net/${kind}6" 2>/dev/null)
  return 1
}

check_ports() {
  local name address taken=no
  local -a wanted=()
  for name in "${nameservers[@]}"; do wanted+=("udp ${ip[$name]}:5353" "tcp ${ip[$name]}:5353" "tcp ${ip[$name]}:8053"); done
  for name in "${edges[@]}"; do wanted+=("tcp ${ip[$name]}:8080" "tcp ${ip[$name]}:8443" "tcp ${ip[$name]}:9090"); done
  for name in "${parents[@]}"; do wanted+=("tcp ${ip[$name]}:8080" "tcp ${ip[$name]}:9090"); done
  for name in "${origins[@]}"; do wanted+=("tcp ${ip[$name]}"); done
  for address in "${wanted[@]}"; do
    if busy "${address% *}" "${address#* }"; then
      printf '%sbusy%s: %s port %s is taken by another program\n' "$red" "$plain" "${address% *}" "${address#* }" >&2
      taken=yes
    fi
  done
  [[ $taken == no ]] || fail 'end what uses these ports, or end an earlier demo with: scripts/demo.sh down'
  good "${#wanted[@]} addresses are free"
}

# ---- asking ---------------------------------------------------------------------------------------------------------

# resolve NAMESERVER SUBNET: the addresses that a client in this network gets for the site, into $addresses.
resolve() {
  local server=${ip[$1]} line
  if command -v dig >/dev/null; then
    query="dig +short +time=1 +tries=1 +subnet=$2 -p 5353 @$server $host A"
    answer=$(dig +short +time=1 +tries=1 "+subnet=$2" -p 5353 "@$server" "$host" A 2>&1) || true
  else
    query="geodns query $host A --server $server:5353 --subnet $2"
    answer=$("$bin/geodns" query "$host" A --server "$server:5353" --subnet "$2" 2>&1) || true
  fi
  addresses=''
  while [[ $answer =~ 127\.0\.[123]\.[0-9]+ ]]; do
    line=${BASH_REMATCH[0]}
    [[ " $addresses " == *" $line "* ]] || addresses+="${addresses:+ }$line"
    answer=${answer#*"$line"}
  done
}
# The datacenter of the addresses, or `mixed`.
datacenter() {
  local address found=''
  for address in $addresses; do
    case $address in
      127.0.1.*) address=icn ;; 127.0.2.*) address=fra ;; 127.0.3.*) address=iad ;;
    esac
    [[ -z $found || $found == "$address" ]] && found=$address || found=mixed
  done
  echo "${found:-none}"
}
goes_to() { resolve "$1" "$2"; [[ $(datacenter) == "$3" ]]; }

# fetch NODE PATH [CURL OPTIONS...]: sets $status, $fields (lower-case), $body_file, $cache_status.
fetch() {
  local node=$1 path=$2 line; shift 2
  body_file=$var/body
  local url=http://$host:8080$path
  request="curl --resolve $host:8080:${ip[$node]} $url${*:+ $*}"
  status=$(curl -sS --noproxy '*' --max-time 20 --resolve "$host:8080:${ip[$node]}" \
    -D "$var/head" -o "$body_file" -w '%{http_code}' "$@" "$url") || status=000
  read_fields
}
read_fields() {
  local line
  fields='' cache_status=''
  while IFS= read -r line; do
    line=${line%$'\r'}
    fields+=$line$'\n'
    if [[ ${line,,} == cache-status:* ]]; then
      line=${line#*:}
      cache_status+="${cache_status:+, }${line# }"
    fi
  done <"$var/head"
}
show_fetch() { command_line "$request"; say "$status; Cache-Status: ${cache_status:-(none)}"; }

# How often the static origins were asked for a path.
origin_count() {
  local a b
  a=$(curl -sS --noproxy '*' --max-time 5 "http://${ip[static-1]}/__count?path=$1")
  b=$(curl -sS --noproxy '*' --max-time 5 "http://${ip[static-2]}/__count?path=$1")
  echo $((a + b))
}

# How many bytes of a path the static origins have sent.
origin_sent() {
  local a b
  a=$(curl -sS --noproxy '*' --max-time 5 "http://${ip[static-1]}/__sent?path=$1")
  b=$(curl -sS --noproxy '*' --max-time 5 "http://${ip[static-2]}/__sent?path=$1")
  echo $((a + b))
}

# metric ADDRESS FAMILY [LABEL]: the sum of the family's series that carry this label.
metric() {
  local line sum=0 value
  while IFS= read -r line; do
    [[ $line == "$2 "* || $line == "$2{"* ]] || continue
    [[ $# -lt 3 || $line == *"$3"* ]] || continue
    value=${line##* }
    sum=$((sum + ${value%%.*}))
  done < <(curl -sS --noproxy '*' --max-time 5 "http://$1/metrics")
  echo "$sum"
}

ready() {
  local port=9090
  [[ $1 == ns? ]] && port=8053
  gone "$1" && { tail -n 5 "$var/$1.log" >&2; fail "$1 ended before it was ready"; }
  curl -sf --noproxy '*' --max-time 1 -o /dev/null "http://${ip[$1]}:$port/readyz"
}
healthy() {
  gone "$1" && { tail -n 5 "$var/$1.log" >&2; fail "$1 ended before it was ready"; }
  curl -sf --noproxy '*' --max-time 1 -o /dev/null "http://${ip[$1]}/healthz"
}

# ---- the story ------------------------------------------------------------------------------------------------------

build() {
  step 'Build the programs (the first time takes minutes)'
  command -v cargo >/dev/null || fail 'cargo is not installed: see https://rustup.rs'
  command -v curl >/dev/null || fail 'curl is not installed'
  command_line 'cargo build --release'
  (cd "$root" && cargo build --release -p geodns -p edge-cache -p tests \
    --bin geodns --bin edge-cache --bin demo-origin --bin demo-client) || fail 'the build failed'
  good 'geodns, edge-cache, demo-origin and demo-client are built'
}

begin() {
  step 'Check the configuration and the ports'
  mkdir -p "$var"
  local name
  for name in "${nameservers[@]}" "${edges[@]}" "${parents[@]}" "${origins[@]}"; do
    gone "$name" || { leave_running=yes; fail "a demo is running already: scripts/demo.sh down ends it"; }
  done
  rm -rf "$var"/*.log "$var"/*.pid "$site"
  cp -r "$root/config/demo/site" "$site"
  mkdir "$site${film%/*}"
  head -c "$film_size" /dev/urandom >"$site$film"
  check_ports
  command_line "geodns check --config config/demo/meridian.toml"
  "$bin/geodns" check --config "$config" >"$var/check.log" 2>&1 || { cat "$var/check.log" >&2; fail 'geodns refuses the configuration'; }
  "$bin/edge-cache" check --config "$config" >"$var/check.log" 2>&1 || { cat "$var/check.log" >&2; fail 'edge-cache refuses the configuration'; }
  good 'both programs accept it'

  step 'Start 4 origin servers, 3 parents, 6 edges and 2 name servers'
  # A thousand clients need more than the usual 1,024 descriptors.
  ulimit -n "$(ulimit -H -n)" 2>/dev/null || true
  local -a files=(--root "$site" --cache-control '/=max-age=300' --cache-control '/ttl/=max-age=2' --delay '/crowd/=500')
  start static-1 "$bin/demo-origin" static --listen "${ip[static-1]}" "${files[@]}"
  start static-2 "$bin/demo-origin" static --listen "${ip[static-2]}" "${files[@]}"
  start bucket "$bin/demo-origin" static --listen "${ip[bucket]}" --root "$bucket" --cache-control '/=max-age=3600'
  start api "$bin/demo-origin" api --listen "${ip[api]}"
  for name in "${origins[@]}"; do wait_for 10 "$name to answer" healthy "$name"; done
  # Those that others watch go first, so that nobody begins by finding the next one down.
  start_group "${parents[@]}"
  start_group "${edges[@]}"
  start_group "${nameservers[@]}"
  good 'all 15 processes are ready'
  for name in "${nameservers[@]}"; do
    wait_for 20 "$name to see every datacenter up" all_up "$name"
  done
  good 'both name servers see 3 datacenters up'
}
all_up() {
  goes_to "$1" 211.60.0.0/24 icn && goes_to "$1" 91.12.0.0/24 fra && goes_to "$1" 24.30.0.0/24 iad
}

story_dns() {
  step 'Clients are sent to the nearest datacenter, by EDNS client subnet'
  local case where subnet wanted name
  for case in 'a Korean client:211.60.0.0/24:icn' 'a German client:91.12.0.0/24:fra' \
    'an American client:24.30.0.0/24:iad' 'a Brazilian client:177.32.0.0/24:iad'; do
    IFS=: read -r where subnet wanted <<<"$case"
    for name in "${nameservers[@]}"; do
      resolve "$name" "$subnet"
      [[ $name == ns1 ]] && command_line "$query" && say "$addresses"
      check "$where ($subnet) is sent to $wanted by $name" is "$(datacenter)" "$wanted"
    done
  done

  step 'Every answer can be explained'
  command_line "geodns explain $host --client 177.32.0.9"
  local text
  text=$("$bin/geodns" explain "$host" --client 177.32.0.9 --config "$config" --node ns1 2>&1) || fail "explain: $text"
  printf '%s\n' "$text" | while IFS= read -r line; do say "$line"; done
  check 'the explanation names the datacenter' contains "$text" iad
  if command -v dig >/dev/null; then
    command_line "dig @127.0.0.53 -p 5353 TXT _explain.$host +subnet=177.32.0.0/24 +short"
    text=$(dig @127.0.0.53 -p 5353 TXT "_explain.$host" +subnet=177.32.0.0/24 +short) || fail 'dig failed'
    printf '%s\n' "$text" | while IFS= read -r line; do say "$line"; done
    check 'dig is told the same' contains "$text" iad
  fi

  step 'A change is rehearsed before it is made'
  command_line 'geodns whatif --down icn'
  text=$("$bin/geodns" whatif --down icn --config "$config" 2>/dev/null) || fail "whatif: $text"
  printf '%s\n' "$text" | while IFS= read -r line; do say "$line"; done
  check "Seoul's clients would go to another datacenter" contains "$text" 'icn -> '
}

story_cache() {
  step 'A first request misses through edge and parent, the second hits at the edge'
  local path=/style.css before
  before=$(origin_count $path)
  fetch icn-1 $path; show_fetch
  check 'it is answered 200' is "$status" 200
  check 'the parent missed' contains "$cache_status" '-p1; fwd='
  check 'the edge missed' contains "$cache_status" 'icn-1; fwd='
  check 'the origin was asked once' is $(($(origin_count $path) - before)) 1
  fetch icn-1 $path; show_fetch
  check 'the edge hits' contains "$cache_status" 'icn-1; hit'
  check 'the response tells its age' contains "${fields,,}" $'\nage:'
  check 'the origin was not asked again' is $(($(origin_count $path) - before)) 1

  step 'The sibling edge misses, and hits at the parent'
  fetch icn-2 $path; show_fetch
  check 'it is answered 200' is "$status" 200
  check 'the parent hits' contains "$cache_status" '-p1; hit'
  check 'the edge missed' contains "$cache_status" 'icn-2; fwd='
  check 'the origin was not asked again' is $(($(origin_count $path) - before)) 1

  step 'Pictures come from the object store, without their prefix'
  fetch fra-1 /images/seoul.svg; show_fetch
  check 'it is answered 200' is "$status" 200
  check 'these are the bytes of the file' same_file "$body_file" "$bucket/seoul.svg"

  step 'The API reaches its own origin, uncached'
  local first
  fetch iad-1 /api/time; show_fetch; first=$(<"$body_file"); say "$first"
  check 'it is answered 200' is "$status" 200
  fetch iad-1 /api/time; say "$(<"$body_file")"
  check 'the second answer is another one' lacks "$(<"$body_file")" "$first"
  check 'the API server answered' contains "$first" "${ip[api]}"
  fetch iad-1 /api/echo -X POST -d hello; show_fetch
  check 'a POST arrives with its content' contains "$(<"$body_file")" '"body":"hello"'

  step 'What expires is revalidated, not fetched again'
  path=/ttl/note.txt
  fetch fra-1 $path; show_fetch
  check 'it is answered 200' is "$status" 200
  wait_for 10 'the stored copy to expire and be revalidated' revalidated fra-1 $path
  show_fetch
  check 'the origin said 304' contains "$(origin_statuses $path)" 304
  check 'these are the bytes of the file' same_file "$body_file" "$site$path"

  step 'A thousand clients ask for one missing object in the same moment: the origin is asked once'
  path=/crowd/wanted.txt
  before=$(origin_count $path)
  command_line "demo-client --connections 1000 --connect ${ip[fra-2]}:8080 --host $host $path"
  local crowd
  crowd=$("$bin/demo-client" --connections 1000 --connect "${ip[fra-2]}:8080" --host "$host" $path) || fail "$crowd"
  printf '%s\n' "$crowd" | while IFS= read -r line; do say "$line"; done
  check 'all 1,000 are answered 200' contains "$crowd" '"200": 1000'
  check 'all have the same bytes' contains "$crowd" '"distinct_bodies": 1'
  check 'the origin was asked once' is $(($(origin_count $path) - before)) 1

  step 'HTTPS'
  command_line "curl -k --resolve $host:8443:${ip[iad-2]} https://$host:8443/"
  local version
  version=$(curl -sSk --noproxy '*' --max-time 20 --resolve "$host:8443:${ip[iad-2]}" -o "$var/body" -D "$var/head" \
    -w '%{http_version}' "https://$host:8443/") || fail 'no answer over TLS'
  read_fields
  say "HTTP/$version; Cache-Status: $cache_status"
  check 'the page of the demo is served' contains "$(<"$var/body")" '<title>Meridian demo</title>'
  if [[ $(curl -V) == *HTTP2* ]]; then check 'ALPN chose HTTP/2' is "$version" 2; fi
}
revalidated() { fetch "$1" "$2"; [[ $status == 200 && $cache_status == *"fwd=stale"* && $(origin_statuses "$2") == *304* ]]; }
# The statuses that the static origins gave for a path.
origin_statuses() {
  local line inside=no name
  for name in static-1 static-2; do
    inside=no
    while IFS= read -r line; do
      if [[ $line == *"\"$1\": {"* ]]; then inside=yes
      elif [[ $line == *'}'* ]]; then inside=no
      elif [[ $inside == yes ]]; then printf '%s ' "$line"; fi
    done < <(curl -sS --noproxy '*' --max-time 5 "http://${ip[$name]}/__count")
  done
}

story_purge() {
  local path=/news.txt url=http://$host:8080/news.txt name text
  step 'What an edge purges is gone, though its parent still has it'
  echo 'the first version' >"$site$path"
  for name in "${edges[@]}"; do
    fetch "$name" $path
    is "$(<"$body_file")" 'the first version' || fail "$name answers: $(<"$body_file")"
  done
  echo 'the second version' >"$site$path"
  fetch icn-1 $path; show_fetch
  check 'the first version is stored, as it may be' is "$(<"$body_file")" 'the first version'
  purge icn-1 "$url"
  fetch icn-1 $path; show_fetch
  check 'icn-1 answers with the second version' is "$(<"$body_file")" 'the second version'
  fetch fra-1 $path
  check 'fra-1, which was not told, has the first one still' is "$(<"$body_file")" 'the first version'

  step 'A purge of the whole CDN: parents first, then edges, all at one position'
  echo 'the third version' >"$site$path"
  position=''
  for name in "${parents[@]}" "${edges[@]}"; do
    purge "$name" "$url" ${position:+--position "$position"}
  done
  for name in "${edges[@]}"; do
    fetch "$name" $path
    is "$(<"$body_file")" 'the third version' || fail "$name answers: $(<"$body_file")"
  done
  good 'all 6 edges answer with the third version'
  text=$(curl -sS --noproxy '*' --max-time 5 "http://${ip[icn-1]}:9090/v1/object?url=$url") || fail "no answer: $text"
  check 'the admin API tells the position of the last purge' contains "$text" "$position"
}
# purge NODE ARGUMENTS...: sets $position to where the purge stands.
purge() {
  local name=$1 text; shift
  command_line "edge-cache purge --node $name $*"
  text=$("$bin/edge-cache" purge --config "$config" --node "$name" --output json "$@" 2>&1) || fail "purge: $text"
  [[ $text =~ \"seq\":\ *([0-9]+) ]] || fail "purge: $text"
  position=${BASH_REMATCH[1]}
}

story_routes() {
  local before url signed
  step 'A signature opens a route; one byte of a large film costs the origin one segment'
  fetch icn-1 $film; show_fetch
  check 'without a signature the answer is 403' is "$status" 403
  url=http://$host:8080$film
  command_line "edge-cache sign $url --key k1 --expires 1h"
  signed=$("$bin/edge-cache" sign "$url" --key k1 --expires 1h --config "$config" 2>&1) || fail "sign: $signed"
  say "$signed"
  before=$(origin_sent $film)
  fetch icn-1 "${signed#*:8080}" -r 20000000-20000000; show_fetch
  check 'with it the byte arrives: 206' is "$status" 206
  check 'it is the byte of the file' is "$(cksum <"$body_file")" "$(tail -c +20000001 "$site$film" | head -c 1 | cksum)"
  check "of $((film_size >> 20)) MiB the origin has sent 256 KiB" is $(($(origin_sent $film) - before)) $((256 << 10))
  fetch icn-1 "${signed#*:8080}" -r 20000100-20000200; show_fetch
  check 'its neighbours are a hit' contains "$cache_status" 'icn-1; hit'
  check 'a changed signature is refused' refused "${signed#*:8080}x"

  step 'A redirect, and an encoding, are made at the edge'
  fetch fra-2 '/old/style.css?v=1'; show_fetch
  check 'what has moved is answered 308' is "$status" 308
  check 'the new place is told' contains "${fields,,}" $'\nlocation: /style.css?v=1\n'
  wait_for 10 'the stylesheet to be stored in gzip, too' in_gzip fra-2 /style.css
  show_fetch
  check 'it is smaller' test "$(wc -c <"$body_file")" -lt "$(wc -c <"$site/style.css")"
  if command -v gzip >/dev/null; then
    gzip -dc <"$body_file" >"$var/unpacked"
    check 'unpacked it is the file' same_file "$var/unpacked" "$site/style.css"
  fi
}
refused() { fetch icn-1 "$1"; [[ $status == 403 ]]; }
in_gzip() { fetch "$1" "$2" -H 'Accept-Encoding: gzip'; [[ ${fields,,} == *$'\ncontent-encoding: gzip\n'* ]]; }

story_failover() {
  step 'Seoul dies: its clients move, nobody gets an empty answer'
  local name pid start took
  for name in icn-1 icn-2 icn-p1; do
    pid=$(pid_of "$name") || fail "$name does not run"
    kill -KILL "$pid"
    wait_for 5 "$name to be gone" gone "$name"
    rm -f "$var/$name.pid"
  done
  start=$(now_ms)
  say 'killed icn-1, icn-2 and icn-p1 (SIGKILL)'
  while :; do
    resolve ns1 211.60.0.0/24
    [[ -n $addresses ]] || fail 'the Korean client got an empty answer'
    [[ $(datacenter) == icn ]] || break
    (($(now_ms) - start < failover * 1000)) || break
    sleep 0.05
  done
  took=$(($(now_ms) - start))
  command_line "$query"; say "$addresses, after $took ms"
  check "the Korean client has left Seoul within $failover s" lacks "$(datacenter)" icn
  wait_for "$failover" 'ns2 to see it, too' left_seoul ns2
  good 'the second name server agrees'
  check 'the German client stays in Frankfurt' goes_to ns1 91.12.0.0/24 fra
  check 'the American client stays in Virginia' goes_to ns1 24.30.0.0/24 iad
  for name in /style.css /app.js /index.html /images/virginia.svg; do
    fetch fra-1 "$name"
    check "Frankfurt serves $name without the parent in Seoul" is "$status" 200
  done

  step 'Seoul comes back, and so do its clients'
  start=$(now_ms)
  start_group icn-p1
  start_group icn-1 icn-2
  for name in "${nameservers[@]}"; do
    wait_for 10 "the Korean client to return to Seoul on $name" goes_to "$name" 211.60.0.0/24 icn
  done
  good "the Korean client is back in Seoul after $(($(now_ms) - start)) ms"
}
left_seoul() { resolve "$1" 211.60.0.0/24; [[ -n $addresses && $(datacenter) != icn ]]; }

story_numbers() {
  step 'Hit rates per tier'
  local _ name path tier hits all
  # A little traffic, so that there is something to count: all edges, the whole page, three times.
  for _ in 1 2 3; do
    for name in "${edges[@]}"; do
      for path in / /style.css /app.js /images/logo.svg /images/seoul.svg /images/frankfurt.svg /images/virginia.svg; do
        fetch "$name" "$path"
        is "$status" 200 || fail "$name answered $status to $path"
      done
    done
  done
  say 'tier     node      requests   hits  collapsed  not asked further'
  local collapsed
  local -A total=() good_ones=() joined=()
  for name in "${edges[@]}" "${parents[@]}"; do
    tier=edge; [[ $name == *-p? ]] && tier=parent
    all=$(metric "${ip[$name]}:9090" edge_cache_requests_total)
    hits=$(metric "${ip[$name]}:9090" edge_cache_requests_total 'cache="hit"')
    collapsed=$(metric "${ip[$name]}:9090" edge_cache_collapsed_total)
    total[$tier]=$((${total[$tier]:-0} + all))
    good_ones[$tier]=$((${good_ones[$tier]:-0} + hits))
    joined[$tier]=$((${joined[$tier]:-0} + collapsed))
    rate "$tier" "$name" "$all" "$hits" "$collapsed"
  done
  for tier in edge parent; do
    rate "$tier" all "${total[$tier]}" "${good_ones[$tier]}" "${joined[$tier]}"
  done
  check 'the edges answered more than half without asking further' \
    test $(((good_ones[edge] + joined[edge]) * 2)) -gt "${total[edge]}"
  check 'the parents hit, too' test "${good_ones[parent]}" -gt 0
}

# rate TIER NODE REQUESTS HITS COLLAPSED: a line of the table.
rate() {
  say "$(printf '%-8s %-8s %9d %6d %10d %17d%%' "$@" "$(($3 ? ($4 + $5) * 100 / $3 : 0))")"
}

story_end() {
  step 'Everything ends'
  end_all
  local name
  for name in "${nameservers[@]}" "${edges[@]}" "${parents[@]}" "${origins[@]}"; do
    gone "$name" || fail "$name is still running"
  done
  good 'nothing is left running'
}

what_to_type() {
  cat <<END

${bold}The demo is running.${plain} Try:

  DNS     dig +subnet=211.60.0.0/24 -p 5353 @127.0.0.53 $host
          $bin/geodns query $host A --server 127.0.0.53:5353 --subnet 177.32.0.0/24
          $bin/geodns explain $host --client 91.12.0.1 --config $config --node ns1
  HTTP    curl -i --resolve $host:8080:127.0.1.1 http://$host:8080/style.css
          curl -i --resolve $host:8080:127.0.2.1 http://$host:8080/api/time
  HTTPS   curl -ik --resolve $host:8443:127.0.1.1 https://$host:8443/
  Browser chromium --host-resolver-rules="MAP $host 127.0.1.1" --ignore-certificate-errors \\
            --user-data-dir=\$(mktemp -d) https://$host:8443/
  Status  $bin/geodns status --config $config --node ns1
          $bin/edge-cache status --config $config --node icn-1
          curl http://127.0.1.1:9090/metrics
  Purge   $bin/edge-cache purge http://$host:8080/style.css --config $config --node icn-1
  Sign    $bin/edge-cache sign http://$host:8080$film --key k1 --expires 1h --config $config
  Logs    $var/

  End it  $root/scripts/demo.sh down
END
}

case ${1:-story} in
  -h | --help | help) usage; exit 0 ;;
  story | up | down) (($# <= 1)) || { usage >&2; exit 2; } ;;
  *) usage >&2; exit 2 ;;
esac

case ${1:-story} in
  down)
    end_all
    echo 'nothing of the demo is running'
    ;;
  up)
    trap on_exit EXIT
    trap 'exit 130' INT TERM
    build
    begin
    leave_running=yes
    what_to_type
    ;;
  story)
    trap on_exit EXIT
    trap 'exit 130' INT TERM
    build
    begin
    story_dns
    story_cache
    story_purge
    story_routes
    story_failover
    story_numbers
    story_end
    printf '\n%sEvery step held%s: %d steps, %d checks.\n' "$bold" "$plain" "$steps" "$checks"
    ;;
esac
