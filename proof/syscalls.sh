#!/usr/bin/env bash
# What a daemon asks the kernel for, in which order: before it answers, everything that the answer is about has been
# synced, byte by byte and name by name, and it relies on no sync_file_range.
# Usage: proof/syscalls.sh [ROUNDS], 3 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
command -v strace >/dev/null || skip 'needs strace'
strace -f -o /dev/null true 2>/dev/null || skip 'strace cannot trace here'
prove "${1:-3}"
