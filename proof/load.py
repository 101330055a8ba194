"""Writers that remember what was acknowledged, and a check of the store against what they remember.

Every write of a key carries a number, and the bytes follow from key and number, so that a value found in the store
says which write it came from. A write that was not acknowledged may have been stored or not; what was acknowledged
must be there.
"""

import random
import threading

from programs import fail

SMALL = 4 * 1024
LARGE = 3 * 1024 * 1024
ABSENT = None


def content(key, number):
    """The bytes of write `number` of `key`."""
    source = random.Random(f"{key} {number}")
    size = source.choice(SIZES[key.split("/")[1]])(source)
    head = f"{key} {number} {size}\n".encode()
    return head + source.randbytes(max(0, size - len(head)))


def _small(source):
    return source.randint(0, SMALL)


def _edge(source):
    return source.randint(SMALL - 2, SMALL + 2)


def _large(source):
    return source.randint(SMALL + 1024, 256 * 1024)


def _huge(source):
    return source.randint(256 * 1024, LARGE)


def _vast(source):
    return source.randint(3 * LARGE, 4 * LARGE)


# By mode, which is the second part of a key; the first is `load`.
SIZES = {
    "small": [_small],
    "large": [_large, _huge],
    "edge": [_edge],
    "long": [_large],
    "mixed": [_small, _small, _small, _edge, _large, _huge],
    # More than is written before a first sync on the way.
    "vast": [_vast],
}


class Key:
    """What is known of one key: the write that is certain, and those since then that may or may not be there."""

    def __init__(self, name):
        self.name, self.certain, self.possible = name, ABSENT, []

    def allowed(self):
        return [self.certain, *self.possible]


class Writer(threading.Thread):
    """Writes and removes its own keys, one command after the other, until told to stop."""

    def __init__(self, load, keys, seed):
        super().__init__(daemon=True)
        self.load, self.keys, self.random = load, keys, random.Random(seed)

    def run(self):
        while not self.load.ending.is_set():
            key = self.random.choice(self.keys)
            if self.random.random() < 0.15:
                self.remove(key)
            else:
                self.write(key)

    def write(self, key):
        number = self.load.number()
        code = self.load.store.set(key.name, content(key.name, number), expect=(0, 3)).code
        if code == 0:
            key.certain, key.possible = number, []
            self.load.count("acknowledged")
        else:
            key.possible.append(number)
            self.load.count("unanswered")

    def remove(self, key):
        code = self.load.store.run("rm", key.name, expect=(0, 1, 3)).code
        if code == 1 and ABSENT not in key.allowed():
            fail(f"{key.name}: `rm` found no such key, but write {key.certain} was acknowledged")
        if code in (0, 1):
            key.certain, key.possible = ABSENT, []
            self.load.count("acknowledged")
        else:
            key.possible.append(ABSENT)
            self.load.count("unanswered")


class Load:
    """Several writers on one store."""

    def __init__(self, store, mode, writers=4, keys=12, seed=0):
        self.store, self.seed = store, seed
        self.figures = {"acknowledged": 0, "unanswered": 0, "lost": 0, "checked": 0}
        self.lock = threading.Lock()
        self.last = 0
        self.keys = [[Key(f"load/{mode}/{w}/{k}") for k in range(keys)] for w in range(writers)]
        self.threads = []
        self.ending = threading.Event()

    def number(self):
        with self.lock:
            self.last += 1
            return self.last

    def count(self, figure, by=1):
        with self.lock:
            self.figures[figure] += by

    def start(self):
        self.ending = threading.Event()
        self.seed += 1
        self.threads = [Writer(self, keys, f"{self.seed} {w}") for w, keys in enumerate(self.keys)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Returns once every writer has ended its last command."""
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def verify(self, when):
        """Reads every key. What was acknowledged, or a later unanswered write, must be there."""
        listed = self.store.keys()
        if listed is None:
            return
        if listed != sorted(listed, key=str.encode):
            fail(f"{when}: `ls` is not in byte order")
        names, found = set(listed), {}
        for name in (key.name for keys in self.keys for key in keys):
            ended = self.store.get(name, expect=(0, 1))
            if ended.code == 0:
                found[name] = ended.out
            if (name in names) != (name in found):
                fail(f"{when}: {name}: `ls` and `get` differ on whether it exists")
        self.judge(when, found)
        for name in sorted(names - set(found)):
            if name.startswith("load/"):
                fail(f"{when}: {name}: nobody wrote this key")

    def judge(self, when, found):
        """Compares what the store holds, values by their keys, with what must be there."""
        for key in (key for keys in self.keys for key in keys):
            number = self.written(key, found.get(key.name), when)
            if number not in key.allowed():
                self.count("lost")
                fail(f"{when}: {key.name}: holds write {number}, should hold one of {key.allowed()}")
            key.certain, key.possible = number, []
            self.count("checked")

    def written(self, key, value, when):
        """Which write a value comes from."""
        if value is None:
            return ABSENT
        try:
            number = int(value[:200].split(b"\n")[0].split()[1])
        except (ValueError, IndexError):
            number = -1
        if number < 0 or value != content(key.name, number):
            fail(f"{when}: {key.name}: {len(value)} bytes that were never written: {value[:60]!r}")
            return key.certain
        return number
