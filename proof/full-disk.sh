#!/usr/bin/env bash
# A full disk: `set` ends with 3 and one line, reading goes on, and the next `set` works once there is space.
# Usage: proof/full-disk.sh [ROUNDS], 3 by default: how often the disk fills up under load. As root, for a small tmpfs.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(id -u)" = 0 ] || skip 'needs root, to mount a small file system'
mkdir "$KVASS_WORK/disk"
mount -t tmpfs -o size=256m,mode=700 kvass-proof "$KVASS_WORK/disk" 2>/dev/null || skip 'a tmpfs cannot be mounted here'
prove "${1:-3}"
