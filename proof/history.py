"""What was written where and when, and what must be there in the end.

Every write is noted with the time before and after its command. All machines of a proof share one clock, so a write
that began after another had ended is newer, and the older one must not be seen where the newer one survives. A write
survives that was acknowledged and is on a store that was not replaced: its own, or one that a `kvass sync` with exit
code 0 brought it to.
"""

import hashlib
import threading
import time

ABSENT = hashlib.sha256(b"no such key").hexdigest()


def fingerprint(value):
    """What stands for a value in here."""
    return ABSENT if value is None else hashlib.sha256(value).hexdigest()


class Write:
    """One command that wrote, or may have written."""

    def __init__(self, number, key, value, by):
        self.number, self.key, self.print, self.by = number, key, fingerprint(value), by
        self.begin, self.end, self.is_certain = time.time(), None, False

    def __str__(self):
        what = "rm" if self.print == ABSENT else f"set {self.print[:8]}"
        return f"#{self.number} {what} by {self.by} at {self.begin:.6f}..{self.end or 0:.6f}"


class Copy:
    """Which writes are in the copy of a data directory."""

    def __init__(self, writes):
        self.writes = frozenset(writes)


class History:
    """All writes, and which store holds which of them, or something newer."""

    def __init__(self):
        self.lock = threading.Lock()
        self.writes, self.held, self.epochs, self.lost = [], {}, {}, 0

    def add(self, name, copy=Copy(())):
        """There is a store, which holds what its copy does."""
        with self.lock:
            self.held[name] = set(copy.writes)
            self.epochs[name] = self.epochs.get(name, 0) + 1

    def copy(self, name):
        with self.lock:
            return Copy(self.held[name])

    def begin(self, key, value, by):
        with self.lock:
            write = Write(len(self.writes), key, value, by)
            self.writes.append(write)
            return write

    def acknowledged(self, write):
        write.end = time.time()
        with self.lock:
            write.is_certain = True
            self.held[write.by].add(write.number)

    def unanswered(self, write):
        """It may have been stored, or may still be, by a daemon that slept."""
        write.end = time.time() + 10

    def nothing(self, write):
        """The command has said that it wrote nothing."""
        with self.lock:
            write.end = write.begin
            write.print = "nothing"

    def meeting(self, one, other):
        """Before a `kvass sync`: what both will hold after it."""
        with self.lock:
            epochs = (self.epochs[one], self.epochs[other])
            return one, other, epochs, self.held[one] | self.held[other]

    def met(self, meeting):
        """After a `kvass sync` with exit code 0. Says nothing where one of both was replaced meanwhile."""
        one, other, epochs, writes = meeting
        with self.lock:
            if epochs == (self.epochs[one], self.epochs[other]):
                self.held[one] |= writes
                self.held[other] |= writes

    def judge(self, found):
        """The texts of what is wrong with the keys that are there: a dict of key to fingerprint."""
        with self.lock:
            surviving = set().union(*self.held.values())
            keys, texts = {}, []
            for write in self.writes:
                keys.setdefault(write.key, []).append(write)
        self.lost = sum(1 for write in self.writes if write.is_certain and write.number not in surviving)
        for key in sorted(set(found) - set(keys)):
            texts.append(f"{key}: nobody wrote this key")
        for key, writes in keys.items():
            certain = [write for write in writes if write.number in surviving]
            # What began last among what survives is newer than all that had ended by then.
            newest = max(certain, key=lambda write: write.begin, default=None)
            at = found.get(key, ABSENT)
            if newest is None and at == ABSENT:
                continue
            winners = [write for write in writes if write.print == at]
            if not winners:
                texts.append(f"{key}: holds {'nothing' if at == ABSENT else 'what nobody wrote'}; newest: {newest}")
            elif newest and all(write.end + 2e-6 < newest.begin for write in winners):
                texts.append(f"{key}: holds {max(winners, key=lambda write: write.end)}, which {newest} replaced")
        return texts
