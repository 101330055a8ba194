#!/usr/bin/env bash
# One large value: memory of daemon and client stays within 32 MiB of idle, and its space comes back.
# Usage: proof/large.sh [MIB], 1024 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
size=${1:-1024}
[ "$(free_mib)" -gt $((size * 5 + 256)) ] || skip "needs $((size * 5 + 256)) MiB free under $KVASS_WORK (PROOF_DIR=DIR)"
prove "$size"
