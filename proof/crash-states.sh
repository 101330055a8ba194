#!/usr/bin/env bash
# States that a power cut could leave: every change of a run's files is recorded; the data directory is built again as the
# disk may hold it at moments in between, each change that was not synced kept or dropped, and the daemon is started on it.
# Usage: proof/crash-states.sh [STATES [RUN…]], 100 by default, of first-start, short-values, large-values, removals,
#        change-of-key and start-after-a-kill; rewrite, whose index has to grow first, only where it is named.
#        SEED=N repeats the choices; KEEP=DIR copies states that failed.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v strace >/dev/null || skip 'needs strace'
strace -f -o /dev/null true 2>/dev/null || skip 'strace cannot trace here'
prove "${1:-100}" "${@:2}"
