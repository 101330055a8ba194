#!/usr/bin/env bash
# kvassd dies at every point between two steps whose order matters, as by kill -9: in commits, values, merges, changes of
# key, repairs, rewriting and starts. No acknowledged write is lost, every start succeeds, and nothing is left over.
# Usage: proof/failpoints.sh [ROUNDS], 10 by default; each goes once through all points in all that comes to them, and 0 to
# each point once. SEED=N repeats a run.
# KVASS_FAILPOINTS is the directory of a kvassd with the feature `failpoints`, else cargo builds one.
set -euo pipefail
if [ -z "${KVASS_FAILPOINTS:-}" ] && command -v cargo >/dev/null; then
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p kvassd --features failpoints
    KVASS_FAILPOINTS=$root/target/debug
fi
export KVASS_FAILPOINTS=${KVASS_FAILPOINTS:-}
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -n "$KVASS_FAILPOINTS" ] || skip 'needs cargo, or KVASS_FAILPOINTS'
prove "${1:-10}"
