"""See sync.sh."""

import json
import random
import subprocess
import sys
import time

from programs import WORK, Store, fail, finish, wait_until

kills = int(sys.argv[1])
chance = random.Random()
server, laptop, desktop, phone = (Store(f"{WORK}/{name}") for name in ("server", "laptop", "desktop", "phone"))
devices = [laptop, desktop, phone]
written, slowest = 0, 0.0


def serve():
    """Starts the server on a free port, and returns its address."""
    process = server.start("serve", "--bind", "127.0.0.1:0", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: server.daemon() == process.pid, 20)
    bind = json.loads(server.run("status", "--json", expect=0).out)["bind"]
    return process, bind


def pair(device, bind):
    """What a person copies from `config show` on the server."""
    shown = server.run("config", "show", expect=0).out.decode()
    key = shown.split("Encryption Key: ")[1].split()[0]
    device.run("config", "key", "-", data=key.encode(), expect=0)
    device.run("config", "remote", bind, expect=0)


def set_random(device):
    """Sets a key that others set as well; now and then a large value."""
    global written
    value = chance.randbytes(chance.choice((0, 10, 500, 4096, 4097, 300_000)))
    device.set(f"shared/{chance.randrange(20)}", value)
    written += 1


process, bind = serve()
laptop.set("before", b"set before the remote was known")
for device in (laptop, desktop):
    pair(device, bind)
    device.run("sync", "--timeout", "30s", expect=0)
for name, device, other in (("a", laptop, desktop), ("b", desktop, laptop), ("c", server, laptop)):
    began = time.monotonic()
    device.set(name, b"hello from " + name.encode())
    if other.run("wait", name, "--timeout", "30s", expect=0).out != b"hello from " + name.encode():
        fail(f"{name} came as something else")
    slowest = max(slowest, time.monotonic() - began)
for number in range(kills):
    process.kill()
    process.wait()
    for device in (laptop, desktop):
        for _ in range(5):
            set_random(device)
    laptop.run("rm", "-f", f"shared/{number}", expect=0)
    device = chance.choice((laptop, desktop))
    device.kill()
    device.set("after the kill", str(number).encode())
    process, bind = serve()
    for device in (laptop, desktop):
        device.run("config", "remote", bind, expect=0)
    server.set(f"from the server/{number}", b"x")
pair(phone, bind)
for _ in range(2):
    for device in devices:
        device.run("sync", "--timeout", "60s", expect=0)
stores = {store.directory: store.run("export", expect=0).out for store in (server, *devices)}
exported = {directory: sorted(line for line in out.splitlines() if b'"key"' in line) for directory, out in stores.items()}
if len({tuple(lines) for lines in exported.values()}) != 1:
    fail(f"the stores differ: {({directory: len(lines) for directory, lines in exported.items()})}")
for device in devices:
    states = {line.split()[2] for line in device.run("ls", "-l", expect=0).out.decode().splitlines()}
    if states != {"synced"}:
        fail(f"`ls -l` says {states} though all is synced")
    device.run("doctor", expect=0)
process.kill()
process.wait()
laptop.set("alone", b"x")
if laptop.run("sync", "--timeout", "1s").code != 4:
    fail("a sync with a dead server did not end with 4")
finish(
    "sync",
    f"a server killed {kills} times and 3 devices, {written} random writes, {len(exported[server.directory])} keys equal "
    f"on all four, slowest set on one and wait on another {slowest * 1000:.0f} ms",
)
