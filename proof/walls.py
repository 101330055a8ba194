"""A disk that is full after a number of writes, and commands that meet it at each of theirs.

A shim in front of the C library (wall.c) refuses every write to a file from a given one on, as a disk does that is full,
until it is told that there is space again. So each single write of a commit, a start or a repair is the first that does
not fit, once.
"""

import http.client
import itertools
import mmap
import os
import re
import shutil
import struct
import subprocess

from machines import Machine, Server
from places import copy_store
from programs import WORK, exported, fail, one_line
from proxy import Network, Proxy

# More writes than anything here takes.
LONGEST = 2_000

HERE = os.path.dirname(os.path.abspath(__file__))


class Wall:
    """How many writes the disk still takes."""

    def __init__(self, name):
        self.path = f"{WORK}/{name}.wall"
        with open(self.path, "wb") as file:
            file.write(bytes(24))
        self.file = open(self.path, "r+b")
        self.numbers = mmap.mmap(self.file.fileno(), 24)
        self.mend()

    def stand(self, left):
        """So many writes fit, and no more."""
        self.numbers[:16] = struct.pack("=qq", left, 0)

    def mend(self):
        """There is space again; how many writes were refused."""
        refused = struct.unpack("=q", self.numbers[8:16])[0]
        self.numbers[:8] = struct.pack("=q", -1)
        return refused


def build():
    """Compiles the shim; `None` where there is no C compiler."""
    compiler, to = shutil.which("cc"), f"{WORK}/wall.so"
    if compiler is None:
        return None
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", to, f"{HERE}/wall.c", "-ldl"], check=True)
    return to


def behind(store, wall, shim):
    """Puts the daemon of a store behind a wall."""
    store.environment |= {"WALL": wall.path, "LD_PRELOAD": shim}
    return store


class Sweep:
    """Does one thing with the wall at its first write, at its second, and so on, until it ends before it meets the wall."""

    def __init__(self, shim):
        self.shim, self.hits, self.late, self.ended = shim, 0, 0, 0
        self.wall, self.walls, self.refused, self.steps = Wall("walls"), 0, 0, {}
        self.whole, self.now = self.make()

    def make(self):
        """A small store, and what is in it."""
        store = Machine("walls-whole")
        now = {f"key/{n}": f"value {n}".encode() for n in range(8)} | {"large": os.urandom(60_000), "old": os.urandom(9_000)}
        for key, value in now.items():
            store.set(key, value)
        store.run("config", "public-url", "http://example.org", expect=0)
        store.stop()
        return store.directory, now

    def run(self, name, step, stride=1):
        """One thing, `step(sweep, store)`: it returns what may be there afterwards, as a list of contents."""
        left = 0
        while True:
            store = behind(Machine("walls"), self.wall, self.shim)
            copy_store(self.whole, store.directory)
            step(self, store, left, f"{name}, full at write {left}")
            store.kill_all()
            shutil.rmtree(store.directory)
            if self.hits == 0:
                if left == 0:
                    fail(f"{name}: it wrote nothing, so it met no wall")
                break
            self.walls += 1
            if left > LONGEST:
                fail(f"{name}: it never ended before write {left}")
                break
            self.steps[name] = self.steps.get(name, 0) + 1
            left += stride

    def words(self):
        return (
            f"{self.walls} walls at single writes of {len(self.steps)} things, {self.refused} of them refused or not synced, "
            f"all went on by themselves, {self.late} of them at the second write; {self.ended} changes of key ended the daemon"
        )

    def meets(self, what, store, *arguments, data=None):
        """Runs a command while the disk is full: it is done, or refused with one line. Whether it is done."""
        ended = store.run(*arguments, data=data, expect=(0, 3))
        if ended.code == 3:
            self.refused += 1
            # An import reports what it has done first.
            words = ended.err.split(b"\n", 1)[-1] if arguments[0] == "import" and b"kvass: stored" in ended.err else ended.err
            # A repair is kvassd's own, in the foreground.
            one_line(words.replace(b"kvassd: ", b"kvass: ", 1), " ".join(arguments))
            if not re.search(b"full|space|may have been stored", ended.err):
                fail(f"{what}: `kvass {' '.join(arguments)[:40]}` was refused with other words: {ended.words()}")
        return ended.code == 0

    def reads(self, what, store, allowed):
        """All is readable, and is one of the states that it may be in."""
        ended = store.run("export", expect=0)
        found = exported(ended.out.splitlines()) if ended.code == 0 else None
        if found is not None and found not in allowed:
            different = sorted(key for key in {*found, *allowed[0]} if found.get(key) != allowed[0].get(key))
            fail(f"{what}: {different[:5]} are not as they were, nor as they should be")

    def command(self, *arguments, data=None, after=None, may_end=False):
        """A step that is one command to a running daemon; `after` it the store holds the first of these, or where it was
        refused any of them. `may_end`: the daemon may end, because the next start says what is stored."""

        def step(_, store, left, what):
            store.run("ls", expect=0)
            daemon = store.daemon()
            self.wall.stand(left)
            done = self.meets(what, store, *arguments, data=data)
            allowed = after[:1] if done else [*after, self.now]
            if not may_end or store.daemon() == daemon:
                self.reads(what, store, allowed)
            self.hits = self.wall.mend()
            # Nothing is started again: the next write goes through, or the one after it where nothing was said yet of a
            # write that the index had made beside the others.
            if store.set("next", b"works", expect=(0, 3)).code != 0:
                self.late += 1
                store.set("next", b"works")
            allowed = [state | {"next": b"works"} for state in allowed]
            self.reads(what + ", space again", store, allowed)
            if store.daemon() != daemon and not may_end:
                fail(f"{what}: process {daemon} served, now it is {store.daemon()}")
            self.ended += store.daemon() != daemon
            store.kill()
            self.reads(what + ", killed and started", store, allowed)
            store.run("doctor", expect=0)

        return step

    def first_start(self, _, store, left, what):
        """The first start of all."""
        shutil.rmtree(store.directory)
        self.wall.stand(left)
        done = self.meets(what, store, "set", "first", data=b"value")
        self.hits = self.wall.mend()
        if not done:
            store.set("first", b"value")
        self.reads(what, store, [{"first": b"value"}])
        store.kill()
        self.reads(what + ", killed and started", store, [{"first": b"value"}])
        store.run("doctor", expect=0)

    def start(self, _, store, left, what):
        """A start of a store that is there, read before and after there is space."""
        self.wall.stand(left)
        ended = store.run("get", "large", expect=(0, 3))
        if ended.code == 0 and ended.out != self.now["large"]:
            fail(f"{what}: other bytes came")
        self.hits = self.wall.mend()
        store.set("next", b"works")
        self.reads(what, store, [self.now | {"next": b"works"}])
        store.run("doctor", expect=0)

    def repair(self, _, store, left, what):
        """A repair: it makes the new store, or leaves the old one."""
        with open(store.directory + "/store/witness", "r+b") as file:
            file.truncate(10)
        self.wall.stand(left)
        done = self.meets(what, store, "doctor", "--repair")
        self.hits = self.wall.mend()
        if not done:
            store.run("doctor", "--repair", expect=0)
        self.reads(what, store, [self.now])
        store.run("doctor", expect=0)


class Pair:
    """A device and a server in step, one of which meets the wall while the other writes."""

    def __init__(self, sweep, is_blind):
        self.sweep, self.is_blind = sweep, is_blind
        network = Network()
        network.calm = True
        self.way = Proxy(network, 0)
        self.kind = "blind" if is_blind else "full"
        device, server = self.machines("whole")
        copy_store(sweep.whole, device.directory)
        key = device.run("config", "server-key", expect=0).out if is_blind else device.key().encode()
        server.run("config", "key", data=key, expect=0)
        server.begin()
        self.way.target = server.port
        device.run("config", "remote", f"127.0.0.1:{self.way.port}", expect=0)
        device.run("sync", "--timeout", "60s", expect=0)
        device.stop()
        server.end(False)
        self.whole = device.directory, server.directory

    def machines(self, name):
        return Machine(f"{name}-{self.kind}-d"), Server(f"{name}-{self.kind}-s")

    def copies(self):
        """Both, freshly copied; none runs."""
        machines = self.machines("walls")
        for machine, whole in zip(machines, self.whole):
            shutil.rmtree(machine.directory, ignore_errors=True)
            copy_store(whole, machine.directory)
        return machines

    def sync(self, write, to_server):
        """A step: one side writes, and the other cannot."""
        sweep = self.sweep

        def step(_, __, left, what):
            device, server = self.copies()
            walled, writer = (server, device) if to_server else (device, server)
            behind(walled, sweep.wall, sweep.shim)
            if to_server:
                # What is written at once comes at once.
                self.way.cut()
                write(writer)
            server.begin()
            self.way.target = server.port
            if not to_server:
                self.way.cut()
                device.run("ls", expect=0)
                write(writer)
            daemon = walled.daemon()
            sweep.wall.stand(left)
            self.way.mend()
            done = device.run("sync", "--timeout", "1s", expect=(0, 4)).code == 0
            sweep.refused += not done
            if to_server and left % 2:
                # What is here of a large value is gone on with by another session.
                writer.kill()
            if not (walled is server and self.is_blind):
                walled.get("key/3")
            # One that had no time to get to the wall has not shown that there is none.
            sweep.hits = sweep.wall.mend() or not done
            device.run("sync", "--timeout", "60s", expect=0)
            if walled.daemon() != daemon:
                fail(f"{what}: process {daemon} served, now it is {walled.daemon()}")
            self.in_step(what, device, server)
            device.kill_all()
            server.end(True)

        return step

    def in_step(self, what, device, server):
        """Both hold the same, and what they hold is sound."""
        held = [] if self.is_blind else [exported(store.run("export").out.splitlines()) for store in (device, server)]
        if held and held[0] != held[1]:
            fail(f"{what}: device and server hold other entries")
        for store in (device, server):
            findings = [line for line in store.run("doctor", expect=(0, 1)).out.splitlines() if line.startswith(b"!!")]
            # How fast a remote answers is not what is looked at.
            findings = [line for line in findings if not line.startswith(b"!! remote")]
            if findings:
                fail(f"{what}: `doctor` says {findings}")
        records = [store.status().get("keys") for store in (device, server)]
        if records[0] != records[1]:
            fail(f"{what}: device and server hold {records} keys")

    def count(self, _, __, left, what):
        """A step: a link that may be read twice is read when its count does not fit. It is not given away."""
        sweep = self.sweep
        device, server = self.copies()
        behind(server, sweep.wall, sweep.shim).begin()
        self.way.target = server.port
        device.run("sync", "--timeout", "60s", expect=0)
        link = device.run("url", "large", "--reads", "2", expect=0).out.decode().strip()
        device.run("sync", "--timeout", "60s", expect=0)
        daemon = server.daemon()
        sweep.wall.stand(left)
        answers = [self.take(link, server.port)]
        sweep.hits = sweep.wall.mend()
        answers += [self.take(link, server.port) for _ in range(3)]
        if answers[0] not in (200, 503):
            fail(f"{what}: the link answered {answers[0]}")
        sweep.refused += answers[0] == 503
        if answers.count(200) > 2 or answers[1] != 200 or answers[-1] != 410:
            fail(f"{what}: a link that may be read twice answered {answers}")
        if server.daemon() != daemon:
            fail(f"{what}: process {daemon} served, now it is {server.daemon()}")
        device.kill_all()
        server.end(True)

    @staticmethod
    def take(link, port):
        """Takes one read of a link; what the server answers."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/" + link.split("://", 1)[1].split("/", 1)[1])
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def device_sweep(it, stride):
    """Everything that a device does, at each of its writes."""
    now, small, large = it.now, b"another value", os.urandom(70_000)
    imported = {f"imported/{n}": f"{n}".encode() for n in range(5)}
    lines = "".join(f'{{"key":"{key}","value":"{value.decode()}"}}\n' for key, value in imported.items())
    it.run("set", it.command("set", "key/1", data=small, after=[now | {"key/1": small}]), stride)
    it.run("large set", it.command("set", "large", data=large, after=[now | {"large": large}]), stride)
    it.run("rm", it.command("rm", "old", after=[{key: value for key, value in now.items() if key != "old"}]), stride)
    # Several lines are stored at once, so any of them may be.
    parts = [now | dict(some) for count in range(5, 0, -1) for some in itertools.combinations(imported.items(), count)]
    it.run("import", it.command("import", "-", data=lines.encode(), after=parts), stride)
    it.run("key change", it.command("config", "key", "--new", after=[now], may_end=True), stride)
    it.run("pid", it.command("config", "pid", "77", after=[now]), stride)
    it.run("link", it.command("url", "key/2", after=[now]), stride)
    it.run("remote", it.command("config", "remote", "", after=[now]), stride)
    it.run("first start", it.first_start, stride)
    it.run("start", it.start, stride)
    it.run("repair", it.repair, stride)


def pair_sweep(it, stride):
    """What a server, blind or not, and a device take from each other, at each write of it."""
    large, is_short = os.urandom(1_200_000), stride > 8

    def many(store):
        lines = "".join(f'{{"key":"many/{n}","value":"{n}"}}\n' for n in range(300))
        store.run("import", "-", data=lines.encode(), expect=0)
        for n in range(3):
            store.set(f"many/large/{n}", large[: 50_000 + n])

    things = {
        "large": lambda store: store.set("large", large),
        "small": lambda store: store.set("small", b"value"),
        "removal": lambda store: store.run("rm", "old", expect=0),
        "many": many,
    }
    for is_blind in (False,) if is_short else (False, True):
        pair = Pair(it, is_blind)
        for name, write in list(things.items())[: 1 if is_short else None]:
            it.run(f"a {pair.kind} server takes {name}", pair.sync(write, True), stride)
            if not is_blind:
                it.run(f"a device takes {name}", pair.sync(write, False), stride)
        if not is_blind:
            it.run("a limited link", pair.count, stride)
