"""See quiet.sh."""

import os
import socket
import statistics
import sys
import time

from machines import Machine, Server
from programs import WORK, fail, finish, one_line
from proxy import Network, Proxy

SECONDS = float(sys.argv[1])
# Lines that a log may get in a minute, and what one always may say, as after a start.
LINES, SOME = 20, 10
# How much slower a command may be than beside a remote that is up; below FAST it does not matter.
TIMES, FAST = 3, 0.015

network = Network()
key = os.urandom(32).hex()


class Way:
    """The way to a port where nobody serves."""

    def __init__(self, port):
        self.port = port

    def mend(self):
        pass


def serve(name):
    """A server with the key."""
    server = Server(name)
    server.begin()
    server.set_key(key)
    return server


def device(name, proxy, own_key=key):
    """A device in one of the states."""
    machine = Machine(name, proxy)
    machine.set_key(own_key)
    machine.run("config", "remote", f"127.0.0.1:{proxy.port}", expect=0)
    machine.set("before", b"it was there before")
    machine.times = {"get": [], "set": []}
    return machine


def fill(directory):
    """Fills a file system so that no new value is taken, and even sled has no room."""
    with open(directory + "/filler", "ab") as filler:
        while True:
            figures = os.statvfs(directory)
            free = figures.f_bavail * figures.f_frsize
            if free < 4096:
                return
            try:
                os.posix_fallocate(filler.fileno(), filler.seek(0, 2), max(4096, min(free, 8 << 20)))
            except OSError:
                return


def lines(name):
    """How many lines a log has, and bytes with its older half."""
    paths = [path for path in (name, name + ".old") if os.path.exists(path)]
    texts = [open(path, "rb").read() for path in paths]
    return sum(text.count(b"\n") for text in texts), sum(map(len, texts))


def log_of(machine):
    return machine.directory + (".log" if isinstance(machine, Server) else "/kvassd.log")


def timed(machine, command, *arguments, data=None, expect=0):
    began = time.monotonic()
    ended = machine.run(command, *arguments, data=data, expect=expect)
    machine.times[command].append(time.monotonic() - began)
    return ended


good, full_server = serve("server"), serve("full-server/db")
hole = socket.create_server(("127.0.0.1", 0))
closed = socket.create_server(("127.0.0.1", 0))
closed_port = closed.getsockname()[1]
closed.close()
flapping = Proxy(network, "flapping", good.port)
network.calm = True
states = {
    "up": device("up", Proxy(network, "up", good.port)),
    "alone": device("alone", Way(closed_port)),
    "down": device("down", Way(closed_port)),
    "black hole": device("hole", Way(hole.getsockname()[1])),
    "another key": device("stranger", Proxy(network, "stranger", good.port), os.urandom(32).hex()),
    "flapping": device("flapping", flapping),
    "full": device("full-device/db", Proxy(network, "full", good.port)),
    "full server": device("before-full", Proxy(network, "before full", full_server.port)),
}
states["alone"].run("config", "remote", "", expect=0)
states["full"].run("sync", "--timeout", "30s", expect=0)
for full in ("device", "server"):
    fill(f"{WORK}/full-{full}")
logs = {state: states[state] for state in states} | {"server": good, "server, full": full_server}
before = {state: lines(log_of(machine)) for state, machine in logs.items()}

rounds, began = 0, time.monotonic()
while time.monotonic() < began + SECONDS or rounds < 20:
    rounds += 1
    (flapping.cut if rounds % 4 < 2 else flapping.mend)()
    for state, machine in states.items():
        timed(machine, "get", "before")
        refused = state == "full"
        ended = timed(machine, "set", f"{machine.name}/{rounds % 50}", data=os.urandom(200), expect=3 if refused else 0)
        if refused:
            one_line(ended.err, "set")
    if rounds % 10 == 0:
        # What the full server cannot take, another device brings as well.
        good.set("from the server", os.urandom(5_000))
minutes = (time.monotonic() - began) / 60

for state, machine in logs.items():
    now = lines(log_of(machine))
    count, size = now[0] - before[state][0], now[1] - before[state][1]
    if count > LINES * minutes + SOME:
        text = open(log_of(machine), errors="replace").read().splitlines()[-3:]
        fail(f"{state}: {count} lines in {minutes:.1f} minutes, {size} bytes: {text}")
    print(f"quiet: log of {state}: {count} lines, {size} bytes in {minutes:.1f} min", file=sys.stderr)
middle = {state: {what: statistics.median(times) for what, times in machine.times.items()} for state, machine in states.items()}
for state, medians in middle.items():
    for what, median in medians.items():
        if median > max(FAST, TIMES * middle["up"][what]):
            fail(f"{state}: `{what}` takes {median * 1000:.1f} ms, beside a remote that is up {middle['up'][what] * 1000:.1f}")

# Space again: what waited goes on by itself.
for full in ("device", "server"):
    os.unlink(f"{WORK}/full-{full}/filler")
for state in ("up", "full", "full server"):
    ended = states[state].run("sync", "--timeout", "90s", expect=0)
if states["full"].run("get", "from the server", expect=0).code != 0:
    fail("the device whose disk was full lacks what the server has")
medians = ", ".join(f"{state} {medians['get'] * 1000:.1f}/{medians['set'] * 1000:.1f}" for state, medians in middle.items())
finish("quiet", f"{rounds} rounds in {minutes:.1f} min, no log above {LINES} lines a minute; median ms of get/set: {medians}")
