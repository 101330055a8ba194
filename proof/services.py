"""See services.sh."""

import json
import os
import plistlib
import re
import shutil
import signal
import subprocess
import time
import urllib.request

from manager import KVASSD, Ear, Manager
from programs import WORK, Store, fail, finish, free_port, memory, wait_until

HOME = os.environ["KVASS_HOME"]
CONFINED = os.environ.get("KVASS_CONFINED")
UNITS = ("kvassd.service", "kvassd.socket", "kvassd-server.service")

# The exposure that `systemd-analyze security` may find in the server's unit, in tenths.
EXPOSURE = "15"

# How long a call to the disk hangs, in seconds.
HANG = 2

notes = []


def skip(what):
    notes.append(f"without {what}")


def quiet(*command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def unit(name):
    with open(f"{HOME}/systemd/{name}") as file:
        return file.read()


# What the files say


def verify(directory, name, *mode):
    environment = {**os.environ, "XDG_RUNTIME_DIR": directory}
    return quiet(
        "systemd-analyze", *mode, "--recursive-errors=yes", "verify", f"{directory}/{name}", env=environment
    )


def units_are_right():
    """systemd knows every key, and a key that it does not know is noticed."""
    directory = f"{WORK}/units"
    os.mkdir(directory, 0o700)
    for name in UNITS:
        with open(f"{directory}/{name}", "w") as file:
            file.write(unit(name).replace("/usr/bin/kvassd", KVASSD))
    for name in UNITS:
        if name.endswith(".service") and "\nMemorySwapMax=0\n" not in unit(name):
            fail(f"{name} may be swapped out")
        mode = ("--system",) if "server" in name else ("--user",)
        ended = verify(directory, name, *mode)
        if ended.returncode != 0:
            fail(f"systemd-analyze verify {name}: {ended.stdout}")
    with open(f"{directory}/kvassd.service", "a") as file:
        file.write("[Service]\nNoSuchKey=yes\n")
    if verify(directory, "kvassd.service", "--user").returncode == 0:
        fail("systemd-analyze verify does not notice an unknown key")
    ended = quiet(
        "systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", f"{directory}/kvassd-server.service"
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", ended.stdout)
    if ended.returncode != 0 or not found:
        fail(f"kvassd-server.service is more exposed than {EXPOSURE} tenths: {ended.stdout[-200:]}")
    else:
        notes.append(f"exposure {found[1]}")


def agent_is_right():
    """launchd's keys, each as it must be."""
    with open(f"{HOME}/launchd/kvass.kvassd.plist", "rb") as file:
        text = file.read()
    wanted = {
        "Label": "kvass.kvassd",
        "ProgramArguments": ["@BIN@/kvassd", "--db", "@DATA@"],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ProcessType": "Background",
        "Umask": 0o077,
    }
    found = plistlib.loads(text)
    for key in wanted.keys() | found.keys():
        if wanted.get(key) != found.get(key):
            fail(f"launchd's {key} is {found.get(key)!r}, not {wanted.get(key)!r}")
    if b"~" in re.sub(rb"<!--.*?-->", b"", text, flags=re.S):
        fail("launchd does not expand ~")


# Their filters on real daemons


def expand(name):
    """The system calls of a set, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    listed = quiet("systemd-analyze", "syscall-filter", name).stdout.splitlines()
    words = [line.strip() for line in listed if line.startswith(" ") and not line.strip().startswith("#")]
    return set().union(*(expand(word) for word in words))


def allowed(name):
    """The system calls that a unit allows."""
    calls = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit(name), re.M):
        taken = line.startswith("~")
        for word in line.lstrip("~").split():
            calls = calls - expand(word) if taken else calls | expand(word)
    return calls


def confined(calls, name):
    """The command that puts a filter on another command."""
    path = f"{WORK}/{name}.calls"
    with open(path, "w") as file:
        file.write("\n".join(sorted(calls)))
    return [CONFINED, path, KVASSD]


def serve(command, store, *arguments, **environment):
    """Starts a daemon that is not started on demand, and waits until it serves."""
    os.makedirs(store.directory, 0o700, exist_ok=True)
    with open(store.directory + ".words", "ab") as words:
        daemon = subprocess.Popen(
            [*command, "--db", store.directory, *arguments],
            env={**store.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
    wait_until(lambda: daemon.poll() is not None or store.daemon() == daemon.pid, 60)
    return daemon


def words(store):
    with open(store.directory + ".words", errors="replace") as file:
        return file.read()


def filters_leave_room():
    """A device and a blind server live whole lives under the filters of their units."""
    device, server = Store(f"{WORK}/device"), Store(f"{WORK}/server")
    user, system = allowed("kvassd.service"), allowed("kvassd-server.service")
    running = serve(confined(user, "user"), device)
    device.set("greeting", b"hello\n")
    key = device.run("config", "server-key", expect=0).out
    credentials = f"{WORK}/credentials"
    os.mkdir(credentials, 0o700)
    with open(os.open(f"{credentials}/kvass-key", os.O_CREAT | os.O_WRONLY, 0o400), "wb") as file:
        file.write(key)
    port = free_port()
    serving = serve(
        confined(system, "system"), server, "--server", "--bind", f"127.0.0.1:{port}", CREDENTIALS_DIRECTORY=credentials
    )
    for name, process in (("kvassd.service", running), ("kvassd-server.service", serving)):
        if process.poll() is not None:
            fail(f"kvassd does not live under the filter of {name}: {words(device) + words(server)}")
            return
        with open(f"/proc/{process.pid}/status") as file:
            filters = re.search(r"^Seccomp_filters:\s*(\d+)", file.read(), re.M)
        if filters and int(filters[1]) < 3:
            fail(f"the filter of {name} is not on the daemon")
    live(device, server, port)
    for store, process in ((device, running), (server, serving)):
        if memory(process.pid, "VmLck") == 0:
            fail("a daemon under its filter has not locked its keys in memory")
        store.stop()
        if process.wait(60) != 0:
            fail(f"a daemon under its filter ended with {process.returncode}: {words(store)}")
        if "panic" in words(store) or "ERROR" in words(store):
            fail(f"a daemon under its filter complains: {words(store)}")
    # Were the filters not on, or the one call not needed, this would start.
    refused = serve(confined(user - {"seccomp"}, "without"), Store(f"{WORK}/refused"))
    if refused.wait(60) == 0 or "filter" not in words(Store(f"{WORK}/refused")):
        fail("a filter without seccomp does not keep kvassd from starting")
    notes.append(f"filters of {len(user)} and {len(system)} calls")


def live(device, server, port):
    """What a device and its server do all day."""
    large = os.urandom(3 << 20)
    device.set("large", large)
    device.run("config", "remote", f"127.0.0.1:{port}", expect=0)
    device.run("sync", "--timeout", "60s", expect=0)
    device.run("set", "job", "done", "--wait=60s", expect=0)
    if device.get("large").out != large or device.get("greeting").out != b"hello\n":
        fail("a daemon under its filter gives back other bytes")
    status = json.loads(server.run("status", "--json", expect=0).out)
    if not status.get("blind"):
        fail(f"the server that was given a server key is not blind: {status}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
        if answer.status != 200:
            fail(f"/healthz under the filter: {answer.status}")
    # A name that has to be looked up, at a port where nobody is.
    device.run("config", "remote", f"localhost:{free_port()}", expect=0)
    device.run("config", "remote", f"127.0.0.1:{port}", expect=0)
    link = device.run("url", "greeting", expect=0).out.decode().strip()
    device.run("sync", "--timeout", "60s", expect=0)
    with urllib.request.urlopen(link, timeout=60) as answer:
        if answer.read() != b"hello\n":
            fail("a link under the filter gives other bytes")
    device.run("config", "key", "--new", expect=0)
    device.run("rm", "large", expect=0)
    device.run("doctor", expect=(0, 1))
    device.run("export", f"{WORK}/export", expect=0)


# Sockets and watch


def real_activation():
    """systemd's own tool starts the daemon for the first command; after kill -9 the next command works as well."""
    store, ear = Store(f"{WORK}/real"), Ear(f"{WORK}/ear-real")
    os.mkdir(store.directory, 0o700)
    listener = f"{store.directory}/kvassd.sock"
    command = ["systemd-socket-activate", f"--listen={listener}", f"--setenv=NOTIFY_SOCKET={ear.path}"]
    holder = subprocess.Popen(
        [*command, KVASSD, "--db", store.directory],
        env=store.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: os.path.exists(listener), 60)
    store.set("a", b"1")
    # It becomes the daemon.
    if store.daemon() != holder.pid:
        fail("the daemon that serves is not the one that systemd-socket-activate started")
    if not ear.hears("READY=1"):
        fail("systemd-socket-activate: the daemon does not say that it is ready")
    store.kill()
    holder.wait(60)
    if store.get("a").out != b"1":
        fail("after kill -9 of an activated daemon the next command gets another value")
    store.stop()


def played_activation():
    """With a manager that keeps the socket: started by commands, taken over, killed, stopped, watched."""
    store, ear = Store(f"{WORK}/played"), Ear(f"{WORK}/ear")
    store.set("a", b"1")
    before = store.daemon()
    manager = Manager(store, ear)
    if store.get("a").out != b"1":
        fail("the daemon of the service manager gives another value")
    if not manager.serves():
        fail(f"the daemon on demand ({before}) was not replaced: {store.daemons()}")
    if not ear.hears("READY=1") or not ear.hears("WATCHDOG=1", 2):
        fail(f"the service manager hears {ear.heard}")
    for round in range(3):
        store.kill()
        store.set("b", b"%d" % round)
        if store.get("b").out != b"%d" % round:
            fail("after kill -9 a command gets another value")
    store.stop()
    if not ear.hears("STOPPING=1") or manager.code() != 0:
        fail(f"a daemon that was asked to stop ends with {manager.code()}, and says {ear.heard[-3:]}")
    if store.get("a").out != b"1":
        fail("after a stop the service manager's socket starts no daemon")
    store.run("daemon", "restart", expect=0)
    store.get("a")
    if not manager.serves():
        fail(f"after a restart, others than the manager's daemon serve: {store.daemons()}")
    notes.append(f"{manager.started} starts by socket")
    manager.end()


def watch_ends_with_life():
    """A daemon that does not live gives no sign of life."""
    store, ear = Store(f"{WORK}/watched"), Ear(f"{WORK}/ear-watched")
    daemon = serve([KVASSD], store, NOTIFY_SOCKET=ear.path, WATCHDOG_USEC="30000")
    ear.hears("WATCHDOG=1", 3)
    os.kill(daemon.pid, signal.SIGSTOP)
    wait_until(lambda: open(f"/proc/{daemon.pid}/stat").read().split()[2] == "T", 60)
    heard = ear.count_so_far("WATCHDOG=1")
    # Long enough for many signs of life.
    time.sleep(0.5)
    if ear.count_so_far("WATCHDOG=1") != heard:
        fail("a stopped daemon gives signs of life")
    os.kill(daemon.pid, signal.SIGCONT)
    if not ear.hears("WATCHDOG=1", heard + 1):
        fail("a daemon that goes on gives no sign of life")
    store.stop()


def watch_asks_the_committer():
    """A daemon whose store hangs in a call to the disk gives no sign of life, though all else of it goes on."""
    store, ear = Store(f"{WORK}/hanging"), Ear(f"{WORK}/ear-hanging")
    daemon = serve([KVASSD], store, NOTIFY_SOCKET=ear.path, WATCHDOG_USEC="300000")
    ear.hears("WATCHDOG=1", 3)
    delay = ["--trace=fdatasync", f"--inject=fdatasync:delay_enter={HANG}s", f"--output={WORK}/calls"]
    tracer = subprocess.Popen(["strace", "-f", "-qq", *delay, f"--attach={daemon.pid}"])
    threads = f"/proc/{daemon.pid}/task"

    def is_traced():
        statuses = [open(f"{threads}/{thread}/status").read() for thread in os.listdir(threads)]
        return all(f"\nTracerPid:\t{tracer.pid}\n" in status for status in statuses)

    if wait_until(is_traced, 60):
        store.set("a", b"1")
        ear.hears("WATCHDOG=1", ear.count("WATCHDOG=1") + 1)
        # Less, for what is heard is heard a little late.
        if ear.longest_silence() < 0.75 * HANG:
            fail(f"a daemon whose store hangs for {HANG} s is silent for {ear.longest_silence():.1f} s")
    else:
        skip("a hanging disk: strace cannot attach")
    tracer.terminate()
    tracer.wait(60)
    store.stop()


agent_is_right()
if shutil.which("systemd-analyze"):
    units_are_right()
    if CONFINED and os.access(CONFINED, os.X_OK):
        filters_leave_room()
    else:
        skip("filters: KVASS_CONFINED is not set")
else:
    skip("systemd-analyze: units and filters")
if shutil.which("systemd-socket-activate"):
    real_activation()
else:
    skip("systemd-socket-activate")
played_activation()
watch_ends_with_life()
if shutil.which("strace") and os.geteuid() == 0:
    watch_asks_the_committer()
else:
    skip("a hanging disk: needs strace and root")
finish("services", ", ".join(notes))
