"""See power.sh."""

import os
import random
import subprocess
import sys
import time

from disk import MOUNT, cut, make, mount, remove, unmount
from load import Load
from programs import KVASSD, Store, fail, finish, wait_until

SYSTEMS, MODES = ("ext4", "xfs"), ("mixed", "small", "large")

# Most of a start lies within this time, in seconds.
START = 0.05

rounds = int(sys.argv[1])
chance = random.Random()
totals = {"acknowledged": 0, "unanswered": 0, "lost": 0, "checked": 0}
counts = {
    "idle": {"cuts": 0},
    "under load": {"cuts": 0},
    "during a start": {"cuts": 0, "of a new store": 0, "after a kill": 0, "before it served": 0},
    "during a change of key": {"cuts": 0, "acknowledged": 0, "to the new key": 0},
}
PHASES = list(counts)


class Disk:
    """A file system with one store, whose power is cut again and again."""

    def __init__(self, system, mode):
        self.system, self.mode, self.number = system, mode, 0
        make(system)
        self.store = Store(MOUNT + "/db")
        self.load = Load(self.store, mode, keys=8, seed=chance.random())
        self.store.run("status", expect=0)

    def round(self, phase):
        """One cut in that phase, and all that must hold after it."""
        self.number += 1
        self.when = f"{self.system}, {self.mode} values, cut {self.number}, {phase}"
        count = counts[phase]
        count["cuts"] += 1
        after = CUTS[phase](self, count)
        self.restart()
        ended = self.store.run("status")
        if ended.code != 0:
            fail(f"{self.when}: the daemon did not start: {ended.words()}")
            return False
        self.load.verify(self.when)
        if after:
            after()
        self.examine()
        return True

    def restart(self):
        self.store.kill_all()
        unmount()
        mount(self.system)

    def examine(self):
        """What holds for every store, whatever was cut."""
        ended = self.store.run("doctor")
        if ended.code != 0:
            fail(f"{self.when}: `kvass doctor` says {ended.out.decode(errors='replace')}")
        if os.listdir(self.store.directory + "/store/sled/blobs"):
            fail(f"{self.when}: sled has put a value into a file of its own, which it never syncs")

    def write(self, least, most):
        """Load for a while. Ends with the load running."""
        before = self.load.figures["acknowledged"]
        self.load.start()
        time.sleep(chance.uniform(least, most))
        if not wait_until(lambda: self.load.figures["acknowledged"] > before, 60):
            fail(f"{self.when}: nothing was acknowledged before the cut, so it proves nothing")

    def idle(self, count):
        """Nothing is under way; every other time the last answer came a moment ago."""
        self.write(0.1, 0.5)
        self.load.stop()
        if count["cuts"] % 2:
            time.sleep(chance.uniform(0.2, 2.0))
        cut()

    def busy(self, count):
        self.write(0.2, 1.5)
        cut()
        self.load.stop()

    def start(self, count):
        """The daemon has just been started: after a stop, after a kill, or for the first time."""
        way = count["cuts"] % 3
        if way == 1:
            self.write(0.1, 0.5)
            self.load.ending.set()
            self.store.kill()
            self.load.stop()
            # A command that came after the kill has started another one.
            self.store.kill_all()
            count["after a kill"] += 1
        else:
            self.store.stop()
        new = Store(f"{MOUNT}/new-{self.number}") if way == 2 else None
        starting = serve(new or self.store)
        time.sleep(chance.uniform(0, START))
        cut()
        count["before it served"] += not has_served(starting)
        if new is None:
            return None
        count["of a new store"] += 1
        new.kill_all()
        return lambda: self.first(new)

    def first(self, new):
        """Whatever the first start got to, the next one makes a store, or takes the one that is there."""
        new.run("set", "key", "value", expect=0)
        if new.get("key").out != b"value":
            fail(f"{self.when}: a new store does not give back what was stored")
        new.stop()

    def change(self, count):
        """A change of key; every other time beside load, and every third one to a key that is named.

        One that is not cut comes first, and tells how long they take here.
        """
        began = time.monotonic()
        self.store.run("config", "key", "--new", expect=0)
        span = time.monotonic() - began
        shown = self.store.key()
        given = chance.randbytes(32).hex() if count["cuts"] % 3 == 0 else None
        if count["cuts"] % 2:
            self.write(0.1, 0.5)
        command = self.store.start(
            "config", "key", *(["-"] if given else ["--new"]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if given:
            command.stdin.write(given.encode())
        command.stdin.close()
        time.sleep(chance.uniform(0, 1.3 * span))
        cut()
        acknowledged = command.wait() == 0
        self.load.stop()
        count["acknowledged"] += acknowledged

        def after():
            now = self.store.key()
            count["to the new key"] += now != shown
            if acknowledged and now == shown:
                fail(f"{self.when}: the old key is in force, but the change was acknowledged")
            if given and now not in (given, shown):
                fail(f"{self.when}: neither the old nor the new key is in force")

        return after


CUTS = dict(zip(PHASES, (Disk.idle, Disk.busy, Disk.start, Disk.change)))


def serve(store):
    """A daemon in the foreground, as a service manager starts it."""
    daemon = KVASSD
    return subprocess.Popen(
        [daemon, "--db", store.directory], env=store.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def has_served(process):
    """Ends the daemon, and says whether it had got as far as to serve."""
    process.kill()
    return b" serving" in process.communicate()[1]


def plan():
    """Which phases come on which disk: all of them in turn, however many cuts there are."""
    disks = {}
    for number in range(rounds):
        phase = PHASES[number % len(PHASES)]
        system = SYSTEMS[(number + number // len(PHASES)) % len(SYSTEMS)]
        mode = MODES[number // (len(SYSTEMS) * len(PHASES)) % len(MODES)]
        disks.setdefault((system, mode), []).append(phase)
    return disks


for (system, mode), phases in plan().items():
    disk = Disk(system, mode)
    all(disk.round(phase) for phase in phases)
    disk.store.kill_all()
    remove()
    for figure in totals:
        totals[figure] += disk.load.figures[figure]

told = []
for phase, count in counts.items():
    rest = ", ".join(f"{number} {what}" for what, number in count.items() if what != "cuts")
    told.append(f"{count['cuts']} {phase}" + (f" ({rest})" if rest else ""))
finish(
    "power",
    f"{rounds} cuts on ext4 and xfs: {', '.join(told)}; {totals['acknowledged']} writes acknowledged, "
    f"{totals['unanswered']} unanswered, {totals['lost']} lost, {totals['checked']} reads checked",
)
