#!/usr/bin/env bash
# A bit is flipped in a file of a store, or the file cut off: each kind of file in turn, of a device, of one that runs, of
# a full server and of a blind one. It is refused in words or serves every key; `doctor` names it; and after a repair
# and a sync the store holds what the other side has.
# Usage: proof/damage.sh [PLACES], 200 by default. SEED=N repeats a run, ONLY=WORDS takes the kinds with these in their
# name, LIMIT=SECONDS ends it early.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(free_mib)" -gt 1024 ] || skip "needs 1 GiB free under $KVASS_WORK (PROOF_DIR=DIR)"
prove "${1:-200}"
