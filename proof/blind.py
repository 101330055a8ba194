"""See blind.sh."""

import json
import os
import random
import subprocess
import sys

from programs import WORK, Store, fail, finish, low_port, mapped, wait_until

rounds = int(sys.argv[1])
chance = random.Random()
server, one, two = (Store(f"{WORK}/{name}") for name in ("server", "one", "two"))

# What is looked for has not occurred before, so it is told by its first bytes.
SIZES = (20, 700, 4_096, 4_097, 50_000, 1_500_000)
names, values = [], []


def mark():
    """Sixteen letters and digits that nobody else has written."""
    return "".join(chance.choices("abcdefghjkmnpqrstuvwxyz23456789", k=16))


def value(size):
    """A value that says what it is in its beginning, its middle and, where there is room, its end."""
    marks = [mark().encode() for _ in range(3 if size > 100 else 1)]
    values.extend(marks)
    rest = size - 16 * len(marks)
    return (b"." * (rest // 2)).join(marks).ljust(size, b"!")


def name():
    names.append(mark().encode())
    return "notes/" + names[-1].decode()


def set_all(device):
    written = {}
    for size in SIZES:
        key = name()
        written[key] = value(size)
        device.set(key, written[key])
    removed = name()
    device.set(removed, value(6_000))
    device.run("rm", removed, expect=0)
    return written


def memory(process):
    """The bytes of every mapping of a process that can be read."""
    with open(f"/proc/{process}/maps") as maps:
        ranges = [line.split()[:2] for line in maps]
    with open(f"/proc/{process}/mem", "rb", buffering=0) as file:
        for where, mode in ranges:
            start, end = (int(number, 16) for number in where.split("-"))
            content = mapped(file, start, end) if mode.startswith("r") else None
            if content is not None:
                yield f"memory {where}", content


def files(directory):
    for where, _, found in os.walk(directory):
        for file in found:
            path = os.path.join(where, file)
            if os.path.isfile(path):
                with open(path, "rb") as opened:
                    yield path, opened.read()


def search(store, secrets):
    """What of the secrets is on the disk or in the memory of a store's daemon: each with the places, and the bytes read."""
    found, read = {}, 0
    for place, content in [*files(store.directory), *memory(store.daemon())]:
        read += len(content)
        for what, secret in secrets:
            if secret in content:
                found.setdefault(what, []).append(place)
    return found, read


def serve():
    """Serves at the address that stays over restarts."""
    process = server.start("serve", "--bind", bind, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not wait_until(lambda: server.daemon() == process.pid, 20):
        fail("the server did not start")
    return process


def in_step():
    for device in (one, two, one):
        device.run("sync", "--timeout", "60s", expect=0)


# The key: from one device to the server as a server key, to the other device whole.
shown = one.run("config", "show", expect=0).out.decode().splitlines()
key = one.key()
server_key = one.run("config", "server-key", expect=0).out
server.run("config", "key", data=server_key, expect=0)
two.run("config", "key", data=key.encode(), expect=0)
bind = f"127.0.0.1:{low_port()}"
process = serve()
for device in (one, two):
    device.run("config", "remote", bind, expect=0)

try:
    next(memory(process.pid))
except PermissionError:
    print("blind: SKIPPED: the memory of another process cannot be read here", file=sys.stderr)
    process.kill()
    os._exit(77)

looked_at, expected = 0, {}
for number in range(rounds):
    expected |= set_all(one if number % 2 == 0 else two)
    in_step()
    for device in (one, two):
        # So that a device has a value in its memory, too.
        for entry, content in expected.items():
            if device.get(entry).out != content:
                fail(f"{entry} came as something else")
    for command in (["get", next(iter(expected))], ["ls"], ["set", "x", "y"], ["export"]):
        refused = server.run(*command, expect=2)
        if b"given only a server key" not in refused.err:
            fail(f"the server says of {command[0]}: {refused.err.decode()}")
    secrets = [("the encryption key", bytes.fromhex(key)), ("the encryption key in hex", key.encode())]
    # The request for a key that is refused does name it: that one is the client's own.
    secrets += [(f"the name {mark.decode()}", mark) for mark in names[1:]]
    secrets += [(f"the value {mark.decode()}", mark) for mark in values]
    found, read = search(server, secrets)
    looked_at += read
    for what, places in found.items():
        fail(f"the server has {what} in {places[:3]}")
    server.run("doctor", expect=0)
    if number + 1 < rounds:
        process.kill()
        process.wait()
        process = serve()

# The control: a search that finds nothing anywhere proves nothing.
found, _ = search(one, secrets)
controls = {kind: sum(what.startswith(kind) for what in found) for kind in ("the encryption key", "the name", "the value")}
if controls["the encryption key"] < 1 or controls["the name"] < len(expected) - 1 or controls["the value"] < 1:
    fail(f"the same search on a device finds only {controls}")

status = json.loads(server.run("status", "--json", expect=0).out)
if not status["blind"] or status["keys"] != len(expected) or status["fingerprint"] not in "\n".join(shown):
    fail(f"the server's status is {status}")

# With the encryption key the server is a device.
server.run("config", "key", data=key.encode(), expect=0)
if {entry: server.get(entry).out for entry in expected} != expected:
    fail("with the encryption key the server does not read what it kept")
process.kill()
process.wait()
finish(
    "blind",
    f"{len(names)} names and {len(values)} marks of values passed {rounds} times through a blind server, none of them and "
    f"no encryption key in {looked_at >> 20} MiB of its files and memory; the same search on a device finds "
    f"{controls['the name']} names, {controls['the value']} marks and the key",
)
