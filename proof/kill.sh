#!/usr/bin/env bash
# kill -9 of the daemon at random moments under load: no acknowledged write is lost, and every start succeeds.
# Usage: proof/kill.sh [ROUNDS], 300 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "${1:-300}"
