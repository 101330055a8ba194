# Sourced by the proofs: finds the programs, makes a working directory, and cleans up whatever happens.
# shellcheck shell=bash
#
# KVASS_BIN   directory of `kvass` and `kvassd`; default: where PATH finds `kvass`
# PROOF_DIR   where the working directory is made, on a real disk; default: $TMPDIR, else /tmp
# PYTHON      the Python 3 to use
#
# A proof ends with one line of figures and exit 0 (held), 1 (did not hold) or 77 (cannot run here, and says why).

set -euo pipefail

proof_name=$(basename "$0" .sh)
driver=
proof_home=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

skip() {
    echo "$proof_name: SKIPPED: $*" >&2
    exit 77
}

find_python() {
    local found=${PYTHON:-}
    [ -n "$found" ] || found=$(command -v python3) || skip 'needs python3'
    # What stands in PATH may be a wrapper that needs HOME, which is replaced below.
    "$found" -c 'import sys; print(sys.executable)' || skip "needs a python3 that runs; $found does not"
}

find_programs() {
    local at=${KVASS_BIN:-}
    if [ -z "$at" ]; then
        at=$(command -v kvass) || skip 'needs kvass and kvassd in PATH, or KVASS_BIN=DIR'
        at=$(dirname "$at")
    fi
    [ -d "$at" ] || skip "there is no directory $at"
    at=$(cd "$at" && pwd)
    if [ ! -x "$at/kvass" ] || [ ! -x "$at/kvassd" ]; then
        skip "kvass and kvassd are not both in $at"
    fi
    echo "$at"
}

# The daemons that this proof started: kvassd by name, and with this working directory in environment or arguments.
own_daemons() {
    local process
    for process in /proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" = kvassd ] || continue
        if grep -qsaF "$KVASS_WORK/" "$process/cmdline" "$process/environ"; then
            echo "${process#/proc/}"
        fi
    done
}

clean_up() {
    local status=$? process mount
    trap - EXIT INT TERM HUP
    if [ -n "$driver" ] && kill -9 "$driver" 2>/dev/null; then
        # Its commands, too, end before what they stand on goes.
        wait "$driver" 2>/dev/null || true
        sleep 1
    fi
    for process in $(own_daemons); do
        kill -9 "$process" 2>/dev/null || true
    done
    # Unmounting a loop mount gives its loop device back as well.
    awk -v work="$KVASS_WORK/" 'index($2, work) == 1 { print $2 }' /proc/mounts 2>/dev/null | sort -r |
        while read -r mount; do
            umount "$mount" 2>/dev/null || { sleep 0.3; umount "$mount" 2>/dev/null; } || umount -l "$mount" || true
        done
    rm -rf --one-file-system "$KVASS_WORK" 2>/dev/null || rm -rf "$KVASS_WORK"
    exit "$status"
}

# Free space under the working directory, in MiB.
free_mib() {
    df -Pm "$KVASS_WORK" | awk 'NR == 2 { print $4 }'
}

[ "$(uname -s)" = Linux ] || skip 'the proofs look into /proc, which only Linux has'
PYTHON=$(find_python)
KVASS_BIN=$(find_programs)
# A socket's path holds 107 bytes, so a deep temporary directory is of no use.
proof_base=${PROOF_DIR:-${TMPDIR:-/tmp}}
[ "${#proof_base}" -le 50 ] || proof_base=/tmp
KVASS_WORK=$(cd "$(mktemp -d "$proof_base/kvass-$proof_name.XXXXXX")" && pwd -P)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
export PYTHON KVASS_BIN KVASS_WORK

# The user's own store is out of reach from here on.
unset KVASS_DB KVASS_SOCKET XDG_DATA_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR
export HOME="$KVASS_WORK/home"
mkdir "$HOME"

# Beside the shell and not in front of it, so that a signal is heard at once.
prove() {
    "$PYTHON" -B "$proof_home/$proof_name.py" "$@" </dev/null &
    driver=$!
    wait "$driver"
}
