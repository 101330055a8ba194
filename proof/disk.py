"""A file system of its own on a loop device, whose power can be cut; for the proofs that do."""

import fcntl
import os
import struct
import subprocess

from programs import WORK, wait_until

IMAGE, MOUNT = WORK + "/image", WORK + "/disk"

# Ends the life of a file system, ext4 or xfs, without writing its journal: `xfs_io -x -c shutdown` does the same, but is
# a process that takes milliseconds to start.
SHUTDOWN, WITHOUT_LOG = 0x8004587D, struct.pack("I", 2)


def do(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def make(system):
    """Makes an empty file system, and mounts it."""
    with open(IMAGE, "wb") as image:
        image.truncate(512 * 1024 * 1024)
    do("mkfs." + system, "-q", "-F" if system == "ext4" else "-f", IMAGE)
    os.makedirs(MOUNT, exist_ok=True)
    mount(system)


def mount(system):
    options = "loop,nouuid" if system == "xfs" else "loop"
    do("mount", "-t", system, "-o", options, IMAGE, MOUNT)


def unmount():
    def unmounted():
        return subprocess.run(["umount", MOUNT], stderr=subprocess.DEVNULL).returncode == 0

    if not wait_until(unmounted, 10):
        raise SystemExit("the file system cannot be unmounted")


def cut():
    """From now on nothing that is written gets to the disk."""
    disk = os.open(MOUNT, os.O_RDONLY)
    try:
        fcntl.ioctl(disk, SHUTDOWN, WITHOUT_LOG)
    finally:
        os.close(disk)


def remove():
    unmount()
    os.unlink(IMAGE)
