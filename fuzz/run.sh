#!/usr/bin/env bash
# Fuzzes what reads bytes from outside. Usage: fuzz/run.sh [SECONDS [TARGET…]], default 10 seconds of every target.
#
# FUZZ_RUNS     ends a target after so many runs, where that comes first
# FUZZ_WORK     where what is found on the way stays from one run to the next; default: nowhere
# FUZZ_KEEP     yes: puts what reaches anything new into fuzz/corpus/, as little as reaches the same
# FUZZ_QUICK    yes: builds in half the time what runs at a third of the speed
# FUZZ_INSTALL  yes: installs cargo-fuzz where it is missing
# FUZZ_BUILD    how long the build may take, in seconds; where it takes longer nothing is fuzzed. Default: for ever
#
# Prints a line a target and ends with 0 (nothing found), 1 (a crash, a hang, or too much memory; the input is in
# fuzz/artifacts/TARGET/) or 77 (cannot run here, and says why).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec </dev/null

seconds=${1:-10}
[ $# -eq 0 ] || shift
targets=("$@")
triple=$(rustc -vV | sed -n 's/^host: //p')
programs=${CARGO_TARGET_DIR:-$PWD/target}/$triple
work=${FUZZ_WORK:-}
made=
stores=

skip() {
    echo "fuzz: SKIPPED: $*" >&2
    exit 77
}

# The instruments are options of the compiler that need a nightly, or a stable one that is told to take them.
compiler() {
    if command -v rustup >/dev/null && rustup run nightly rustc --version >/dev/null 2>&1; then
        export RUSTUP_TOOLCHAIN=nightly
    else
        export RUSTC_BOOTSTRAP=1
    fi
}

tool() {
    cargo fuzz --version >/dev/null 2>&1 && return
    [ "${FUZZ_INSTALL:-}" = yes ] || skip 'needs cargo-fuzz: cargo install --locked cargo-fuzz, or FUZZ_INSTALL=yes'
    cargo install --quiet --locked cargo-fuzz
}

# Without a sanitizer: our code has no `unsafe`, so what they find is not there, and all runs twice as fast.
build() {
    local status=0 how=(--codegen-units 16)
    command -v c++ >/dev/null || skip 'needs a C++ compiler, for libFuzzer'
    programs+=/release
    if [ "${FUZZ_QUICK:-}" = yes ]; then
        how=(--dev --no-trace-compares)
        programs=${programs%/release}/debug
    fi
    timeout "${FUZZ_BUILD:-0}" cargo fuzz build --sanitizer none "${how[@]}" >"$work/build" 2>&1 || status=$?
    [ "$status" != 124 ] || skip "the build takes longer than $FUZZ_BUILD s here"
    [ "$status" = 0 ] || { tail -n 30 "$work/build" && exit 1; }
}

# What a target's inputs may weigh, in bytes, and how long one of them may take, in seconds.
most() {
    case $1 in
    import | frames | rows) echo 16384 ;;
    *) echo 4096 ;;
    esac
}

# Whether a target reads what is to be done from its input. Then long inputs are tried from the beginning: each run takes
# so long that the fuzzer, left alone, would not come to a second thing in an hour.
growth() {
    case $1 in
    blob | chunks | handshake | header | http | local | remote | session) echo 0 ;;
    *) echo 100 ;;
    esac
}

fuzz() {
    local target=$1 log=$work/$1.log found=$work/$1 began=$SECONDS status=0 runs reached
    mkdir -p "$found" "corpus/$target" "artifacts/$target"
    "$programs/$target" "$found" "corpus/$target" -max_total_time="$seconds" -runs="${FUZZ_RUNS:--1}" \
        -max_len="$(most "$target")" -len_control="$(growth "$target")" -timeout=300 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="artifacts/$target/" >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    reached=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) .*/\1 edges, \2 features/p' "$log" | tail -n 1)
    printf '%-10s %12s runs, %4d s, %s' "$target" "${runs:-?}" $((SECONDS - began)) "${reached:-nothing reached}"
    if [ "$status" != 0 ]; then
        printf ': FAILED with %d\n' "$status"
        grep -m 5 -E 'panicked|ERROR|^artifact|Test unit written' -A 2 "$log" || tail -n 5 "$log"
        return 1
    fi
    printf '\n'
    [ "${FUZZ_KEEP:-}" != yes ] || keep "$target"
}

# Where the stores of the targets are: in memory, where that has space. No target removes what it has only once.
places() {
    local base=${TMPDIR:-/tmp} free
    trap 'rm -rf ${made:+"$made"} ${stores:+"$stores"}' EXIT
    [ -n "$work" ] || { made=$(mktemp -d) && work=$made; }
    mkdir -p "$work"
    free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }') || true
    [ "${free:-0}" -le $((512 << 10)) ] || [ ! -w /dev/shm ] || base=/dev/shm
    stores=$(mktemp -d "$base/kvass-fuzz.XXXXXX")
    export TMPDIR=$stores
}

# Of the corpus and what was found, the least that reaches as much.
keep() {
    local kept=$work/$1.kept
    rm -rf "$kept"
    mkdir "$kept"
    "$programs/$1" -merge=1 -max_len="$(most "$1")" "$kept" "corpus/$1" "$work/$1" >"$work/$1.merge" 2>&1
    rm -rf "corpus/$1"
    mv "$kept" "corpus/$1"
}

compiler
tool
places
began=$SECONDS
build
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(cargo fuzz list)
fi
printf 'built in %d s\n' $((SECONDS - began))
failed=0
for target in "${targets[@]}"; do
    fuzz "$target" || failed=1
done
exit "$failed"
