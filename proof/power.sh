#!/usr/bin/env bash
# Power cuts, by shutting down a loop-mounted file system, while nothing happens, under load, during a start and during a
# change of key: no acknowledged write is lost, and one key is in force.
# Usage: proof/power.sh [CUTS], 40 by default, shared out over these, ext4 and xfs, and small, large and mixed values;
#        the first 4 show each phase once. As root.
#        proof/power.sh sync [ROUNDS], 10 by default: a server, three times in each first sync of a device.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || skip 'needs root, to mount a file system and cut it off'
for tool in mkfs.ext4 mkfs.xfs losetup mount umount; do
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
*) prove "${1:-40}" ;;
esac
