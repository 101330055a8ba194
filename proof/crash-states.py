"""See crash-states.sh; filesystem.py says what a disk may hold after a power cut.

Runs are recorded, each with a store of its own. A state is a moment of a run and a choice of the changes that were
not certain then: none, all, all but one, one, those up to some change, or each by chance. In every state the daemon must
start, hold each acknowledged write or one that came later, show no other bytes, and find nothing wrong.

To show that this would notice a loss, some states are built as if syncs of the index did nothing; there it must.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import threading

import strace
from conversation import Conversations
from filesystem import FileSystem
from load import ABSENT, content
from programs import KVASSD, PATIENCE, WORK, Store, exported, fail, finish, wait_until

BLOCK, SECTOR = 4096, 512
DENIED = 6

# How many values of 4,000 bytes are stored and removed to make an index outgrow its content.
REWRITES = 32_000

# Ways to choose; those from 5 on choose by chance.
WAYS = 8

wanted, chosen = int(sys.argv[1]), [name.replace("-", "_") for name in sys.argv[2:]]
seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(1 << 32))
chance = random.Random(seed)


class Run:
    """A recorded run: what the daemons of one store did, one after the other."""

    def __init__(self, name):
        self.name, self.root = name, f"{WORK}/{name.replace(' ', '-')}"
        os.mkdir(self.root)
        self.store, self.lives, self.traced, self.number = Store(self.root + "/db"), [], None, 0
        self.lock, self.calls, self.focus = threading.Lock(), [], 0
        # What the store was before the first life that was recorded, and which writes it held.
        self.before, self.held = None, {}

    # Recording.

    def adopt(self):
        """Ends a daemon that was not recorded; what it left is on the disk."""
        self.store.stop()
        self.before = self.root + ".before"
        self.copy(self.before)

    def copy(self, to):
        shutil.copytree(self.root, to, ignore=lambda where, names: [name for name in names if ".sock" in name])

    def start(self):
        self.traced = strace.Traced(self.store, f"{self.root}.{len(self.lives)}")

    def end(self, kill=False):
        """Ends the daemon, and keeps what its directory looks like."""
        self.traced.end(kill)
        after = f"{self.root}.after-{len(self.lives)}"
        self.copy(after)
        self.lives.append((self.traced.path, after))

    def set(self, key):
        with self.lock:
            self.number += 1
            number = self.number
        return self.store.set(key, content(key, number), expect=(0, 3))

    def remove(self, *keys):
        self.store.run("rm", *keys, expect=(0, 1, 3))

    def write(self, modes, times, removes=0.2):
        """Several writers at once, each with keys of its own."""

        def work(mode, source):
            keys = [f"load/{mode}/{threading.get_ident()}/{number}" for number in range(3)]
            for _ in range(times):
                key = source.choice(keys)
                if source.random() < removes:
                    self.remove(key)
                else:
                    self.set(key)

        writers = [threading.Thread(target=work, args=(mode, random.Random(chance.random()))) for mode in modes]
        for writer in writers:
            writer.start()
        return writers

    # Reading what was recorded.

    def load(self):
        """Reads the traces, as one that goes on from life to life. What happened before `focus` is no moment to cut."""
        first, self.ends = 0, []
        for path, after in self.lives:
            calls = strace.read(path, first)
            first = 1 + max(max(call.start, call.end if call.end < float("inf") else 0) for call in calls)
            self.calls += calls
            self.ends.append((first, after))
            first += 1
            os.unlink(path)
        self.conversations = Conversations()
        for call, is_end in strace.steps(self.calls):
            (self.conversations.end if is_end else self.conversations.begin)(call)

    def system(self, ignored=lambda path: False):
        system = FileSystem(self.root, ignored)
        if self.before:
            system.adopt(self.before)
        return system

    def replay(self, system):
        """Follows the run; yields after each line, with the calls that are under way then."""
        under_way, ends = {}, list(self.ends)
        for call, is_end in strace.steps(self.calls):
            place = call.end if is_end else call.start
            while ends and place > ends[0][0]:
                self.died(system, under_way, *ends.pop(0))
                under_way = {}
            if is_end:
                system.end(call)
                under_way.pop(call.start, None)
            else:
                system.begin(call)
                under_way[call.start] = call
            yield place, list(under_way.values())
        self.died(system, under_way, *ends.pop(0))

    def died(self, system, under_way, place, after):
        """The end of a process: what it had begun was done or not, and the directory tells which."""
        for call in under_way.values():
            call.end = place
        system.settle(under_way.values(), after)
        system.restart()
        for difference in system.differences(after):
            fail(f"{self.name}: the model of the file system is wrong: {difference}")


def first_start(run):
    run.start()
    run.write(["small"], 3, removes=0)[0].join()
    run.end()


def short_values(run):
    run.start()
    for writer in run.write(["small"] * 3, 12):
        writer.join()
    run.end()


def large_values(run):
    run.start()
    for writer in run.write(["mixed", "large"], 5, removes=0.1):
        writer.join()
    run.end()


def removals(run):
    run.start()
    keys = [f"load/{mode}/x/{number}" for mode in ("small", "edge", "long") for number in range(3)]
    for key in keys:
        run.set(key)
    run.remove(*keys[:2])
    for key in keys[2::2]:
        run.remove(key)
    run.set(keys[3])
    run.remove(*keys)
    run.end()


def change_of_key(run):
    run.start()
    for mode in ("small", "small", "edge", "long", "small"):
        run.set(f"load/{mode}/x/{run.number}")
    run.remove("load/small/x/0")
    writers = run.write(["small"], 6)
    run.store.run("config", "key", "--new", expect=0)
    run.store.run("config", "key", "-", data=chance.randbytes(32).hex().encode(), expect=0)
    writers[0].join()
    run.end()


def start_after_a_kill(run):
    run.start()
    writers = run.write(["small", "small", "mixed"], 20)
    # Some in the middle of what they do, whenever that is.
    writers[chance.randrange(2)].join(chance.uniform(0.5, 1.5))
    run.end(kill=True)
    for writer in writers:
        writer.join()
    run.start()
    run.write(["small"], 3)[0].join()
    run.end()


def rewrite(run):
    """A start that finds an index that has outgrown its content by far."""
    records = run.root + ".jsonl"
    with open(records, "w", encoding="ascii") as file:
        for number in range(REWRITES):
            file.write(json.dumps({"key": f"big/{number}", "value": f"{number}".ljust(4000, ".")}) + "\n")
    run.store.run("import", records, expect=0, patience=900)
    os.unlink(records)
    run.store.run("rm", "-f", "--prefix", "big/", expect=0)
    for number in range(1, 6):
        key = f"load/small/x/{number}"
        run.set(key)
        run.held[key] = number
    size = os.path.getsize(run.store.directory + "/store/sled/db")
    run.adopt()
    run.start()
    if os.path.getsize(run.store.directory + "/store/sled/db") > size / 2:
        fail(f"the index was not rewritten: it had {size} bytes")
    run.write(["small"], 3)[0].join()
    run.end()


RUNS = (first_start, short_values, large_values, removals, change_of_key, start_after_a_kill)
LONG_RUNS = (rewrite,)


def record(work):
    run = Run(work.__name__.replace("_", " "))
    work(run)
    run.load()
    changes_of_key = [request for request in run.conversations.requests if request.name == "set_key"]
    if work is change_of_key:
        run.focus = changes_of_key[0].begin
    elif work is start_after_a_kill:
        run.focus = run.ends[0][0]
    return run


class Expected:
    """What a store must hold at a moment: for each key the writes that may be seen, and the keys that may be in force."""

    def __init__(self, run, place):
        self.keys, self.in_force = {key: [number] for key, number in run.held.items()}, None
        for request in run.conversations.requests:
            if request.begin >= place or (request.answer and not request.done):
                continue
            is_certain = request.answer is not None and request.answer.start < place
            if request.name == "set_key":
                self.change(request, is_certain)
            for key in request.keys:
                number = number_of(request.value) if request.name == "set" else ABSENT
                allowed = self.keys.setdefault(key, [ABSENT])
                if is_certain:
                    allowed.clear()
                allowed.append(number)

    def change(self, request, is_certain):
        said = next((value for number, value in request.said if number == 1), None) or request.value
        if is_certain:
            self.in_force = [said]
        elif self.in_force is not None:
            self.in_force.append(said)

    def compare(self, store):
        """The texts of what a store holds and should not."""
        found = exported(store.run("export", "-", expect=0).out.splitlines())
        for key, allowed in self.keys.items():
            value = found.pop(key, None)
            number = ABSENT if value is None else number_of(value)
            if number not in allowed:
                yield f"{key} holds write {number}, should hold one of {allowed}"
            elif value is not None and value != content(key, number):
                yield f"{key}: the value is not the one that was written"
        yield from (f"{key}: nobody wrote this key" for key in found)
        if self.in_force:
            if bytes.fromhex(store.key()) not in self.in_force:
                yield "another key is in force"


def number_of(value):
    """Which write a value is of, as its beginning says; -1 where it says nothing."""
    try:
        return int((value or b"")[:200].split(b"\n")[0].split()[1])
    except (ValueError, IndexError):
        return -1


def choose(parts, way):
    """Some of the changes that are not certain."""
    if way == 0 or not parts:
        return "none", []
    if way == 1:
        return "all", parts
    if way == 2:
        out = chance.randrange(len(parts))
        return "all but one", parts[:out] + parts[out + 1 :]
    if way == 3:
        return "the last", parts[-1:]
    if way == 4:
        return "up to some", parts[: chance.randrange(len(parts) + 1)]
    likely = chance.choice((0.1, 0.5, 0.5, 0.9))
    return f"{likely} by chance", [part for part in parts if chance.random() < likely]


class States:
    """Builds states of a run, and starts the daemon on each."""

    def __init__(self, keep=None):
        self.keep = keep
        self.opened, self.lost, self.uncertain, self.seen = 0, 0, 0, set()

    def examine(self, run, count, ignored=lambda path: False, ways=range(WAYS)):
        """Opens `count` different states, as far as the run has them. Returns the texts of what is wrong."""
        moments = self.moments(run, count)
        system, wrong = run.system(ignored), []
        for place, under_way in run.replay(system):
            if place not in moments:
                continue
            for _ in range(moments.pop(place)):
                for way in chance.sample(ways, len(ways)):
                    parts = system.uncertain(under_way, chance.choice((BLOCK, BLOCK, BLOCK, SECTOR)))
                    name, kept = choose(parts, way)
                    at = f"{run.name}, line {place}, {name} of {len(parts)} changes"
                    found = self.open(system, kept, Expected(run, place + 1), at)
                    if found is not None:
                        self.uncertain += bool(parts)
                        wrong += found
                        break
        return wrong

    def moments(self, run, count):
        """Places in the trace, and how many states each gives: many just after an answer, most where files change."""
        answers = [request.answer.start for request in run.conversations.requests if request.answer]
        system, changing = run.system(), []
        for place, under_way in run.replay(system):
            if place >= run.focus and (system.pending or under_way):
                changing.append(place)
        answers = [place for place in answers if place >= run.focus]
        chosen = {}
        for number in range(count):
            place = chance.choice(answers if answers and number % 4 == 0 else changing)
            chosen[place] = chosen.get(place, 0) + 1
        return chosen

    def open(self, system, kept, expected, at):
        """Builds one state and opens it; None where there was one like it."""
        path = f"{WORK}/state"
        system.leave(kept, path)
        try:
            mark = (digest(path), repr(sorted(expected.keys.items())), repr(expected.in_force))
            if mark in self.seen:
                return None
            self.seen.add(mark)
            if self.keep:
                shutil.copytree(path, path + ".kept")
            self.opened += 1
            wrong = [f"{at}: {text}" for text in self.judge(Store(path + "/db"), expected)]
            if wrong and self.keep:
                shutil.copytree(path + ".kept", f"{self.keep}/{self.opened}")
            return wrong
        finally:
            shutil.rmtree(path)
            shutil.rmtree(path + ".kept", ignore_errors=True)

    def start(self, store):
        """Starts the daemon; what it says where it refuses to."""
        store.client = WORK + "/kvass"
        daemon = subprocess.Popen(
            [KVASSD, "--db", store.directory],
            env=store.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        if not wait_until(lambda: daemon.poll() is not None or store.run("status").code == 0, PATIENCE):
            return "it does not serve"
        return daemon.communicate()[1].decode(errors="replace").strip() if daemon.poll() is not None else None

    def judge(self, store, expected):
        try:
            refusal = self.start(store)
            if refusal:
                return [f"the daemon did not start: {refusal}"]
            wrong = list(expected.compare(store))
            self.lost += len(wrong)
            checked = store.run("doctor")
            if checked.code != 0:
                wrong.append(f"`kvass doctor` says {checked.out.decode(errors='replace')}")
            if os.listdir(store.directory + "/store/sled/blobs"):
                wrong.append("sled has put a value into a file of its own")
            return wrong
        finally:
            store.kill_all()


def digest(path):
    """What tells directories apart that are not alike."""
    parts = []
    for where, directories, files in os.walk(path):
        directories.sort()
        for name in sorted(files):
            with open(os.path.join(where, name), "rb") as file:
                parts.append((os.path.relpath(where, path), name, hash(file.read())))
        parts.append((os.path.relpath(where, path), tuple(directories)))
    return hash(tuple(parts))


states, told, control = States(os.environ.get("KEEP")), [], None
runs = [work for work in RUNS + LONG_RUNS if work.__name__ in chosen] if chosen else RUNS
for number, work in enumerate(runs):
    run = record(work)
    before = states.opened
    for text in states.examine(run, wanted // len(runs) + (number < wanted % len(runs))):
        fail(f"seed {seed}: {text}")
    told.append(f"{states.opened - before} {run.name}")
    if work is short_values:
        control = run
denied = States()
control = control or record(short_values)
control.focus = sorted(request.answer.start for request in control.conversations.requests if request.answer)[5]
noticed = len(denied.examine(control, DENIED, lambda path: path and path.endswith("/db"), ways=(0, 5, 6, 7)))
if not noticed:
    fail("states of an index that was never synced were taken for whole ones, so this proves nothing")
finish(
    "crash-states",
    f"{states.opened} states ({', '.join(told)}), {states.uncertain} with changes that were not certain, "
    f"{states.lost} writes lost; {denied.opened} as if the index had never been synced: {noticed} things wrong; seed {seed}",
)
