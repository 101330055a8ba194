#!/usr/bin/env bash
# What a machine keeps to itself: another user gets at no file, socket, process or link; no core, no other process of the
# same user, no log and no list of processes shows a secret; the keys are where they cannot be swapped out.
# Usage: proof/secrets.sh, as root, to be two users.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(id -u)" = 0 ] || skip 'needs root, to be two users'
prove "$@"
