"""See chaos.sh."""

import json
import os
import random
import sys
import threading
import time

from history import History, fingerprint
from machines import Machine, Server
import programs
from programs import WORK, fail, finish, memory
from proxy import Network, Proxy

ROUNDS, SECONDS = int(sys.argv[1]), float(os.environ.get("STORM", "12"))
SEED = os.environ.get("SEED") or str(random.SystemRandom().randrange(1 << 32))
DEVICES, CLONES, SHARED = 3, 2, 24

chance = random.Random(SEED)
network, history = Network(), History()
server = Server("server")
machines = [server]
counts, counting, peak = {}, threading.Lock(), 0
# Whoever changes keys, copies or the number of machines holds this.
structure = threading.Lock()
keys, backups = [chance.randbytes(32).hex()], []


def count(what):
    with counting:
        counts[what] = counts.get(what, 0) + 1


def devices():
    return machines[1:]


def value(source):
    """Random bytes, of a size from nothing to some MiB, often at the border between a row and a file."""
    kind = source.choices(("none", "small", "border", "large", "huge"), (3, 50, 20, 24, 3))[0]
    sizes = {"none": (0, 0), "small": (1, 300), "border": (4094, 4098), "large": (5_000, 300_000), "huge": (1 << 20, 3 << 20)}
    return source.randbytes(source.randint(*sizes[kind]))


class User(threading.Thread):
    """Sets, removes and reads on one machine, and now and then waits for a sync."""

    def __init__(self, machine, seed):
        super().__init__(daemon=True)
        self.machine, self.source, self.ending = machine, random.Random(seed), threading.Event()

    def run(self):
        while not self.ending.is_set():
            with self.machine.gate.together():
                self.act()
            time.sleep(self.source.uniform(0.01, 0.15))

    def act(self):
        own, shared = f"own/{self.machine.name}/{self.source.randrange(8)}", f"shared/{self.source.randrange(SHARED)}"
        key, kind = self.source.choice((own, shared)), self.source.random()
        if kind < 0.7:
            self.write(key, value(self.source))
        elif kind < 0.85:
            self.write(key, None)
        elif kind < 0.95:
            self.machine.run("get", key, expect=(0, 1, 3))
        elif self.machine is not server:
            sync(self.machine, "5s", expect=(0, 3, 4))

    def write(self, key, new):
        write = history.begin(key, new, self.machine.name)
        if new is None:
            code = self.machine.run("rm", key, expect=(0, 1, 3)).code
        else:
            code = self.machine.set(key, new, expect=(0, 3)).code
        if code == 0:
            history.acknowledged(write)
            count("writes")
        elif code == 1:
            history.nothing(write)
        else:
            history.unanswered(write)
            count("unanswered")


def sync(device, timeout, expect):
    """What was written before a sync that ends well is at the remote from then on."""
    meeting = history.meeting(device.name, server.name)
    ended = device.run("sync", "--timeout", timeout, expect=expect)
    if ended.code == 0:
        history.met(meeting)
        count("syncs")
    return ended


def join(name, copy=None):
    """Makes a device, of nothing or of the copy of another."""
    proxy = Proxy(network, f"{SEED} {name}", server.port)
    device = Machine(name, proxy)
    server.ways.append(proxy)
    history.add(name, *([copy] if copy else []))
    return device


# What happens. Each is given a random source.


def kill(source):
    machine = source.choice(machines)
    with machine.life:
        if machine is server:
            server.end(is_killed=True)
            time.sleep(source.uniform(0, 1.5))
            server.begin()
        elif not machine.kill():
            return
    count("kills")


def stop(source):
    machine = source.choice(machines)
    with machine.life:
        if machine is server:
            server.end(is_killed=False)
            server.begin()
        else:
            machine.run("daemon", "stop", expect=(0, 3))
    count("stops")


def part(source):
    """A device is offline, or what is between it and the server takes all and gives nothing."""
    proxy = source.choice(devices()).proxy
    source.choice((proxy.cut, proxy.swallow))()
    time.sleep(source.uniform(0.5, 4))
    proxy.mend()
    count("times apart")


def nap(source):
    if source.choice(machines).sleep(source.uniform(0.2, 4)):
        count("naps")


def move(source):
    """The address changes under a connection that lives on."""
    device = source.choice(devices())
    with structure, device.gate.together():
        device.proxy.move()
        device.set_remote()
    count("moves")


def same_pid(source):
    one, other = source.sample(machines, 2)
    with structure:
        for machine in (one, other):
            with machine.gate.together():
                machine.again("config", "pid", "77")
    count("shared pids")


def new_key(source):
    """Another key on all machines, one after the other; sometimes one that there was before."""
    with structure:
        keys.append(source.choice(keys) if source.random() < 0.2 else source.randbytes(32).hex())
        for machine in source.sample(machines, len(machines)):
            with machine.gate.together():
                machine.set_key(keys[-1])
            time.sleep(source.uniform(0, 0.5))
    count("changes of key")


def end(machine, source):
    """Ends a daemon in one way or another; nobody uses the machine meanwhile."""
    is_killed = source.random() < 0.5
    if machine is server:
        server.end(is_killed)
    elif is_killed or machine.daemon() is None:
        machine.kill_all()
    else:
        machine.stop()


def back_up(source):
    machine = source.choice(machines)
    with structure, machine.life, machine.gate.alone():
        end(machine, source)
        directory = f"{WORK}/backup{len(backups)}"
        machine.copy_to(directory)
        backups.append((machine, directory, history.copy(machine.name)))
        machine.begin()
    count("copies")


def put_back(source):
    """An older copy takes the place of a store; of the server, sometimes, nothing does."""
    with structure:
        machine, directory, copy = source.choice(backups) if backups else (server, None, None)
        if machine is server and source.random() < 0.3:
            directory, copy = None, None
        if directory is None and copy is None and machine is not server:
            return
        with machine.life, machine.gate.alone():
            end(machine, source)
            machine.kill_all()
            history.add(machine.name, *([copy] if copy else []))
            machine.replace_by(directory)
            machine.begin()
            machine.set_key(keys[-1])
            if machine is not server:
                machine.set_remote()
    count("put back" if directory else "server deleted")


def clone(source):
    """A copy of a device runs beside it from now on."""
    with structure:
        if len(machines) > DEVICES + CLONES:
            return
        original = source.choice(devices())
        with original.life, original.gate.alone():
            end(original, source)
            device = join(f"clone{len(machines)}", history.copy(original.name))
            original.copy_to(device.directory)
            original.begin()
        device.begin()
        device.set_remote()
        machines.append(device)
        users.append(User(device, f"{SEED} {device.name}"))
        users[-1].start()
    count("clones")


EVENTS = {kill: 10, stop: 3, part: 4, nap: 3, move: 2, same_pid: 1, new_key: 1, back_up: 2, put_back: 2, clone: 1}


def storm(seed, until):
    source = random.Random(seed)
    while time.monotonic() < until:
        source.choices(list(EVENTS), EVENTS.values())[0](source)
        time.sleep(source.uniform(0, 0.4))


def heal(when):
    """Everything is reachable again; all stores must come to hold the same."""
    network.calm = True
    server.begin()
    for device in devices():
        device.proxy.mend()
        device.begin()
        device.set_remote()
    for _ in range(2):
        for device in devices():
            ended = sync(device, "90s", expect=(0, 4))
            if ended.code != 0:
                fail(f"{when}: {device.name} is not in step 90 s after all was well: {ended.words()}; {device.status()}")


def exported(machine):
    """The lines of an export, without its header."""
    return machine.run("export", expect=0).out.splitlines()


def found(lines):
    """Fingerprints of the values of an export."""
    return {key: fingerprint(value) for key, value in programs.exported(lines).items()}


def verify(when):
    """All stores hold the same, and that is what the history allows."""
    global peak
    right = exported(server)
    for text in history.judge(found(right)):
        fail(f"{when}: {text}")
    for device in devices():
        lines = exported(device)
        if lines != right:
            differ = sorted(set(found(lines).items()) ^ set(found(right).items()))
            fail(f"{when}: {device.name} differs from the server: {differ[:4] or 'times'}")
        states = {json.loads(line)["sync"] for line in device.run("ls", "--json", expect=0).out.splitlines()}
        if states - {"synced"}:
            fail(f"{when}: {device.name}: `ls` says {states} though all is synced")
        if device.status()["pending"]:
            fail(f"{when}: {device.name}: `status` has changes pending though all is synced")
    for machine in machines:
        peak = max(peak, memory(machine.daemon(), "VmHWM"))
        machine.judge_log()
    return len(right) - 1


print(f"chaos: SEED={SEED}", flush=True)
history.add(server.name)
server.begin()
server.set_key(keys[-1])
for number in range(DEVICES):
    device = join(f"device{number}")
    device.set_key(keys[-1])
    device.set_remote()
    machines.append(device)
entries = 0
for number in range(1, ROUNDS + 1):
    network.calm = False
    users = [User(machine, f"{SEED} {number} {machine.name}") for machine in machines]
    until = time.monotonic() + SECONDS
    storms = [threading.Thread(target=storm, args=(f"{SEED} {number} {at}", until), daemon=True) for at in range(2)]
    for thread in users + storms:
        thread.start()
    for thread in storms:
        thread.join()
    for user in users:
        user.ending.set()
    for user in users:
        user.join()
    heal(f"round {number}")
    entries = verify(f"round {number}")
for machine in machines:
    machine.run("doctor", expect=0)
did = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
network_did = ", ".join(f"{number} {what}" for what, number in sorted(network.counts.items()))
finish(
    "chaos",
    f"SEED={SEED}, {ROUNDS} rounds on {len(machines)} machines: {did}; network: {network_did}; "
    f"{history.lost} writes were only on a store that was replaced, {entries} lines of export equal everywhere, "
    f"most memory {peak / 1024:.0f} MiB",
)
