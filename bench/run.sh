#!/usr/bin/env bash
# Measures kvass beside its peers, whole processes in one run, and prints a table for docs/benchmarks.md.
# Usage: bench/run.sh [-q] [measure|sync|links]   (-q: fewer runs, 64 MiB instead of 1 GiB; sync: a server and devices;
# links: beside nginx)
#
# Peers that are missing are installed where this is root and apt is there; without them their rows are skipped aloud.
. "$(dirname "${BASH_SOURCE[0]}")/../proof/lib.sh"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
bench_home=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

missing=()
for pair in redis-server:redis-server redis-cli:redis-tools sqlite3:sqlite3 age:age nginx:nginx-light wrk:wrk curl:curl; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    # The run level keeps Debian from starting a redis of its own; the one that is measured is started here.
    export RUNLEVEL=1
    { apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; }; } >&2 ||
        echo "could not be installed: ${missing[*]}" >&2
fi

case ${1:-} in
-q) big=64 runs=50 sets=500 records=20000 rounds=5 && shift ;;
*) big=1024 runs=300 sets=1000 records=100000 rounds=25 ;;
esac
[ "$(free_mib)" -gt $((big * 6 + 1024)) ] || skip "needs $((big * 6 + 1024)) MiB free under $KVASS_WORK (PROOF_DIR=DIR)"
proof_home=$bench_home PYTHONPATH=$(cd "$bench_home/../proof" && pwd)
export PYTHONPATH
proof_name=${1:-measure}
case $proof_name in
measure) prove "$big" "$runs" ;;
sync) prove "$big" "$sets" "$records" ;;
links) prove 100 "$rounds" 5 ;;
*) skip "there is no benchmark $proof_name" ;;
esac
