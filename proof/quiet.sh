#!/usr/bin/env bash
# Devices whose remote is up, down, a black hole, of another key, there and gone, or full, and one whose own disk is full:
# their logs and the servers' stay short, and `get` and `set` are as fast as beside a remote that is up.
# Usage: proof/quiet.sh [SECONDS], 70 by default. As root, for two small tmpfs.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(id -u)" = 0 ] || skip 'needs root, to mount small file systems'
for name in device server; do
    mkdir "$KVASS_WORK/full-$name"
    mount -t tmpfs -o size=192m,mode=700 kvass-proof "$KVASS_WORK/full-$name" 2>/dev/null || skip 'a tmpfs cannot be mounted here'
done
prove "${1:-70}"
