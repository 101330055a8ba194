#!/usr/bin/env bash
# The session of the project's first document with the installed programs: one machine, a server whose key comes over a
# pipe, `set` here and `get` there, both ways, a second and a third device, time apart; then kill -9 of server and devices.
# Usage: proof/sync.sh [KILLS], 5 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "${1:-5}"
