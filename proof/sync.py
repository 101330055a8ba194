"""See sync.sh."""

import json
import os
import random
import subprocess
import sys
import time

import programs
from programs import KVASS, WORK, Store, fail, finish, is_so, wait_until

kills = int(sys.argv[1])
chance = random.Random()
server, laptop, desktop, phone = (Store(f"{WORK}/{name}") for name in ("server", "laptop", "desktop", "phone"))
devices = [laptop, desktop, phone]
written, slowest = 0, 0.0


def shell(store, line, **streams):
    """A line as a person types it, with a kvass of that machine."""
    environment = {**store.environment, "PATH": os.path.dirname(KVASS) + ":" + store.environment["PATH"]}
    return subprocess.run(["sh", "-c", line], env=environment, stdout=subprocess.PIPE, timeout=60, **streams).stdout


def serve(bind="127.0.0.1:0"):
    """Starts the server, on a free port, and returns its address."""
    process = server.start("serve", "--bind", bind, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not wait_until(lambda: server.daemon() == process.pid, 20):
        fail("the server did not start")
    return process, json.loads(server.run("status", "--json", expect=0).out)["bind"]


def pair(device, bind):
    """What a person copies from `config show` on the server."""
    key = shell(server, "kvass config show | sed -n 's/^Encryption Key: //p'").decode().strip()
    device.run("config", "key", key, expect=0)
    found = device.run("config", "remote", bind, expect=0)
    if b"nothing" in found.err or b"refuses" in found.err:
        fail(f"`config remote` did not find the server: {found.words()}")


def join(device):
    """What a person does with the line that `kvass pair` shows on a device that is paired already."""
    line = laptop.run("pair", expect=0).out
    device.run("join", "-f", data=line, expect=0)


def comes(key, value, *, by, to):
    """What is set on one machine is there on another, a moment later."""
    global slowest
    began = time.monotonic()
    by.set(key, value)
    is_so(f"{key} came as something else", to.run("wait", key, "--timeout", "30s", expect=0).out == value)
    slowest = max(slowest, time.monotonic() - began)


def set_random(device):
    """Sets a key that others set as well; now and then a large value."""
    global written
    value = chance.randbytes(chance.choice((0, 10, 500, 4096, 4097, 300_000)))
    device.set(f"shared/{chance.randrange(20)}", value)
    written += 1


def in_step():
    """Everything is everywhere: what the first device has got of the last one, too."""
    for _ in range(2):
        for device in devices:
            device.run("sync", "--timeout", "60s", expect=0)


# One machine, from nothing.
picture = chance.randbytes(150_000)
with open(WORK + "/kvass.jpg", "wb") as file:
    file.write(picture)
shell(laptop, "kvass set hello world")
is_so("`get` is not what was set", shell(laptop, "kvass get hello") == b"world")
is_so("`ls` does not show the key", shell(laptop, "kvass ls") == b"hello\n")
shell(laptop, f"kvass set logo < {WORK}/kvass.jpg && kvass get logo > {WORK}/kvass2.jpg")
is_so("a file did not come back as it was", open(WORK + "/kvass2.jpg", "rb").read() == picture)

# The server: its key over a pipe, as ssh gives it, with no daemon before; then `serve`, which takes over.
shown = shell(server, "kvass config show | cat").decode().splitlines()
names = [line.split(":")[0] for line in shown]
is_so(f"`config show` begins with {names[:3]}", names[:3] == ["Encryption Key", "ProcessID", "Remote"])
is_so(f"`config show` has {shown[2]}", shown[2] == "Remote: (None)")
process, bind = serve()
pair(laptop, bind)
is_so("another key came back", shell(laptop, "kvass config show").splitlines()[0].decode() == shown[0])
is_so("the remote is not shown", f"Remote: http://{bind}\n" in shell(laptop, "kvass config show").decode())

# There and back again, by hand on both machines.
comes("hello from the other side", b"hello", by=laptop, to=server)
laptop.run("sync", "--timeout", "30s", expect=0)
is_so("what was set before is not at the server", shell(server, "kvass get logo") == picture)
shell(server, "kvass set hello 👋")
is_so("what the server set did not come", shell(laptop, "kvass get hello --fresh=30s").decode() == "👋")
shell(laptop, "kvass set done yes --wait=30s")
is_so("what was waited for is not at the server", shell(server, "kvass get done") == b"yes")
shell(laptop, "kvass rm logo")
laptop.run("sync", "--timeout", "30s", expect=0)
is_so("a removal did not come", server.run("get", "logo", expect=1).code == 1)

# A second device, and one that was offline meanwhile.
pair(desktop, bind)
desktop.run("sync", "--timeout", "30s", expect=0)
is_so("the second device lacks what the first has", desktop.keys() == laptop.keys())
comes("film", chance.randbytes(6_000_000), by=desktop, to=laptop)
comes("empty", b"", by=laptop, to=desktop)
desktop.run("config", "remote", "", expect=0)
desktop.set("hello", b"older, offline")
desktop.set("only here", b"offline")
shell(laptop, "kvass set hello newer")
desktop.run("config", "remote", bind, expect=0)
desktop.run("sync", "--timeout", "30s", expect=0)
laptop.run("sync", "--timeout", "30s", expect=0)
for device in (laptop, desktop, server):
    is_so("an older write won", device.get("hello").out == b"newer")
    is_so("an offline write was lost", device.get("only here").out == b"offline")

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
    process, bind = serve(bind)
    server.set(f"from the server/{number}", b"x")
phone.set("before", b"set before it was joined")
join(phone)
in_step()
stores = {store.directory: store.run("export", expect=0).out for store in (server, *devices)}
exported = {directory: [line for line in out.splitlines() if b'"key"' in line] for directory, out in stores.items()}
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
for arguments in (("sync", "--timeout", "1s"), ("set", "alone", "y", "--wait=1s"), ("get", "alone", "--fresh=1s")):
    is_so(f"`kvass {arguments[0]}` beside a dead server did not end with 4", laptop.run(*arguments).code == 4)
is_so("what was set with --wait was not kept", laptop.get("alone").out == b"y")
finish(
    "sync",
    f"{programs.looks} lines of the first session, a server killed {kills} times and 3 devices, {written} random writes, "
    f"{len(exported[server.directory])} lines of export equal on all four, slowest set on one and wait on another "
    f"{slowest * 1000:.0f} ms",
)
