"""See power.sh."""

import json
import random
import subprocess
import sys
import time

from disk import MOUNT, cut, make, mount, remove, unmount
from programs import WORK, Store, fail, finish, wait_until

CUTS, RECORDS = 3, 30_000
rounds = int(sys.argv[1])
chance = random.Random()
device = Store(WORK + "/device")
waiting = []


def fill():
    path = WORK + "/records.jsonl"
    with open(path, "w", encoding="ascii") as file:
        for number in range(RECORDS):
            file.write(json.dumps({"key": f"key/{number:06}", "value": f"{number}".ljust(100, ".")}) + "\n")
    device.run("import", path, expect=0, patience=300)


def serve(server, bind):
    """Starts the server; whether it serves."""
    process = server.start("serve", "--bind", bind, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return wait_until(lambda: process.poll() is not None or server.daemon() == process.pid, 20) and not process.poll()


def entries(store):
    """The entries as they are exported, without the line about the export itself."""
    return sorted(store.run("export", "-", expect=0).out.splitlines()[1:])


def first_sync(system, key):
    """The first sync of a device with an empty server, whose power is cut in between."""
    make(system)
    server = Store(MOUNT + "/db")
    server.run("config", "key", "-", data=key, expect=0)
    server.stop()
    if not serve(server, "127.0.0.1:0"):
        raise SystemExit("power-sync: the server does not start")
    bind = json.loads(server.run("status", "--json", expect=0).out)["bind"]
    device.run("config", "remote", bind, expect=0)
    for number in range(1, CUTS + 1):
        time.sleep(chance.uniform(0.15, 0.6))
        waiting.append(json.loads(device.run("status", "--json", expect=0).out)["pending"])
        cut()
        server.kill_all()
        unmount()
        mount(system)
        if not serve(server, bind):
            fail(f"{system}, cut {number}: the server did not start: {server.run('status').words()}")
            break
    device.run("sync", "--timeout", "60s", expect=0, patience=90)
    if entries(server) != entries(device):
        fail(f"{system}: server and device hold other entries")
    device.run("config", "remote", "", expect=0)
    server.kill_all()
    remove()


fill()
key = device.key().encode()
for number in range(rounds):
    first_sync(("ext4", "xfs")[number % 2], key)
midway = sum(0 < pending < RECORDS for pending in waiting)
if midway == 0:
    fail("no cut came in the middle of a sync, so it proves nothing")
finish(
    "power-sync",
    f"{len(waiting)} cuts on ext4 and xfs in {rounds} first syncs of {RECORDS:,} records, {midway} of them midway; "
    "the server started after each, and held the same in the end",
)
