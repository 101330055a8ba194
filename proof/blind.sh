#!/usr/bin/env bash
# A server that was given only the server key, between two devices: whatever passes through it, no key, no value and no
# encryption key is found in any byte of its directory and its memory. The same search on a device finds them.
# Usage: proof/blind.sh [ROUNDS], 3 by default.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prove "${1:-3}"
