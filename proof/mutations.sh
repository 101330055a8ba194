#!/usr/bin/env bash
# Wrong lines, put one at a time into a copy of the source, which the simulation must notice: it is as good as what it
# finds. The lines are in mutations.toml. Needs Rust and Python 3.11; KVASS_WORK=DIR keeps the copy and what is built.
# Usage: proof/mutations.sh [check | NUMBER…]: `check` only sees that every mutation still applies; numbers choose some.
#        KVASS_SEEDS=N lives at most so many worlds for each, 300 by default.
set -euo pipefail
home=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$(command -v python3 || true)}
if [ -z "$python" ] || ! "$python" -c 'import tomllib' 2>/dev/null; then
    echo 'mutations: SKIPPED: needs Python 3.11 or newer' >&2
    exit 77
fi
if [ "${1:-}" = check ]; then
    exec "$python" -B "$home/mutations.py" check
fi
if [ -z "${KVASS_WORK:-}" ]; then
    KVASS_WORK=$(mktemp -d "${PROOF_DIR:-${TMPDIR:-/tmp}}/kvass-mutations.XXXXXX")
    trap 'rm -rf "$KVASS_WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
fi
export KVASS_WORK
"$python" -B "$home/mutations.py" "$@"
