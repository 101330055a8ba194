#!/usr/bin/env bash
# Power cuts under load, by shutting down a loop-mounted file system: no acknowledged write is lost.
# Usage: proof/power.sh [ROUNDS], 30 by default, shared out over ext4 and xfs with small, large and mixed values. As root.
#        proof/power.sh sync [ROUNDS], 10 by default: a server, three times in each first sync of a device.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || skip 'needs root, to mount a file system and cut it off'
for tool in xfs_io mkfs.ext4 mkfs.xfs losetup mount umount; do
    command -v "$tool" >/dev/null || skip "needs $tool (Debian: xfsprogs, e2fsprogs, mount)"
done
[ "$(free_mib)" -gt 1024 ] || skip "needs 1 GiB free under $KVASS_WORK"

# Whether this machine can do it at all: containers often have no loop devices.
truncate -s 64M "$KVASS_WORK/probe"
mkfs.ext4 -q -F "$KVASS_WORK/probe"
mkdir "$KVASS_WORK/probed"
mount -o loop "$KVASS_WORK/probe" "$KVASS_WORK/probed" 2>/dev/null || skip 'loop devices cannot be mounted here'
umount "$KVASS_WORK/probed"
rm "$KVASS_WORK/probe"

case ${1:-} in
sync) proof_name=power-sync && prove "${2:-10}" ;;
*) prove "${1:-30}" ;;
esac
