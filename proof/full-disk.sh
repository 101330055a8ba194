#!/usr/bin/env bash
# A full disk: `set` ends with 3 and one line, reading goes on, and the next `set` works once there is space. Then every
# command, a start, a repair, and what a device and a server take from each other, with a disk that is full from its
# first write on, from its second, and so on: all goes on by itself.
# Usage: proof/full-disk.sh [ROUNDS [STRIDE]], 3 and 1 by default: how often the disk fills up under load, and of how many
# writes one is the first that does not fit; beyond 8 little of it. As root, for a small tmpfs; the second part needs cc.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(id -u)" = 0 ] || skip 'needs root, to mount a small file system'
mkdir "$KVASS_WORK/disk"
mount -t tmpfs -o size=256m,mode=700 kvass-proof "$KVASS_WORK/disk" 2>/dev/null || skip 'a tmpfs cannot be mounted here'
prove "${1:-3}" "${2:-1}"
