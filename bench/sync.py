"""See run.sh. A server and two devices on loopback, as three daemons; all figures of one run on one machine, whose disk
and processors they share. The clock is this process's alone."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

from programs import WORK, Store, fail, memory, wait_until
from table import alone, beside, print_table, rows, say

MIB = 1024 * 1024
big, sets, records = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def field(number, data):
    """A field of a protobuf message: bytes of less than 16,384."""
    length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + length + data


class Connection:
    """A request on the socket of a daemon, without a process for it."""

    def __init__(self, store, command, message):
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.connect(os.path.join(store.directory, "kvassd.sock"))
        self.stream.settimeout(60)
        request = field(1, os.path.realpath(store.directory).encode()) + field(2, b"0") + field(command, message)
        self.stream.sendall(len(request).to_bytes(4, "big") + b"\0" + request)
        self.frame()

    def frame(self):
        length = int.from_bytes(self.take(5)[:4], "big")
        return self.take(length)

    def take(self, length):
        data = b""
        while len(data) < length:
            more = self.stream.recv(length - len(data))
            if not more:
                raise ConnectionError("a daemon closed a connection")
            data += more
        return data


def put(store, key, value):
    """Sets a key, and returns once it is durable."""
    connection = Connection(store, 10, field(1, key.encode()) + field(2, value))
    connection.frame()
    connection.stream.close()


class Watch:
    """Sees the changes on another store as they come."""

    def __init__(self, store):
        self.seen = {}
        self.changed = threading.Condition()
        self.connection = Connection(store, 14, b"")
        self.connection.frame()
        # Nothing may change for longer than a request takes.
        self.connection.stream.settimeout(None)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                change = self.connection.frame()
            except OSError:
                # The daemon was stopped; whoever still waits for a change says so.
                return
            now = time.perf_counter()
            at = change.find(b"probe/")
            if at >= 0:
                with self.changed:
                    self.seen[change[at : at + 14].decode()] = now
                    self.changed.notify_all()

    def wait(self, key):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.seen, 60):
                fail(f"{key} did not come within a minute")
            return self.seen.get(key, 0)


number = 0


def travel(store, watch):
    """Sets a small value; seconds until it is seen elsewhere."""
    global number
    number += 1
    key = f"probe/{number:08}"
    began = time.perf_counter()
    put(store, key, b"x" * 100)
    return watch.wait(key) - began


def serve(server):
    """Starts the server on a free port; its address."""
    process = server.start("serve", "--bind", "127.0.0.1:0", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: server.daemon() == process.pid, 20)
    return json.loads(server.run("status", "--json", expect=0).out)["bind"]


def give_key(server, device):
    device.run("config", "key", "-", data=server.key().encode(), expect=0)


def sync(device, bind):
    """The first sync of a device that has the key; seconds."""
    began = time.perf_counter()
    device.run("config", "remote", bind, expect=0)
    device.run("sync", "--timeout", "300s", expect=0, patience=400)
    return time.perf_counter() - began


def percent(times, part):
    return sorted(times)[min(int(len(times) * part), len(times) - 1)]


def stop(*stores):
    for store in stores:
        store.stop()
        shutil.rmtree(store.directory)


def stores(name):
    return [Store(f"{WORK}/{name}-{role}") for role in ("server", "a", "b")]


def small_changes():
    """From a `set` on one device to a watcher on another, through the server."""
    server, a, b = stores("latency")
    bind = serve(server)
    for device in (a, b):
        give_key(server, device)
        sync(device, bind)
    watch = Watch(b)
    for _ in range(50):
        travel(a, watch)
    times = [travel(a, watch) for _ in range(sets)]
    half, most = percent(times, 0.5), percent(times, 0.99)
    alone(f"`set` on one device, seen on another: half of {sets}", f"{half * 1000:.2f} ms", "under 5 ms", half < 0.005)
    alone("the same: 99 of 100", f"{most * 1000:.2f} ms", "under 25 ms", most < 0.025)
    local = []
    for at in range(sets):
        began = time.perf_counter()
        put(a, f"local/{at:08}", b"x" * 100)
        local.append(time.perf_counter() - began)
    rows.append(("a `set` alone, over the same socket: half", f"{percent(local, 0.5) * 1000:.2f} ms", "", "", "", "", ""))
    stop(a, b, server)


def many_records():
    """The first sync of a device with many short values, and of a second one."""
    server, a, b = stores("records")
    bind = serve(server)
    give_key(server, a)
    path = f"{WORK}/records.jsonl"
    with open(path, "w") as file:
        for at in range(records):
            file.write(json.dumps({"key": f"key/{at:06}", "value": f"{at}".ljust(100, ".")}) + "\n")
    a.run("import", path, expect=0, patience=1200)
    os.unlink(path)
    os.sync()
    first = sync(a, bind)
    give_key(server, b)
    os.sync()
    second = sync(b, bind)
    if len(b.keys() or []) != records:
        fail("not all records came")
    files = f"{WORK}/files"
    os.mkdir(files)
    for at in range(records):
        with open(f"{files}/{at:06}", "w") as file:
            file.write(f"{at}".ljust(100, "."))
    os.sync()
    began = time.perf_counter()
    subprocess.run(["sh", "-c", 'cp -r "$1" "$2" && sync', "sh", files, files + "-copy"], check=True)
    copied = time.perf_counter() - began
    shutil.rmtree(files)
    shutil.rmtree(files + "-copy")
    peer = "`cp -r` of as many files, and `sync`"
    limit = 5 * records / 100_000
    goal = f"under {limit:.1f} s"
    beside(f"first sync of {records:,} short values: device to server", f"{first:.2f} s", peer, f"{copied:.2f} s", goal, first < limit)
    beside("the same: server to a new device", f"{second:.2f} s", peer, f"{copied:.2f} s", goal, second < limit)
    stop(a, b, server)


def large_value():
    """One large value up and down, and small changes beside it."""
    server, a, b = stores("large")
    bind = serve(server)
    for device in (a, b):
        give_key(server, device)
    path = f"{WORK}/big"
    with open(path, "wb") as file:
        for _ in range(big):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    with open(path, "rb") as file:
        a.run("set", "big", stdin=file, expect=0)
    os.sync()
    peer = "`cp` and `sync` of the copy"
    for leg, device, source, target in (("device to server", a, a, server), ("server to a new device", b, server, b)):
        times, done = [], threading.Event()

        def beside_it():
            watch = Watch(target)
            while not done.is_set():
                times.append(travel(source, watch))
                time.sleep(0.01)

        before = threading.Thread(target=beside_it)
        # The first sync is of the large value alone; small changes begin once the session runs.
        device.run("config", "remote", bind, expect=0)
        began = time.perf_counter()
        before.start()
        device.run("sync", "--timeout", "300s", expect=0, patience=400)
        took = time.perf_counter() - began
        done.set()
        before.join()
        os.sync()
        began = time.perf_counter()
        subprocess.run(["sh", "-c", 'cp "$1" "$1-copy" && sync "$1-copy"', "sh", path], check=True)
        copied = time.perf_counter() - began
        os.unlink(path + "-copy")
        rate, peers = big * MIB / took / 1e6, big * MIB / copied / 1e6
        beside(f"{big} MiB, {leg}", f"{rate:.0f} MB/s", peer, f"{peers:.0f} MB/s", "at least 250 MB/s", rate >= 250)
        most = max(times)
        alone(f"small changes beside it ({len(times)}): half, and the slowest",
              f"{statistics.median(times) * 1000:.1f} ms, {most * 1000:.1f} ms", "within 50 ms", most < 0.05)
    for name, store in (("the server", server), ("the first device", a), ("the new device", b)):
        peak = memory(store.daemon(), "VmHWM") / 1024
        alone(f"memory of {name}, at most", f"{peak:.0f} MiB", "under 64 MiB", peak < 64)
    os.unlink(path)
    stop(a, b, server)


for part in (small_changes, many_records, large_value):
    say(f"bench: sync: {part.__name__.replace('_', ' ')} …")
    part()
print_table(f"a server and two devices on one machine; {sets} sets")
