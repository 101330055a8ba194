"""See flood.sh."""

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time

from programs import WORK, Store, fail, finish, memory, wait_until
from strangers import Recorder, Strangers, openings

connections, mib, many = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
if hard < connections + 1000:
    connections = hard - 1000
    print(f"only {connections} connections: descriptors are limited to {hard}", flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
MAY_GROW = 64 << 10
DEVICES = 2


def serve(store, **streams):
    """Starts a server on a free port; returns its process and its address."""
    process = store.start(
        "serve", "--bind", "127.0.0.1:0", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **streams
    )
    wait_until(lambda: store.daemon() == process.pid, 20)
    bind = json.loads(store.run("status", "--json", expect=0).out)["bind"]
    host, port = bind.rsplit(":", 1)
    return process, (host, int(port))


def pair(device, key, port):
    device.run("config", "key", "-", data=key.encode(), expect=0)
    device.run("config", "remote", f"127.0.0.1:{port}", expect=0)


def open_connections(port):
    """How many connections the server has, as the kernel knows it."""
    count = 0
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            count += fields[3] == "01" and int(fields[1].rsplit(":")[-1], 16) == port if fields[0] != "sl" else 0
    return count


def cpu(process):
    """Seconds of processor time that a process has used."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watcher:
    """Looks at the server's memory again and again."""

    def __init__(self, process):
        self.process, self.greatest, self.ended = process, 0, threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.ended.wait(0.02):
            self.greatest = max(self.greatest, memory(self.process, "RssAnon"))

    def end(self):
        self.ended.set()
        self.thread.join()
        return self.greatest


def flood():
    """Strangers, while two devices sync; returns a line of figures."""
    server, one, other, later = (Store(f"{WORK}/{name}") for name in ("server", "one", "other", "later"))
    process, address = serve(server)
    key = server.key()
    recorder = Recorder(address)
    pair(one, key, recorder.port)
    one.set("first", b"x")
    one.run("sync", "--timeout", "20s", expect=0)
    one.run("config", "remote", f"127.0.0.1:{address[1]}", expect=0)
    pair(other, key, address[1])
    for device in (one, other):
        device.run("sync", "--timeout", "20s", expect=0)
    if not wait_until(lambda: recorder.heard, 10):
        fail("nothing was recorded")
    account = recorder.heard[recorder.heard.index(b"k\x01\x01") + 3 :][:16]
    # The session that was recorded ends when its device goes to another address, and not in the same moment.
    if not wait_until(lambda: open_connections(address[1]) == DEVICES, 60):
        fail(f"{open_connections(address[1])} connections before the flood, not those of the {DEVICES} devices")
    before = memory(process.pid, "RssAnon")
    watcher = Watcher(process.pid)
    strangers = Strangers(address, openings(account, recorder.heard), connections, mib << 20)
    began, rounds, slowest = time.monotonic(), 0, 0.0
    strangers.start()
    while strangers.is_busy() or rounds < 3:
        rounds += 1
        value, start = str(rounds).encode(), time.monotonic()
        writer, reader = (one, other) if rounds % 2 else (other, one)
        writer.set(f"during/{rounds}", value)
        if reader.run("wait", f"during/{rounds}", "--timeout", "60s", expect=0).out != value:
            fail(f"during/{rounds} did not come")
        slowest = max(slowest, time.monotonic() - start)
    took = time.monotonic() - began
    held = strangers.count()
    if not wait_until(lambda: open_connections(address[1]) == DEVICES, 60):
        fail(f"{open_connections(address[1])} connections are left, not those of the {DEVICES} devices")
    start = time.monotonic()
    pair(later, key, address[1])
    later.run("sync", "--timeout", "60s", expect=0)
    joined = time.monotonic() - start
    said = sum(strangers.said) >> 20
    strangers.close()
    grew = watcher.end() - before
    if grew > MAY_GROW:
        fail(f"the server grew by {grew >> 10} MiB")
    if not server.is_own(process.pid):
        fail("the server ended")
    ways = len(strangers.ways)
    server.stop()
    return (
        f"{next(strangers.opened)} connections of {ways} kinds ({held} held) with {said} MiB in {took:.0f} s: the server "
        f"grew by {grew / 1024:.1f} MiB, {rounds} sets seen meanwhile, the slowest after {slowest * 1000:.0f} ms; a new "
        f"device in step {joined * 1000:.0f} ms after it"
    )


def scarce():
    """A server with so few descriptors that its guests take all of them."""
    server, device = Store(f"{WORK}/scarce"), Store(f"{WORK}/patient")
    process, address = serve(server, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)))
    key = server.key()
    silent = [socket.create_connection(address) for _ in range(200)]
    used, start = cpu(process.pid), time.monotonic()
    pair(device, key, address[1])
    device.set("scarce", b"x")
    device.run("sync", "--timeout", "30s", expect=0)
    took, used = time.monotonic() - start, cpu(process.pid) - used
    if used > max(took, 1) / 2:
        fail(f"the server used {used:.1f} s of processor time in {took:.1f} s without descriptors")
    for connection in silent:
        connection.close()
    server.stop()
    return f"with 48 descriptors and 200 strangers a device is in step after {took * 1000:.0f} ms"


def crowd():
    """Many devices that are connected and idle; returns a line of figures."""
    server, device = Store(f"{WORK}/many"), Store(f"{WORK}/device")
    process, address = serve(server)
    key = server.key()
    pair(device, key, address[1])
    device.set("before", b"x")
    device.run("sync", "--timeout", "20s", expect=0)
    before = memory(process.pid, "RssAnon")
    url = f"http://127.0.0.1:{address[1]}"
    with subprocess.Popen(
        [os.environ["KVASS_DEVICES"], url, str(many)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as devices:
        devices.stdin.write(key + "\n")
        devices.stdin.flush()
        start = time.monotonic()
        if not devices.stdout.readline().startswith("all have seen"):
            fail("the devices did not connect")
        connected = time.monotonic() - start
        each = (memory(process.pid, "RssAnon") - before) / many
        if each > 100:
            fail(f"an idle device costs {each:.0f} KiB")
        start = time.monotonic()
        device.set("to all", b"x")
        if not devices.stdout.readline().startswith("all have seen"):
            fail("a set did not reach all devices")
        reached = time.monotonic() - start
        if open_connections(address[1]) != many + 1:
            fail(f"{open_connections(address[1])} connections, not {many + 1}")
        devices.stdin.close()
    server.stop()
    return (
        f"{many} devices connected in {connected:.1f} s, {each:.0f} KiB each on the server, a set reached all of them in "
        f"{reached * 1000:.0f} ms"
    )


finish("flood", "; ".join((flood(), scarce(), crowd())))
