#!/usr/bin/env bash
# A store that is cut off or flipped somewhere after a clean stop is refused in words, or serves every key.
# Usage: proof/damage.sh [PLACES], 200 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(free_mib)" -gt 1024 ] || skip "needs 1 GiB free under $KVASS_WORK (PROOF_DIR=DIR)"
prove "${1:-200}"
