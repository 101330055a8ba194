"""A daemon that dies at a point, as by kill -9, and what must be so after the start that follows."""

import os
import random
import re
import signal
import subprocess

from load import SMALL
from programs import exported, fail, wait_until

MORTAL = os.path.join(os.environ["KVASS_FAILPOINTS"], "kvassd")
SILENT = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SEED = os.environ.get("SEED") or str(random.SystemRandom().randrange(1 << 32))

chance = random.Random(SEED)
counts = {"kills": 0, "starting": 0}

# What may lie in a data directory while it is served.
RIGHT = re.compile(
    r"key|lock|ballast|kvassd\.sock|kvassd\.log(\.old)?|store/witness|store/sled/(db|conf|snap\.[0-9A-F]+|blobs/\d+)|"
    r"blobs/[0-9a-f]{64}(-[0-9a-f]{32}\.down)?|damaged-\d+/.*"
)

# Every start comes to these.
START = ("socket.bound", "socket.placed", "open.kept", "open.opened", "open.cleared")
START += ("index.applied", "index.flushed", "index.synced", "open.run", "open.witnessed")


class Mortal:
    """A daemon that dies at a point, the Nth time that it comes there."""

    def __init__(self, store, point, times, *arguments):
        self.store, self.point, self.times = store, point, times
        store.kill_all()
        environment = {**store.environment, "KVASS_FAILPOINT": f"{point}:{times}"}
        self.process = subprocess.Popen([MORTAL, *arguments], env=environment, **SILENT)

    def is_dead(self):
        return self.process.poll() is not None

    def serves(self):
        """Returns once it has the directory, or is dead."""
        if not wait_until(lambda: self.is_dead() or self.store.daemon() == self.process.pid, 60):
            fail(f"{self}: it did not start")

    def dies(self):
        """Waits until it is dead, and sees that it died at its point: nobody else sends it this signal."""
        try:
            code = self.process.wait(120)
        except subprocess.TimeoutExpired:
            code = None
            self.process.kill()
            self.process.wait()
        if code != -signal.SIGKILL:
            fail(f"{self}: it did not come there" if code is None else f"{self}: it ended with {code}")
        counts["kills"] += 1

    def __str__(self):
        return f"{self.point}, time {self.times}, in {os.path.basename(self.store.directory)}"


def recover(store, *arguments):
    """Now and then the start after a death is a death as well."""
    if chance.random() < 0.2:
        Mortal(store, chance.choice(START), 1, *arguments).dies()
        counts["starting"] += 1


def export(store, when):
    """The lines of an export, and the values in them by their keys. Starts the daemon."""
    ended = store.run("export")
    if ended.code != 0:
        fail(f"{when}: the store does not answer: {ended.words()}")
        return [], {}
    lines = [line for line in ended.out.splitlines() if b'"key"' in line]
    return lines, exported(lines)


def files(directory):
    for where, _, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(where, name), directory)


def litter(store, values):
    """What should not be in a data directory that is served; nothing where all is well."""
    names = list(files(store.directory))
    wrong = [name for name in names if not RIGHT.fullmatch(name)]
    blobs = sum(re.fullmatch(r"blobs/[0-9a-f]{64}", name) is not None for name in names)
    large = sum(len(value) > SMALL for value in values.values())
    return wrong + ([f"{blobs} files for {large} large values"] if blobs != large else [])


def whole(store, values, when):
    """Sees that all is as after any other start, and nothing is left of the one that died."""
    ended = store.run("doctor")
    if ended.code != 0:
        fail(f"{when}: `doctor` finds {ended.out.decode()} {ended.words()}")
    if not wait_until(lambda: not litter(store, values), 60):
        fail(f"{when}: left in the data directory: {litter(store, values)}")


def key_lines(store):
    with open(store.directory + "/key") as file:
        return file.read().split()


def search(store, secrets, when):
    """Sees that no file has a key that is not in force any more."""
    for name in files(store.directory):
        path = os.path.join(store.directory, name)
        if name.startswith("blobs/") or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            content = file.read()
        if any(secret.encode() in content or bytes.fromhex(secret) in content for secret in secrets):
            fail(f"{when}: {name} has a key that is not in force")
