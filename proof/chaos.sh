#!/usr/bin/env bash
# A server and three devices behind a network that cuts, delays, holds, repeats, flips and reorders what passes, while
# machines are killed, stopped, put to sleep, copied, put back, cloned, moved and given other keys: after it all hold the
# same, and no acknowledged write is lost.
# Usage: proof/chaos.sh [ROUNDS], 4 by default. SEED=N repeats the choices of a run; STORM=SECONDS, 12 by default, is how
# long a round lasts before everything is mended and compared.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "${1:-4}"
