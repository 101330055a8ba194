"""See soak.sh."""

import contextlib
import hashlib
import json
import os
import random
import sys
import threading
import time
from base64 import b64decode

from history import History
from machines import Machine, Server
from measure import Sampler, growths, long_lives
from people import Porter, User, Watcher, count, counts
from plot import MIB, draw_all
from programs import WORK, fail, finish, low_port, wait_until

MINUTES, RESULTS = float(sys.argv[1]), sys.argv[2]
SECONDS, IS_LONG = MINUTES * 60, MINUTES >= 10
SEED = os.environ.get("SEED") or str(random.SystemRandom().randrange(1 << 32))
IS_BLIND = os.environ.get("BLIND") == "1"
SIZES = [size * MIB for size in ((1, 2, 4, 8, 16, 32, 64) if IS_LONG else (1, 2, 4))]
PAUSE, LARGE_PAUSE = (0.6, 20) if IS_LONG else (0.15, 2)

chance, history = random.Random(SEED), History()
server = Server("server", low_port())
# The first is not touched; the second and the server are ended in the first quarter alone, so that what grows in a
# process is seen; the others again and again.
devices = [Machine(f"device{number}", server) for number in range(1, 6)]
machines = [server, *devices]
restless = devices[2:]
key = chance.randbytes(32).hex()


def config_key(machine):
    """Gives a machine the key in force."""
    if machine is server and IS_BLIND:
        shown = devices[0].run("config", "server-key", expect=0).out
        machine.run("config", "key", "--force", "-", data=shown, expect=0)
    else:
        machine.again("config", "key", "-", data=key.encode())


def set_up():
    for machine in machines:
        history.add(machine.name)
    # A blind server's key is told by a device.
    config_key(devices[0])
    server.begin()
    for machine in (server, *devices[1:]):
        config_key(machine)
    for device in devices:
        device.set_remote()


def restart(machine):
    """Ends a daemon in one way or another; a command may come between and start it first."""
    is_killed = chance.random() < 0.5
    if machine is server:
        with everybody():
            server.end(is_killed)
            server.begin()
    elif is_killed:
        machine.kill()
        machine.begin()
    else:
        machine.again("daemon", chance.choice(("stop", "restart")))
        machine.begin()
    count("kills" if is_killed else "restarts")


@contextlib.contextmanager
def everybody():
    """Nobody does anything meanwhile, so that what they are shown is certain."""
    with contextlib.ExitStack() as held:
        for person in people:
            held.enter_context(person.lock)
        yield


def change_key():
    global key
    with everybody():
        key = chance.randbytes(32).hex()
        # A device that meets another key at the server waits until its own changes; so the server is first.
        first = [devices[0], server] if IS_BLIND else [server, devices[0]]
        for machine in first + devices[1:]:
            config_key(machine)
    count("changes of key")


def be_away(device, seconds):
    """A device has no remote for a while, and goes on."""
    device.again("config", "remote", "")
    ending.wait(seconds)
    device.set_remote()
    count("times away")


def happen():
    """Restarts and absences until the end, and a change of key now and then."""
    early = [SECONDS * part for part in (0.05, 0.12, 0.2)]
    keys = [SECONDS * part for part in (0.15, 0.4, 0.65)]
    while not ending.wait(chance.uniform(0.5, 1.5) * (30 if IS_LONG else 3)):
        at = time.monotonic() - began
        if early and at > early[0]:
            early.pop(0)
            restart(server)
            restart(devices[1])
        elif keys and at > keys[0]:
            keys.pop(0)
            change_key()
        elif chance.random() < 0.2:
            be_away(chance.choice(restless), min(chance.uniform(30, 180), SECONDS / 10))
        else:
            restart(chance.choice(restless))


def in_step(device):
    ended = device.run("sync", "--timeout", "300s", expect=0, patience=330)
    return ended.code == 0 or fail(f"{device.name} is not in step: {device.status()}")


def exported(machine):
    """An export in a file, without its header, and its hash."""
    path, digest = f"{WORK}/{machine.name}.export", hashlib.sha256()
    with open(path, "wb") as file:
        machine.run("export", stdout=file, expect=0, patience=600)
    with open(path, "rb") as file:
        next(file)
        for line in file:
            digest.update(line)
    return path, digest.hexdigest()


def fingerprints(path):
    """Of the values in an export."""
    values = {}
    with open(path, "rb") as file:
        for entry in map(json.loads, file):
            if "key" in entry:
                text = entry.get("value")
                part = text.encode() if text is not None else b64decode(entry["value_base64"])
                values.setdefault(entry["key"], hashlib.sha256()).update(part)
    return {name: value.hexdigest() for name, value in values.items()}


def judge_doctor(machine):
    """Where nothing breaks, nothing is found. A short run only counts what was refused, and looks at what is there."""
    report = machine.run("doctor", expect=(0, 1), patience=600).out.decode()
    for line in report.splitlines():
        if line.startswith("!! refused:") and not IS_LONG:
            count("stores that refused something")
        elif line.startswith("!!"):
            fail(f"{machine.name}: doctor finds {line}")


def verify():
    """All stores hold the same, which is what the history allows, and not one file more."""
    readable = devices if IS_BLIND else machines
    path, right = exported(readable[0])
    found = fingerprints(path)
    for text in history.judge(found):
        fail(text)
    listed = [json.loads(line) for line in devices[0].run("ls", "--json", expect=0).out.splitlines()]
    values = sum(entry["size"] > 4_096 for entry in listed)
    for machine in readable[1:]:
        if exported(machine)[1] != right:
            fail(f"{machine.name} holds something else than {readable[0].name}")
    named = set.intersection(*(set(os.listdir(machine.directory + "/blobs")) for machine in machines))
    for machine in machines:
        blobs = machine.directory + "/blobs"
        if not wait_until(lambda: len(os.listdir(blobs)) == values, 30):
            fail(f"{machine.name} has {len(os.listdir(blobs))} files of values, not {values}: {set(os.listdir(blobs)) - named}")
        status = machine.status()
        if status.get("pending") or status["keys"] != len(found):
            fail(f"{machine.name}: `status` says {status}")
        judge_doctor(machine)
        machine.judge_log()
    return len(found), values


print(f"soak: SEED={SEED}", flush=True)
os.makedirs(RESULTS, exist_ok=True)
set_up()
began, ending = time.monotonic(), threading.Event()
users = [User(device, f"{SEED} {device.name}", PAUSE, history, server) for device in devices]
if not IS_BLIND:
    users.append(User(server, f"{SEED} server", PAUSE, history))
# What is not to be read must not be written either.
porters = devices if IS_BLIND else machines
people = [*users, Porter(porters, f"{SEED} large", LARGE_PAUSE, history, SIZES)]
watchers = [Watcher(machine, f"{SEED} {machine.name}", max(60, SECONDS / 20)) for machine in porters]
sampler = Sampler(machines, max(1, min(5, SECONDS / 60)), f"{RESULTS}/samples.tsv")
events = threading.Thread(target=happen, daemon=True)
for thread in (sampler, events, *people, *watchers):
    thread.start()
time.sleep(SECONDS)
ending.set()
events.join()
for thread in people:
    thread.stop()
for thread in (sampler, *watchers):
    thread.stop()

server.begin()
for user in users:
    user.keep_faded()
for device in devices * 2:
    in_step(device)
entries, values = verify()
if IS_LONG:
    for text in growths(sampler.rows, SECONDS / 2):
        fail(text)
    draw_all(sampler.rows, RESULTS)
lives = long_lives(sampler.rows, SECONDS / 2)
did = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
greatest = max(row["memory"] for row in sampler.rows) / MIB
finish(
    "soak",
    f"SEED={SEED}, {MINUTES:g} minutes{' with a blind server' if IS_BLIND else ''}: {did}; {entries} entries and {values} "
    f"files of values equal everywhere, {len(lives)} processes lived half of it or longer, most memory {greatest:.0f} MiB",
)
