"""See syscalls.sh.

The order is that of the trace (strace.py says why it can be relied on), and what is synced is what filesystem.py says.
A commit ends with a write to the witness, so nothing of the index may be unsynced when that begins, and an answer must
come after a commit of its own. The one exception: bytes that another thread, sled's own, had not yet written when the last
sync of the index began. The commit was whole by then, so they are not part of it.

The judge of the traces is judged as well: it must refuse each of them once syncs are taken out of it, fail, or come too
late.
"""

import copy
import json
import os
import sys
import threading
import time

import strace
from conversation import Conversations
from filesystem import FileSystem, Length, Name, Unknown, Write
from programs import WORK, Store, fail, finish

rounds = int(sys.argv[1])
SYNCS = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
INDEX, WITNESS, BLOBS = "db/store/sled/db", "db/store/witness", "db/blobs"

# What may be gone after a power cut: the socket's kin, space that is kept back, the copy of sled's log that is made at a
# start, and sled's snapshots, which are shortcuts.
SPARE = ("lock", "ballast", "kvassd.log", "db.part", "db.before", "snap.")

# How long each sync of the index takes at a server, in microseconds, so that a device would notice an answer that does not
# wait for it.
DELAY = 50_000


class Judge:
    """Reads the traces of one store's lives, and finds what came in the wrong order."""

    def __init__(self, root, lives):
        self.root, self.lives, self.wrong = root, lives, []
        self.system, self.conversations = FileSystem(root), Conversations()
        self.writes, self.syncs, self.commits, self.renames, self.refused = [], [], [], [], 0
        # What each sync was of, by its place.
        self.about = {}

    def judge(self):
        try:
            for calls in self.lives:
                for call, is_end in strace.steps(calls):
                    (self.end if is_end else self.begin)(call)
                self.system.restart()
        except Unknown as unknown:
            self.wrong.append(f"a call that may change files in a way that nobody follows: {unknown}")
        return self

    def begin(self, call):
        if call.name in RENAMES:
            self.rename(call)
        elif call.name == "pwrite64" and self.is_at(call, WITNESS):
            self.commit(call)
        answered = self.conversations.begin(call)
        if answered:
            self.answer(answered)
        self.system.begin(call)

    def end(self, call):
        if call.name in SYNCS:
            node = self.system.node(call.number(0))
            self.about[call.start] = self.system.path_of(node) if node else None
            if call.succeeded and self.is_at(call, INDEX):
                self.syncs.append(call)
        elif call.name == "sync_file_range":
            self.refused += not call.succeeded
            if call.succeeded:
                self.wrong.append(f"{call}: sled takes this for a sync")
        elif call.name == "pwrite64" and call.succeeded and self.is_at(call, INDEX):
            self.writes.append(call)
        self.system.end(call)
        self.conversations.end(call)

    def at(self, path):
        node = self.system.top
        for part in path.split("/"):
            node = node.now.get(part) if node else None
        return node

    def is_at(self, call, path):
        node = self.system.node(call.number(0))
        return node is not None and node is self.at(path)

    def unsynced(self, nodes):
        """Changes of what is in files that no sync has made certain."""
        return [it for it in self.system.pending if isinstance(it, (Write, Length)) and it.node in nodes]

    def below(self, node):
        """A file, or a directory with all that is in it."""
        yield node
        for inner in node.now.values() if node.is_directory else ():
            yield from self.below(inner)

    def rename(self, call):
        """What gets another name is whole on the disk before."""
        for change in self.system.changes(call):
            name = change.come[1]
            self.renames.append(call)
            if name.startswith(SPARE):
                continue
            nodes = set(self.below(change.node))
            names = [it for it in self.system.pending if isinstance(it, Name) and nodes & set(it.of)]
            for unsynced in self.unsynced(nodes) + [it for it in names if not self.is_spare(it)]:
                self.wrong.append(f"{call}: becomes {name} before {unsynced.call} is synced")

    def commit(self, call):
        """Whatever the witness says is in the index is on the disk."""
        self.commits.append(call)
        since = self.syncs[-1].start if self.syncs else 0
        for change in self.unsynced({self.at(INDEX)}):
            if change.call.thread == call.thread or change.call.end < since:
                self.wrong.append(f"{call}: a commit ends before {change.call} is synced")
        self.values(call)

    def values(self, call):
        """No entry refers to a value that could be gone or torn."""
        blobs = {name: node for name, node in self.at(BLOBS).now.items() if not name.endswith(".part")}
        for change in self.unsynced(set(blobs.values())):
            self.wrong.append(f"{call}: a value is not whole on the disk before {change.call} is synced")

    def is_spare(self, name):
        """Whether it is no matter that a name could be gone, or come back."""
        return not name.come or name.come[1].startswith(SPARE) or self.system.find(name.come) is not name.node

    def answer(self, request):
        call = request.answer
        if not request.done:
            self.wrong.append(f"{call}: {request.name} was refused")
            return
        commits = [commit for commit in self.commits if commit.start > request.begin and commit.end < call.start]
        writes = [write for write in self.writes if write.start > request.begin]
        if not any(
            write.end < sync.start and sync.end < commit.start
            for write in writes[:1]
            for sync in reversed(self.syncs)
            for commit in commits
        ):
            self.wrong.append(f"{call}: {request.name} is answered without a commit of its own")
        if request.name == "set" and (request.is_long or len(request.value or b"") > 4096):
            if not any(rename.start > request.begin and rename.end < call.start for rename in self.renames):
                self.wrong.append(f"{call}: a long value is answered without a file of its own")
        self.values(call)
        # A file of a value may be that of a request which is still under way; where there is none, it is that of this one.
        beside = any(other.answer is None and other.begin < call.start for other in self.conversations.requests)
        for name in self.system.pending:
            of_another = beside and self.at(BLOBS) in name.of
            if isinstance(name, Name) and not self.is_spare(name) and not of_another:
                self.wrong.append(f"{call}: {request.name} is answered before the name {name.come[1]} is synced")


def changed(lives, which, change=None):
    """The calls with some of them left out, or replaced by others."""
    return [[change(call) if which(call) else call for call in calls if change or not which(call)] for calls in lives]


def failed(call):
    call = copy.copy(call)
    call.result = -5
    return call


def worked(call):
    call = copy.copy(call)
    call.result = 0
    return call


def control(judge):
    """The same trace with something wrong in it; each must be refused. Returns how many were."""
    lives, about = judge.lives, judge.about

    def syncs(what):
        return lambda call: call.name in SYNCS and what(about.get(call.start) or "")

    answer = next(request for request in reversed(judge.conversations.requests) if request.name == "set")

    def early(call):
        call = copy.copy(call)
        call.start = answer.received + 0.5
        return call

    doctored = {
        "no sync of the index": changed(lives, syncs(lambda path: path.endswith("sled/db"))),
        "syncs of the index that fail": changed(lives, syncs(lambda path: path.endswith("sled/db")), failed),
        "no sync of a value": changed(lives, syncs(lambda path: path.endswith(".part"))),
        "no sync of their directory": changed(lives, syncs(lambda path: path == BLOBS)),
        "no sync of the data directory": changed(lives, syncs(lambda path: path == "db")),
        "no sync of the key": changed(lives, syncs(lambda path: path.startswith("db/key"))),
        "a sync_file_range that works": changed(lives, lambda call: call.name == "sync_file_range", worked),
        "an answer that comes early": changed(lives, lambda call: call is answer.answer, early),
    }
    for what, trace in doctored.items():
        if not Judge(judge.root, trace).judge().wrong:
            fail(f"a trace with {what} is taken for a good one, so this proves nothing")
    return len(doctored)


def use(store, number):
    """Every kind of change, one after the other, and short values of several writers at once."""
    for size in (0, 10, 4096, 4097, 70_000, 1_500_000):
        for _ in range(2):
            store.set(f"size/{size}", bytes(size))
    records = f"{WORK}/records-{number}"
    with open(records, "w", encoding="ascii") as file:
        for record in range(20):
            value = "x" * (9_000 if record % 5 == 0 else 9)
            file.write(json.dumps({"key": f"imported/{number}/{record}", "value": value}) + "\n")
    store.run("import", records, expect=0)
    writers = [threading.Thread(target=write, args=(store, f"writer/{writer}")) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store.run("rm", "size/0", "size/4097", expect=0)
    store.run("rm", "-f", "--prefix", "imported/", expect=0)
    store.run("config", "pid", str(number + 1), expect=0)
    store.run("config", "public-url", f"http://example.test/{number}", expect=0)
    store.run("url", "size/10", "--expires", "1h", expect=0)
    store.run("config", "key", "--new", expect=0)
    store.run("url", "--revoke", "size/10", expect=0)
    store.set("last", b"value")


def write(store, key):
    for number in range(8):
        store.set(key, str(number).encode())


def local(root, number):
    """A daemon and its own clients: two lives, the first of which makes the store."""
    store, lives, first = Store(root + "/db"), [], 0
    for life in range(2):
        traced = strace.Traced(store, root + ".trace")
        use(store, 2 * number + life)
        traced.end()
        lives.append(strace.read(traced.path, first))
        first = lives[-1][-1].start + 100_000
    return Judge(root, lives).judge()


def server(root, device):
    """A server and a device that waits until the server holds what it sets."""
    store = Store(root + "/db")
    options = ("-e", f"inject=fdatasync:delay_exit={DELAY}")
    traced = strace.Traced(store, root + ".trace", *options, arguments=("--server", "--bind", "127.0.0.1:0"))
    store.run("config", "key", "-", data=device.key().encode(), expect=0)
    device.run("config", "remote", json.loads(store.run("status", "--json", expect=0).out)["bind"], expect=0)
    device.run("sync", "--timeout", "60s", expect=0)
    waits = []
    for size in (0, 10, 4096, 4097, 600_000):
        for _ in range(2):
            began = time.time()
            device.run("set", f"size/{size}", "--wait=60s", data=bytes(size), expect=0)
            waits.append((began, time.time()))
    began = time.time()
    device.run("rm", "size/10", "size/4097", expect=0)
    device.run("sync", "--timeout", "60s", expect=0)
    waits.append((began, time.time()))
    traced.end()
    device.run("config", "remote", "", expect=0)
    judge = Judge(root, [strace.read(traced.path)]).judge()
    for began, ended in waits:
        if not any(began < commit.time < ended for commit in judge.commits):
            fail(f"the device was told that the server holds a change {ended - began:.3f} s after it, without a commit")
    return judge, len(waits)


told = {"answers": 0, "commits": 0, "renames": 0, "refused": 0, "waits": 0, "doctored": 0}
device = Store(WORK + "/device")
device.run("status", expect=0)
for number in range(rounds):
    for what in ("local", "server"):
        root = f"{WORK}/{what}-{number}"
        os.mkdir(root)
        if what == "local":
            judge = local(root, number)
            told["doctored"] += control(judge)
        else:
            judge, waits = server(root, device)
            told["waits"] += waits
        for wrong in judge.wrong:
            fail(f"{what}: {wrong}")
        told["answers"] += len([request for request in judge.conversations.requests if request.answer])
        told["commits"] += len(judge.commits)
        told["renames"] += len(judge.renames)
        told["refused"] += judge.refused
finish(
    "syscalls",
    f"{rounds} rounds, {told['answers']} answers to local clients and {told['waits']} to a device, {told['commits']} "
    f"commits, {told['renames']} renames: nothing of them unsynced; {told['refused']} times sync_file_range was refused; "
    f"{told['doctored']} doctored traces were noticed",
)
