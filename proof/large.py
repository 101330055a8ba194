"""See large.sh."""

import os
import subprocess
import sys
import threading
import time

from programs import PATIENCE, WORK, Store, disk_bytes, fail, finish, judge, memory, wait_until

MIB = 1024 * 1024
ALLOWED = 32 * 1024
size = int(sys.argv[1]) * MIB
store = Store(WORK + "/db")
peaks = {"daemon": 0, "client": 0}


def make(name):
    path = f"{WORK}/{name}"
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path


def peak_of(*arguments, stdin=None, stdout=None):
    """Runs a command; the highest resident memory, in KiB, that it had. It is polled, because what wait4 tells of a
    child includes what the parent held when it forked."""
    words = open(WORK + "/words", "w+b")
    with store.start(*arguments, stdin=stdin or subprocess.DEVNULL, stdout=stdout or subprocess.DEVNULL, stderr=words) as command:
        highest, end = 0, time.monotonic() + PATIENCE * 10
        while command.poll() is None:
            highest = max(highest, memory(command.pid, "VmHWM"))
            if time.monotonic() > end:
                command.kill()
                fail(f"`kvass {' '.join(arguments)}` hung")
            time.sleep(0.001)
    words.seek(0)
    said = words.read()
    judge(said, arguments[0])
    if command.returncode != 0:
        fail(f"`kvass {' '.join(arguments)}` ended with {command.returncode}: {said.decode(errors='replace').strip()}")
    return highest


def measured(what, *arguments, stdin=None, stdout=None):
    """Runs a command with the daemon's peak reset before it, and holds both peaks against what they are at rest."""
    daemon = store.daemon()
    try:
        with open(f"/proc/{daemon}/clear_refs", "w") as peak:
            peak.write("5")
    except PermissionError:
        # Only root may: the daemon hides its memory. Then the peak is that of its whole life, which is no less.
        pass
    client = peak_of(*arguments, stdin=stdin, stdout=stdout) - idle_client
    above = memory(daemon, "VmHWM") - idle_daemon
    if store.daemon() != daemon:
        fail(f"{what}: the daemon is another one now")
    for name, value in (("daemon", above), ("client", client)):
        peaks[name] = max(peaks[name], value)
        if value > ALLOWED:
            fail(f"{what}: the {name} took {value / 1024:.1f} MiB above idle, {ALLOWED // 1024} are allowed")


def set_file(what, path):
    with open(path, "rb") as source:
        measured(what, "set", "big", stdin=source)


def get_same(what, path):
    with open(WORK + "/out", "wb") as target:
        measured(what, "get", "big", stdout=target)
    if subprocess.run(["cmp", WORK + "/out", path]).returncode != 0:
        fail(f"{what}: what came out is not what went in")
    os.unlink(WORK + "/out")


def shrinks_to(what, bytes_allowed):
    if not wait_until(lambda: disk_bytes(store.directory) <= bytes_allowed, 10):
        fail(f"{what}: {disk_bytes(store.directory) / MIB:.0f} MiB on the disk, at most {bytes_allowed / MIB:.0f} are due")


first, second = make("first"), make("second")
store.set("small", b"x" * 100)
store.get("small")
time.sleep(3)
idle_daemon = memory(store.daemon(), "VmRSS")
# The least of a command that is as short as it gets; polling may miss the whole of one run, so the best of many.
idle_client = max(peak_of("get", "small") for _ in range(50))
empty = disk_bytes(store.directory)

set_file("set", first)
get_same("get", first)
one = disk_bytes(store.directory)
set_file("overwrite", second)
shrinks_to("after overwriting it", one + 8 * MIB)
get_same("get of the second", second)

measured("get into a file", "get", "big", "-o", WORK + "/out")
if subprocess.run(["cmp", WORK + "/out", second]).returncode != 0:
    fail("`get -o` wrote something else")
os.unlink(WORK + "/out")

# A reader that leaves early must not hurt anybody: no words, and the daemon goes on.
early = store.start("get", "big", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
early.stdout.read(10)
early.stdout.close()
words = early.stderr.read()
early.wait()
if words:
    fail(f"a closed pipe should end quietly, but it said: {words.decode(errors='replace').strip()}")

# A writer that is cut off stores nothing, and leaves nothing.
cut = store.start("set", "big", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
threading.Thread(target=lambda: cut.stderr.read(), daemon=True).start()
for _ in range(min(64, size // MIB)):
    cut.stdin.write(os.urandom(MIB))
cut.kill()
cut.wait()
try:
    cut.stdin.close()
except OSError:
    pass
shrinks_to("after a set that was cut off", one + 8 * MIB)
get_same("get after a set that was cut off", second)

measured("rm", "rm", "big")
shrinks_to("after rm", empty + 8 * MIB)
store.run("get", "big", expect=1)
store.stop()
finish(
    "large",
    f"{size // MIB} MiB: above idle at most {peaks['daemon'] / 1024:.1f} MiB in the daemon (idle {idle_daemon / 1024:.1f}) and "
    f"{peaks['client'] / 1024:.1f} MiB in the client (idle {idle_client / 1024:.1f}); disk {empty / MIB:.0f} MiB empty, {one / MIB:.0f} with it, "
    f"{disk_bytes(store.directory) / MIB:.0f} after overwriting and removing it",
)
