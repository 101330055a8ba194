"""See faults.sh."""

import glob
import os
import signal
import subprocess
import sys
import time

from machines import Machine, Server
from programs import WORK, fail, finish, one_line, wait_until

MIB = 1 << 20
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
is_root = os.geteuid() == 0
key = os.urandom(32).hex()
done, skipped = [], []


class Way:
    """The way to a server's address."""

    def __init__(self, port):
        self.port = port


def fault(needs=True, why=""):
    """Runs one fault, or says aloud why it cannot."""

    def run(part):
        name = part.__doc__.split("\n")[0].rstrip(".")
        if not needs:
            skipped.append(name)
            print(f"faults: SKIPPED: {name}: {why}", file=sys.stderr, flush=True)
            return
        part(part.__name__)
        done.append(part.__name__)

    return run


def serve(name, own_key=key):
    server = Server(name)
    server.begin()
    server.set_key(own_key)
    return server


def device(name, server, own_key=key, **environment):
    """A device of the server's; the environment is also its daemon's."""
    machine = Machine(name, Way(server.port))
    machine.environment.update(environment)
    machine.set_key(own_key)
    machine.run("config", "remote", f"127.0.0.1:{server.port}", expect=0)
    return machine


def holds(machine, name, value, seconds=60):
    """A value comes to a machine by itself."""
    if not wait_until(lambda: machine.run("get", name, expect=(0, 1, 3)).out == value, seconds):
        fail(f"{machine.name} does not hold {name} after {seconds} s")


def tmpfs(name, size):
    os.mkdir(f"{WORK}/{name}")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=700", "kvass-proof", f"{WORK}/{name}"], check=True)


def grow(name, size):
    subprocess.run(["mount", "-o", f"remount,size={size}m", f"{WORK}/{name}"], check=True)


def is_mountable():
    try:
        tmpfs("probe", 1)
        subprocess.run(["umount", f"{WORK}/probe"], check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return is_root


def ip(*arguments):
    return subprocess.run(["ip", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def is_splittable():
    name = f"kvass-probe-{os.getpid()}"
    return is_root and ip("netns", "add", name) and ip("netns", "del", name)


@fault()
def other_key(name):
    """Another key on the device, then on the server."""
    server, stranger = serve(name + "-server"), Machine(name + "-device")
    stranger.set_key(os.urandom(32).hex())
    server.set("secret", b"s")
    shown = {machine: machine.run("config", "show", expect=0).out.decode() for machine in (server, stranger)}
    prints = {machine: text.split("Fingerprint: ")[1].split()[0] for machine, text in shown.items()}
    words = stranger.run("config", "remote", f"127.0.0.1:{server.port}", expect=0).err.decode()
    ended = stranger.run("sync", "--timeout", "10s", expect=4)
    words += ended.words() + stranger.run("status", expect=0).out.decode()
    if "another key" not in words or "Fingerprint" not in words or prints[stranger] not in words:
        fail(f"nobody could know what to do about another key: {words}")
    if prints[server] in words or key in words:
        fail("a stranger was told which account the server has")
    with open(server.directory + ".log") as log:
        if "a device was refused" not in log.read():
            fail("the server's log does not say that it refused a device")
    stranger.set("mine", b"m")
    stranger.set_key(key)
    stranger.run("sync", "--timeout", "30s", expect=0)
    # The other way round: the server gets another key, then the device the same.
    new = os.urandom(32).hex()
    server.set_key(new)
    wait_until(lambda: stranger.status().get("link") == "blocked", 30)
    stranger.set("meanwhile", b"w")
    stranger.set_key(new)
    stranger.run("sync", "--timeout", "30s", expect=0)
    for machine in (server, stranger):
        if machine.keys() != ["meanwhile", "mine", "secret"]:
            fail(f"after changes of key {machine.name} holds {machine.keys()}")
    stranger.stop()
    server.end(is_killed=False)


@fault(FAKETIME, "needs libfaketime (Debian: faketime)")
def clocks(name):
    """Clocks five hours ahead and behind."""
    fake = {"LD_PRELOAD": FAKETIME, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    server = serve(name + "-server")
    ahead = device(name + "-ahead", server, **fake, FAKETIME="+5h")
    behind = device(name + "-behind", server, **fake, FAKETIME="-5h")
    ahead.set("x", b"from the future")
    ahead.run("sync", "--timeout", "30s", expect=0)
    behind.run("sync", "--timeout", "30s", expect=0)
    for machine, number in ((behind, 1), (server, 2), (ahead, 3), (server, 4), (behind, 5)):
        # Who has seen the other's write beats it, whatever the clocks say.
        value = b"write %d" % number
        machine.set("x", value)
        for other in (ahead, behind, server):
            holds(other, "x", value, 30)
    for machine in (ahead, behind):
        words = machine.run("status", expect=0).words()
        if abs(machine.status()["skew_us"]) < 17_990_000_000 or "the remote's clock is" not in words:
            fail(f"{machine.name}: `status` does not warn that the clocks differ: {words}")
        machine.stop()
    server.end(is_killed=False)


@fault(FAKETIME, "needs libfaketime (Debian: faketime)")
def asleep(name):
    """A day asleep, under an open connection."""
    now = f"{WORK}/{name}.now"

    def at(offset):
        with open(now, "w") as file:
            file.write(offset)

    at("+0")
    fake = {"FAKETIME_TIMESTAMP_FILE": now, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    server = serve(name + "-server")
    sleeper = device(name + "-device", server, LD_PRELOAD=FAKETIME, **fake)
    sleeper.set("before", b"1", expect=0)
    sleeper.run("sync", "--timeout", "30s", expect=0)
    process = sleeper.daemon()
    os.kill(process, signal.SIGSTOP)
    server.set("meanwhile", b"2")
    at("+1d")
    time.sleep(3)
    os.kill(process, signal.SIGCONT)
    holds(sleeper, "meanwhile", b"2")
    sleeper.set("after", b"3")
    sleeper.run("sync", "--timeout", "60s", expect=0)
    holds(server, "after", b"3", 1)
    if sleeper.daemon() != process:
        fail("the daemon did not outlive the sleep")
    sleeper.stop()
    server.end(is_killed=False)


@fault(is_mountable(), "needs root, to mount a small tmpfs")
def full(name):
    """A disk that has no room for a large value, on the server and on a device."""
    large = os.urandom(150 * MIB)
    tmpfs(name, 180)
    small = serve(name + "/server")
    sender = device(name + "-sender", small)
    sender.set("large", large)
    sender.set("small", b"s")
    # What is small does not wait for space.
    sender.run("set", "other", "o", "--wait=60s", expect=0)
    ended = sender.run("sync", "--timeout", "3s", expect=4)
    one_line(ended.err, "sync")
    small.run("get", "large", expect=1)
    holds(small, "small", b"s", 10)
    grow(name, 600)
    sender.run("sync", "--timeout", "90s", expect=0)
    holds(small, "large", large, 1)
    # The same the other way: a device that takes what a server has.
    tmpfs(name + "-too", 180)
    taker = device(name + "-too/device", small)
    holds(taker, "small", b"s")
    taker.run("get", "large", expect=1)
    one_line(taker.run("sync", "--timeout", "3s", expect=4).err, "sync")
    grow(name + "-too", 600)
    taker.run("sync", "--timeout", "90s", expect=0)
    holds(taker, "large", large, 1)
    for machine in (sender, taker):
        machine.run("doctor", expect=0)
        machine.stop()
    small.end(is_killed=False)


@fault(is_splittable(), "needs root and network namespaces")
def address(name):
    """The device's address vanishes under its connection, and it has another one."""
    here, there = (f"kvass-{os.getpid()}-{side}" for side in ("a", "b"))
    try:
        for space in (here, there):
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        ip("link", "add", "kv0", "netns", here, "type", "veth", "peer", "name", "kv1", "netns", there)
        for space, end, number in ((here, "kv0", 1), (there, "kv1", 2)):
            ip("-n", space, "addr", "add", f"10.250.0.{number}/24", "dev", end)
            if not ip("-n", space, "link", "set", end, "up"):
                return fail("the namespaces cannot be joined")
        server, mobile = Machine(name + "-server"), Machine(name + "-device")
        log = open(server.directory + ".log", "ab")
        inside = ["ip", "netns", "exec", there, os.environ["KVASS_BIN"] + "/kvassd"]
        subprocess.Popen([*inside, "--server", "--bind", "10.250.0.2:8000"], env=server.environment, stderr=log)
        wait_until(lambda: server.daemon() is not None, 20)
        server.set_key(key)
        inside = ["ip", "netns", "exec", here, os.environ["KVASS_BIN"] + "/kvassd"]
        subprocess.Popen(inside, env=mobile.environment, stderr=log)
        wait_until(lambda: mobile.daemon() is not None, 20)
        mobile.set_key(key)
        mobile.run("config", "remote", "10.250.0.2:8000", expect=0)
        mobile.run("set", "before", "1", "--wait=30s", expect=0)
        ip("-n", here, "addr", "flush", "dev", "kv0")
        mobile.set("offline", b"2")
        server.set("meanwhile", b"3")
        ip("-n", here, "addr", "add", "10.250.0.7/24", "dev", "kv0")
        began = time.monotonic()
        mobile.run("set", "after", "4", "--wait=90s", expect=0)
        print(f"faults: in step {time.monotonic() - began:.0f} s after the address had changed", file=sys.stderr)
        holds(server, "offline", b"2", 1)
        holds(mobile, "meanwhile", b"3", 5)
        for machine in (mobile, server):
            machine.stop()
    finally:
        for space in (here, there):
            ip("netns", "del", space)


finish("faults", f"{len(done)} held: {', '.join(done)}; {len(skipped)} could not run here")
