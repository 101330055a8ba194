#!/usr/bin/env bash
# Many `kvass set` at once from a cold start: all succeed, all keys are there, and one daemon.
# Usage: proof/crowd.sh [CLIENTS], 200 by default. Three times: a new store, after a stop, after kill -9.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "${1:-200}"
