"""See failpoints.sh."""

import base64
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

from load import Load
from mortal import SEED, SILENT, START, Mortal, chance, counts, export, key_lines, recover, search, whole
from programs import KVASSD, WORK, Store, fail, finish, free_port, wait_until

ROUNDS = int(sys.argv[1])
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kvassd", "src")


def large_and_small(count):
    return {f"entry/{n}": chance.randbytes(chance.choice((0, 30, 700, 4096) if n % 12 else (9_000, 80_000))) for n in range(count)}


def fill(store, values):
    lines = (json.dumps({"key": key, "value_base64": base64.b64encode(value).decode()}) + "\n" for key, value in values.items())
    store.run("import", data="".join(lines).encode(), expect=0)


class Writing:
    """One store, under load."""

    def __init__(self, mode, writers, keys):
        self.store = Store(f"{WORK}/{mode}")
        self.load = Load(self.store, mode, writers=writers, keys=keys)

    def hit(self, point, times):
        mortal = Mortal(self.store, point, times)
        mortal.serves()
        self.load.start()
        mortal.dies()
        self.load.stop()
        recover(self.store)
        _, values = export(self.store, mortal)
        self.load.judge(mortal, values)
        whole(self.store, values, mortal)

    def loads(self):
        return [self.load]


class Making:
    """A store that is made."""

    def hit(self, point, times):
        store = Store(WORK + "/new")
        store.kill_all()
        shutil.rmtree(store.directory, ignore_errors=True)
        mortal = Mortal(store, point, times)
        mortal.dies()
        recover(store)
        value = chance.randbytes(5_000)
        store.set("first", value)
        store.kill()
        if store.get("first").out != value or len(key_lines(store)) != 1:
            fail(f"{mortal}: the new store does not hold what was set")
        whole(store, {"first": value}, mortal)

    def loads(self):
        return []


class Littered:
    """A start that removes what deaths have left."""

    def __init__(self):
        self.store, self.values = Store(WORK + "/littered"), large_and_small(30)
        fill(self.store, self.values)

    def hit(self, point, times):
        for _ in range(times + 1):
            for name in (chance.randbytes(16).hex() + ".part", chance.randbytes(32).hex()):
                with open(f"{self.store.directory}/blobs/{name}", "wb") as file:
                    file.write(b"litter")
        mortal = Mortal(self.store, point, times)
        mortal.dies()
        recover(self.store)
        _, values = export(self.store, mortal)
        if values != self.values:
            fail(f"{mortal}: other values than before")
        whole(self.store, values, mortal)

    def loads(self):
        return []


class Renewing:
    """Changes of the encryption key, under load."""

    def __init__(self):
        self.store, self.values = Store(WORK + "/renewing"), large_and_small(280)
        fill(self.store, self.values)
        self.load = Load(self.store, "small", writers=2, keys=3)
        self.key = key_lines(self.store)[0]

    def hit(self, point, times):
        before, _ = export(self.store, "before a change of key")
        before = [line for line in before if b'"load/' not in line]
        mortal = Mortal(self.store, point, times)
        mortal.serves()
        self.load.start()
        used = [self.key]
        certain = self.key
        while not mortal.is_dead() and len(used) < 30:
            used.append(chance.randbytes(32).hex())
            if self.store.run("config", "key", data=used[-1].encode(), expect=(0, 3)).code == 0:
                certain = used[-1]
        mortal.dies()
        self.load.stop()
        recover(self.store)
        lines, values = export(self.store, mortal)
        keys = key_lines(self.store)
        if len(keys) != 1 or keys[0] not in (certain, used[-1]):
            fail(f"{mortal}: {len(keys)} keys in the key file, or not the one that is in force")
        self.key = keys[0]
        if [line for line in lines if b'"load/' not in line] != before:
            fail(f"{mortal}: other entries than before the change of key")
        self.load.judge(mortal, values)
        whole(self.store, values, mortal)
        search(self.store, set(used) - {self.key}, mortal)

    def loads(self):
        return [self.load]


class Blinding:
    """The encryption key goes, and comes again."""

    def __init__(self):
        self.store, self.values = Store(WORK + "/blind"), large_and_small(60)
        fill(self.store, self.values)
        self.key = key_lines(self.store)[0]
        self.server_key = self.store.run("config", "server-key", expect=0).out.decode().strip()

    def hit(self, point, times):
        before, _ = export(self.store, "before a change of key")
        mortal = Mortal(self.store, point, times)
        mortal.serves()
        certain, tried, count = self.key, self.key, 0
        while not mortal.is_dead() and count < 30:
            tried, count = (self.server_key, self.key)[count % 2], count + 1
            if self.store.run("config", "key", "--force", data=tried.encode(), expect=(0, 3)).code == 0:
                certain = tried
        mortal.dies()
        recover(self.store)
        self.store.run("doctor", expect=0)
        keys = key_lines(self.store)
        if len(keys) != 1 or keys[0] not in (certain, tried):
            fail(f"{mortal}: {len(keys)} keys in the key file, or not the one that is in force")
        if keys[0] == self.server_key:
            search(self.store, [self.key], mortal)
        self.store.run("config", "key", data=self.key.encode(), expect=0)
        lines, values = export(self.store, mortal)
        if lines != before:
            fail(f"{mortal}: other entries than before")
        whole(self.store, values, mortal)

    def loads(self):
        return []


class Copied:
    """Copies of one store, each of which dies at a start that does more than others."""

    def __init__(self, name):
        self.whole, self.store = Store(f"{WORK}/{name}-whole"), Store(f"{WORK}/{name}")
        self.make()
        self.lines, self.values = export(self.whole, name)
        self.whole.stop()

    def copy(self):
        self.store.kill_all()
        shutil.rmtree(self.store.directory, ignore_errors=True)
        shutil.copytree(self.whole.directory, self.store.directory)

    def compare(self, mortal):
        lines, values = export(self.store, mortal)
        if lines != self.lines:
            fail(f"{mortal}: other entries than before")
        whole(self.store, values, mortal)

    def loads(self):
        return []


class Rewriting(Copied):
    """A store that has outgrown its content: a file with nothing in it counts as a part of its index."""

    def make(self):
        fill(self.whole, large_and_small(60))

    def hit(self, point, times):
        self.copy()
        with open(self.store.directory + "/store/sled/blobs/0", "wb") as file:
            file.truncate(100 << 20)
        mortal = Mortal(self.store, point, times)
        mortal.dies()
        recover(self.store)
        self.compare(mortal)


class Repairing(Copied):
    """A store without its witness, and with a file that nothing refers to: a repair removes nothing."""

    def make(self):
        fill(self.whole, large_and_small(60))

    def hit(self, point, times):
        self.copy()
        with open(self.store.directory + "/store/witness", "r+b") as witness:
            witness.write(bytes(8_192))
        stray = chance.randbytes(32).hex()
        with open(f"{self.store.directory}/blobs/{stray}", "wb") as file:
            file.write(b"stray")
        mortal = Mortal(self.store, point, times, "--repair")
        mortal.dies()
        if self.store.run("ls", expect=(0, 3)).code != 0:
            self.store.run("doctor", "--repair", expect=0)
        self.compare(mortal)
        if not glob.glob(f"{self.store.directory}/damaged-*/blobs/{stray}"):
            fail(f"{mortal}: a file is gone that was moved aside, or should have been")


class Syncing:
    """A server and a device, both under load, one of which dies."""

    def __init__(self):
        self.server, self.device = Store(WORK + "/server"), Store(WORK + "/device")
        # An address that no connection has as its own: else one that goes out may take the port while the server is dead.
        self.bind = f"127.{chance.randint(1, 254)}.{chance.randint(1, 254)}.{chance.randint(1, 254)}:{free_port()}"
        self.serving = ("--server", "--bind", self.bind)
        self.server.run("status", expect=0)
        self.device.run("config", "key", data=key_lines(self.server)[0].encode(), expect=0)
        self.server.kill_all()
        self.serve()
        self.device.run("config", "remote", self.bind, expect=0)
        self.own = [Load(self.server, "large", writers=1, keys=4), Load(self.device, "mixed", writers=2, keys=4)]

    def serve(self):
        """Starts the server, unless it runs."""
        if self.server.daemon() is not None:
            return
        with open(self.server.directory + ".log", "ab") as log:
            process = subprocess.Popen([KVASSD, *self.serving], env=self.server.environment, **{**SILENT, "stderr": log})
        wait_until(lambda: self.server.daemon() == process.pid or process.poll() is not None, 30)
        if not wait_until(lambda: b'"bind"' in self.server.run("status", "--json", expect=(0, 3)).out, 30):
            with open(self.server.directory + ".log", errors="replace") as log:
                fail(f"the server did not start: {log.read()[-300:]}")
        if self.server.daemon() != process.pid:
            fail("another daemon has the server's directory")

    def hit(self, point, times, victim):
        """Kills `server` or `device`, which take from each other what their loads write."""
        victim = getattr(self, victim)
        mortal = Mortal(victim, point, times, *(self.serving if victim is self.server else ()))
        mortal.serves()
        for load in self.own:
            load.start()
        until = time.monotonic() + 60
        while not mortal.is_dead() and time.monotonic() < until:
            self.device.run("sync", "--timeout", "5s", expect=(0, 3, 4))
        mortal.dies()
        for load in self.own:
            load.stop()
        self.compare(mortal, victim)

    def close(self, point, times):
        """Kills the device while it ends in order."""
        mortal = Mortal(self.device, point, times)
        mortal.serves()
        self.device.set("closing", chance.randbytes(20))
        self.device.run("sync", "--timeout", "60s", expect=0)
        mortal.process.terminate()
        mortal.dies()
        self.compare(mortal, self.device)

    def compare(self, mortal, victim):
        if victim is self.server:
            # Its load may have started one that serves no devices.
            victim.kill_all()
            recover(victim, *self.serving)
            self.serve()
        else:
            recover(victim)
        ended = self.device.run("sync", "--timeout", "60s")
        if ended.code != 0:
            fail(f"{mortal}: the device and the server do not come together: {ended.words()}")
        (lines, values), (others, _) = export(self.device, mortal), export(self.server, mortal)
        if lines != others:
            fail(f"{mortal}: the device and the server differ")
        for load in self.own:
            load.judge(mortal, values)
        # What came too late for a session that was cut is removed by a start.
        for store in (self.device, self.server):
            store.kill_all()
        self.serve()
        for store in (self.device, self.server):
            whole(store, values, mortal)

    def end(self):
        """Sees that downloads that nobody goes on with are removed, a week later."""
        for store in (self.device, self.server):
            store.kill_all()
            for name in glob.glob(store.directory + "/blobs/*.down"):
                os.utime(name, (time.time() - 8 * 86_400,) * 2)
            store.run("status", expect=0)
            left = glob.glob(store.directory + "/blobs/*.down")
            if left:
                fail(f"{len(left)} parts of values are left for ever")

    def loads(self):
        return self.own


writing, vast, making, littered = Writing("mixed", 3, 5), Writing("vast", 1, 1), Making(), Littered()
renewing, blinding, rewriting, repairing = Renewing(), Blinding(), Rewriting("rewriting"), Repairing("repairing")
syncing = Syncing()
parts = (writing, vast, making, littered, renewing, blinding, rewriting, repairing, syncing)

# What to do, the point, and the most times that the process comes there before it dies.
TABLE = [
    *((writing.hit, point, 12) for point in ("commit.planned", "commit.settled", "commit.answered", "witness.written")),
    *((writing.hit, point, 12) for point in ("index.applied", "index.flushed", "index.synced")),
    *((writing.hit, point, 5) for point in ("blob.created", "blob.written", "blob.synced", "blob.renamed", "blob.placed")),
    (writing.hit, "blob.removed", 3),
    (vast.hit, "blob.part-synced", 2),
    *((making.hit, point, 1) for point in ("create.key", "create.seeded", "create.begun", "create.sealed")),
    *((making.hit, point, 1) for point in ("create.placed", "create.keyed", "open.copied", "ballast.created", *START)),
    *((making.hit, point, 1) for point in ("file.written", "file.synced", "file.renamed")),
    *((littered.hit, point, 3) for point in ("part.removed", "blob.removed")),
    *((renewing.hit, point, 2) for point in ("switch.prepared", "switch.durable", "switch.key-alone", "switch.cleaned")),
    *((renewing.hit, point, 6) for point in ("rekey.batch", "tree.dropped", "index.applied", "index.flushed")),
    *((renewing.hit, point, 4) for point in ("file.written", "file.synced", "file.renamed")),
    *((blinding.hit, point, 2) for point in ("switch.blind", "switch.full")),
    *((blinding.hit, point, 4) for point in ("file.written", "file.synced", "file.renamed")),
    *((rewriting.hit, point, 1) for point in ("rewrite.copied", "rewrite.sealed", "replace.next", "replace.old")),
    *((rewriting.hit, point, 1) for point in ("replace.placed", "replace.cleared")),
    *((repairing.hit, point, 1) for point in ("repair.built", "repair.aside", "repair.next", "repair.moved")),
    *((repairing.hit, point, 1) for point in ("repair.placed", "repair.blob")),
    *((repairing.hit, point, 1) for point in ("file.written", "file.synced", "file.renamed")),
    (syncing.close, "peers.saved", 1),
]
for side in ("device", "server"):

    def hit(point, times, victim=side):
        syncing.hit(point, times, victim)

    TABLE += [(hit, point, 8) for point in ("merge.planned", "merge.landed", "sync.acknowledged")]
    TABLE += [(hit, point, 8) for point in ("sync.acknowledgement-taken", "index.flushed", "commit.settled")]
    TABLE += [(hit, point, 3) for point in ("merge.held", "blob.removed", "download.listed")]
    TABLE += [(hit, point, 5) for point in ("download.begun", "download.written", "download.synced")]
    TABLE += [(hit, point, 5) for point in ("download.renamed", "download.placed")]

in_source = set()
for path in glob.glob(SOURCE + "/**/*.rs", recursive=True):
    with open(path) as file:
        in_source |= set(re.findall(r'\breached\("([^"]+)"\)', file.read()))
in_table = {point for _, point, _ in TABLE}
if in_source != in_table:
    fail(f"these points are in the source or in the table alone: {sorted(in_source ^ in_table)}")


def plan():
    """What is hit in each round, where, and at which time: SEED repeats all of it."""
    rounds = []
    for _ in range(max(ROUNDS, 1)):
        places = chance.sample(TABLE, len(TABLE))
        if ROUNDS == 0:
            # Each point once, at the first time that the process comes there.
            places = list({point: (hit, point, 1) for hit, point, _ in places}.values())
        rounds.append([(hit, point, chance.randint(1, most)) for hit, point, most in places])
    return rounds


print(f"failpoints: SEED={SEED}", flush=True)
began = time.monotonic()
rounds = plan()
for number, places in enumerate(rounds):
    for hit, point, times in places:
        # What is drawn in a hit, and how often, is up to time; the next one draws the same whatever it was.
        chance.seed(f"{SEED} {number} {point}")
        hit(point, times)
    if ROUNDS > 1:
        print(f"failpoints: round {number + 1}: {counts['kills']} kills in {time.monotonic() - began:.0f} s", flush=True)
syncing.end()

loads = [load.figures for part in parts for load in part.loads()]
acknowledged, unanswered, lost = (sum(load[what] for load in loads) for what in ("acknowledged", "unanswered", "lost"))
finish(
    "failpoints",
    f"SEED={SEED}, {counts['kills']} kills at {len(in_table)} points, {counts['starting']} of them in the start after another; "
    f"{acknowledged} writes acknowledged, {unanswered} unanswered, {lost} lost",
)
