"""Runs a daemon under strace, and reads what it did, call by call.

strace sees a call before the kernel does it, and sees its end after the kernel has done it. So what stands before the
first line of a call ended before that call began: this order can be relied on, where times could not.
"""

import os
import re
import shutil
import subprocess

from programs import KVASS, KVASSD, WORK, wait_until

# What touches files and what may be said to clients; all that could touch files otherwise is here to be noticed.
CALLS = (
    "openat,open,creat,close,dup,dup2,dup3,fcntl,read,write,writev,pwrite64,pwritev,pwritev2,lseek,ftruncate,truncate,"
    "fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,fsync,"
    "fdatasync,sync_file_range,copy_file_range,sendfile,splice,mmap,io_uring_setup,accept,accept4,recvfrom,recvmsg,"
    "sendto,sendmsg,sendmmsg"
)

LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)", re.DOTALL)
RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
ENDED = re.compile(r"(.*)\) += (-?\d+|0x[0-9a-f]+|\?)", re.DOTALL)
PART = re.compile(r'"[^"]*"(?:\.\.\.)?|[\[\]{},]|[^"\[\]{},]+')


class Call:
    """A system call. `start` and `end` are places in the trace: the numbers of its first and last line. `end` is infinite
    for a call that a kill cut short."""

    def __init__(self, thread, time, name, start):
        self.thread, self.time, self.name, self.start = thread, time, name, start
        self.end, self.result, self.text = float("inf"), None, ""
        self.parts = None

    def argument(self, number):
        """An argument as strace writes it."""
        if self.parts is None:
            self.parts = split(self.text)
        return self.parts[number]

    def number(self, number):
        return int(self.argument(number), 0)

    def bytes(self, number):
        """An argument that is bytes, or a list of parts that are."""
        text = self.argument(number)
        if '"...' in text:
            raise ValueError(f"the trace holds only the beginning of what {self.name} got")
        return b"".join(bytes.fromhex(part.replace("\\x", "")) for part in text.split('"')[1::2])

    def path(self, number):
        return os.fsdecode(self.bytes(number))

    @property
    def succeeded(self):
        return self.result is not None and self.result >= 0

    def __repr__(self):
        return f"{self.name}({self.text[:60]}) = {self.result} at {self.start}"


def split(text):
    """The arguments of a call; commas inside of brackets separate nothing."""
    parts, depth, part = [], 0, []
    for found in PART.findall(text):
        depth += (found in "[{") - (found in "]}") if len(found) == 1 else 0
        if found == "," and depth == 0:
            parts.append("".join(part).strip())
            part = []
        else:
            part.append(found)
    parts.append("".join(part).strip())
    return parts


def read(path, first=0):
    """All calls of a trace in the order of their beginnings; its lines are counted from `first` on."""
    calls, begun = [], {}
    with open(path, encoding="ascii", errors="replace") as lines:
        for place, line in enumerate(lines, first):
            thread, time, rest = LINE.match(line.rstrip("\n")).groups()
            if rest.startswith(("---", "+++")):
                continue
            resumed = RESUMED.match(rest)
            if resumed:
                call = begun.pop(thread)
                text = call.text + resumed[1]
            else:
                name, _, text = rest.partition("(")
                call = Call(int(thread), float(time), name, place)
                calls.append(call)
            if text.endswith(" <unfinished ...>"):
                call.text = text.removesuffix(" <unfinished ...>")
                begun[thread] = call
                continue
            ended = ENDED.match(text)
            # What a kill surprises is told in part, as in `read(3 <ptrace(SYSCALL):No such process>`.
            call.text = ended[1] if ended else text.split(" <ptrace")[0]
            if ended and ended[2] != "?":
                call.result, call.end = int(ended[2], 0), place
    return calls


def steps(calls):
    """The first and last lines of calls in the order of the trace, each with whether it is the last."""
    found = [(call.start, False, call) for call in calls]
    found += [(call.end, True, call) for call in calls if call.result is not None]
    for _, is_end, call in sorted(found, key=lambda step: step[:2]):
        yield call, is_end


class Traced:
    """A daemon of that store in the foreground, every call of which goes to a file.

    The store is reached by a client that stands alone from now on, so that no command starts a daemon of its own.
    """

    def __init__(self, store, path, *options, arguments=()):
        self.store, self.path = store, path
        store.client = WORK + "/kvass"
        if not os.path.exists(store.client):
            shutil.copy(KVASS, store.client)
        daemon = KVASSD
        command = ["strace", "-f", "-ttt", "-xx", "-s", "10000000", "-e", "trace=" + CALLS, "-e", "signal=none"]
        command += [*options, "-o", path, daemon, "--db", store.directory, *arguments]
        self.process = subprocess.Popen(
            command, env=store.environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if not wait_until(lambda: store.run("status").code == 0, 60):
            raise SystemExit("strace.py: the daemon does not serve under strace")

    def end(self, kill=False):
        """Ends it, by a kill or as it should."""
        if kill:
            self.store.kill()
        else:
            self.store.stop()
        self.process.wait(60)
