"""See secrets.sh."""

import ctypes
import fcntl
import hmac
import os
import pickle
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios

import programs
from programs import KVASS, WORK, finish, is_so, mapped, wait_until

# Two users that no machine has by name.
OWNER, OTHER = 60_001, 60_002
BIN = f"{WORK}/bin"
# As the system has them.
PTRACE_ATTACH, PTRACE_DETACH, WAIT_ALL = 16, 17, 0x40000000
MAY_LOCK = 64 << 10

NAME, VALUE = "a name of nobodys business", b"a value of nobodys business"

notes = []


def options(user, **more):
    """How a process of a user is started."""
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": f"{WORK}/home-{user}", **more.pop("environment", {})}
    return {"user": user, "group": user, "extra_groups": [], "env": environment, "cwd": f"{WORK}/home-{user}", **more}


def run(user, *command, data=b"", **more):
    """Runs a command of a user to its end."""
    return subprocess.run(command, input=data, capture_output=True, timeout=120, **options(user, **more))


def kvass(user, directory, *arguments, **more):
    return run(user, f"{BIN}/kvass", "--db", directory, *arguments, **more)


def start(user, *command, **more):
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **{**streams, **options(user, **more)})


def daemon(directory, *arguments, **more):
    """A daemon in the foreground that serves."""
    process = start(OWNER, f"{BIN}/kvassd", "--db", directory, *arguments, **more)
    socket_path = f"{directory}/kvassd.sock"
    wait_until(lambda: process.poll() is not None or kvass_answers(directory, socket_path), 60)
    return process


def kvass_answers(directory, socket_path):
    return os.path.exists(socket_path) and kvass(OWNER, directory, "status").returncode == 0


def end(process, how=signal.SIGTERM):
    """Ends a process; its wait status, which says whether it left a core."""
    ended = []

    def has_ended():
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        return pid and (ended.append(status) or True)

    # Rust looks at a first SIGSEGV itself, and leaves the next one to the system.
    for _ in range(2):
        os.kill(process.pid, how)
        if wait_until(has_ended, 1 if how == signal.SIGSEGV else 60):
            break
    if not is_so(f"{process.args[0]} ends by {how.name}", ended or wait_until(has_ended, 60)):
        process.kill()
        has_ended() or process.wait()
        return 0
    process.returncode = os.waitstatus_to_exitcode(ended[0])
    return ended[0]


def holder(directory):
    with open(f"{directory}/lock") as lock:
        return int(lock.readline())


def make(path, owner, mode):
    os.mkdir(path)
    os.chown(path, owner, owner)
    os.chmod(path, mode)
    return path


def content(*places):
    """The bytes of all files that this process may read, and their names."""
    found = []
    for place in places:
        for where, directories, files in os.walk(place):
            found += [name.encode() for name in directories + files]
            for name in files:
                path = os.path.join(where, name)
                if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                    with open(path, "rb") as file:
                        found.append(file.read())
    return b"\n".join(found)


def as_user(user, look, *arguments):
    """What a function returns in a process of a user."""
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        with open(far, "wb") as answer:
            pickle.dump(look(*arguments), answer)
        os._exit(0)
    os.close(far)
    with open(near, "rb") as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return pickle.loads(found)


def derive(secret, info):
    """HKDF-SHA256 of one block, as in docs/format.md."""
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\x01", "sha256")


def keys_of(directory):
    with open(f"{directory}/key") as file:
        key = bytes.fromhex(file.readline().strip())
    labels = ("sync", "id", "record", "auth", "nonce")
    return {"K": key} | {f"K_{label}": derive(key, b"kvass v1 " + label.encode()) for label in labels}


# Another user


def look_into(directory):
    """What of a directory a process sees."""
    seen = [f"listed {where}" for where, _, _ in os.walk(directory)]
    for name in ("key", "lock", "kvassd.log", "store", "blobs", "kvassd.sock"):
        try:
            os.stat(os.path.join(directory, name))
            seen.append(f"seen {name}")
        except PermissionError:
            pass
    return seen


def connect(path):
    """What is heard of a socket; None where there is no connection."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(60)
        try:
            wire.connect(path)
        except PermissionError:
            return None
        return b"".join(iter(lambda: wire.recv(65536), b""))


def look_at(process):
    """What of a process another one reads, and whether it may trace it."""
    seen = []
    for name in ("mem", "environ", "maps", "auxv"):
        try:
            with open(f"/proc/{process}/{name}", "rb", buffering=0) as file:
                name == "mem" or file.read(1)
            seen.append(name)
        except OSError:
            pass
    try:
        os.listdir(f"/proc/{process}/fd")
        seen.append("fd")
    except OSError:
        pass
    libc = ctypes.CDLL(None)
    if libc.ptrace(PTRACE_ATTACH, process, None, None) == 0:
        seen.append("trace")
        os.waitpid(process, WAIT_ALL)
        libc.ptrace(PTRACE_DETACH, process, None, None)
    return seen


def another_user_gets_at_nothing():
    directory = f"{WORK}/home-{OWNER}/data"
    # What is made must be closed whatever the mask of the one who starts it.
    begun = kvass(OWNER, directory, "set", NAME, data=VALUE, umask=0)
    is_so(f"a first set: {begun.stderr}", begun.returncode == 0)
    kvass(OWNER, directory, "set", "large", data=VALUE * 10_000, umask=0)
    process = holder(directory)
    for where, directories, files in os.walk(directory):
        for name in [".", *directories, *files]:
            found = os.lstat(os.path.join(where, name))
            is_so(f"others may use {where}/{name}: {found.st_mode:o}", found.st_mode & 0o077 == 0)
            is_so(f"{where}/{name} belongs to {found.st_uid}", found.st_uid == OWNER)
    seen = as_user(OTHER, look_into, directory)
    is_so(f"another user saw {seen}", not seen)
    is_so("the owner does not see it", len(as_user(OWNER, look_into, directory)) > 6)
    is_so("another user connected", as_user(OTHER, connect, f"{directory}/kvassd.sock") is None)
    for arguments in (["get", NAME], ["ls"], ["config", "show"], ["set", NAME, "theirs"], ["daemon", "stop"]):
        ended = kvass(OTHER, directory, *arguments)
        is_so(f"another user may {arguments}", ended.returncode not in (0, 1) and VALUE not in ended.stdout)
    seen = as_user(OTHER, look_at, process)
    is_so(f"another user saw the process's {seen}", not seen)
    # With modes that are wrong on purpose, the daemon still looks at who it is.
    os.chmod(f"{WORK}/home-{OWNER}", 0o755)
    os.chmod(directory, 0o755)
    os.chmod(f"{directory}/kvassd.sock", 0o666)
    said = as_user(OTHER, connect, f"{directory}/kvassd.sock") or b""
    is_so(f"another user heard {said}", b"this store belongs to another user" in said and directory.encode() not in said)
    for mode, place in ((0o700, directory), (0o600, f"{directory}/kvassd.sock"), (0o700, f"{WORK}/home-{OWNER}")):
        os.chmod(place, mode)
    is_so("the owner's value", kvass(OWNER, directory, "get", NAME).stdout == VALUE)
    kvass(OWNER, directory, "daemon", "stop")


def loose_directories_are_refused():
    """Each is refused before anything is written to it."""
    base = make(f"{WORK}/base", OWNER, 0o755)
    theirs = make(f"{base}/theirs", OTHER, 0o777)
    places = {}
    for mode in (0o701, 0o704, 0o710, 0o750, 0o770, 0o777):
        places[make(f"{base}/{mode:o}", OWNER, mode)] = b"other users can look into the data directory"
    places[theirs] = b"belongs to another user"
    made = make(f"{base}/made", OWNER, 0o700)
    for name, target in (("to-mine", made), ("to-theirs", theirs), ("to-nothing", f"{base}/nothing")):
        os.symlink(target, f"{base}/{name}")
        os.lchown(f"{base}/{name}", OTHER, OTHER)
        places[f"{base}/{name}"] = b"belongs to another user" if name != "to-nothing" else b"is no directory"
    with open(f"{base}/file", "w") as file:
        file.write("precious")
    os.chown(f"{base}/file", OWNER, OWNER)
    places[f"{base}/file"] = b"is no directory"
    for place, why in places.items():
        ended = run(OWNER, f"{BIN}/kvassd", "--db", place)
        is_so(f"{place}: {ended.stderr}", ended.returncode == 3 and why in ended.stderr)
        ended = kvass(OWNER, place, "set", NAME, data=VALUE)
        is_so(f"a set in {place}: {ended.stderr}", ended.returncode == 3 and ended.stderr.startswith(b"kvass: "))
        if os.path.isdir(place):
            is_so(f"something was made in {place}", os.listdir(place) == [])
    is_so("a link to nothing was followed", not os.path.exists(f"{base}/nothing"))
    # One's own link, to where one's data was moved, is followed.
    os.symlink(made, f"{base}/own")
    os.lchown(f"{base}/own", OWNER, OWNER)
    is_so("one's own link", kvass(OWNER, f"{base}/own", "set", NAME, data=VALUE).returncode == 0)
    kvass(OWNER, f"{base}/own", "daemon", "stop")


def a_directory_that_is_replaced_later_gives_nothing_away():
    """A parent that everybody writes: another user moves the data directory away while the daemon serves."""
    parent = make(f"{WORK}/open", OWNER, 0o777)
    directory = f"{parent}/data"
    process = daemon(directory)
    kvass(OWNER, directory, "set", NAME, data=VALUE)
    os.rename(directory, f"{parent}/moved")
    make(directory, OTHER, 0o777)
    for name in ("key", "key.tmp", "lock", "kvassd.log", "witness"):
        trap = f"{directory}/{name}"
        with open(trap, "w"):
            pass
        os.chown(trap, OTHER, OTHER)
        os.chmod(trap, 0o666)
    os.mkdir(f"{directory}/blobs")
    os.chmod(f"{directory}/blobs", 0o777)
    listener = Listener(f"{directory}/kvassd.sock")
    for arguments in (["set", NAME], ["config", "key", "-"], ["set", "large"], ["get", NAME]):
        data = VALUE * 5_000 if "large" in arguments else VALUE
        ended = kvass(OWNER, directory, *arguments, data=b"5" * 64 if "key" in arguments else data)
        is_so(f"{arguments} was given to another user: {ended.stderr}", ended.returncode == 3)
        is_so(f"{arguments}: {ended.stderr}", b"it belongs to another user" in ended.stderr)
    heard = listener.close()
    is_so(f"another user's socket was told {heard[:200]}", heard == b"nothing")
    # The daemon itself, by the socket that it has.
    for arguments, data in ((["set", "later"], VALUE * 5_000), (["config", "key", "--new"], b"")):
        moved = ["--socket", f"{parent}/moved/kvassd.sock", *arguments]
        run(OWNER, f"{BIN}/kvass", "--db", directory, *moved, data=data)
    shown = as_user(OTHER, content, directory)
    keys = keys_of(f"{parent}/moved").values()
    is_so("a value came to another user", VALUE not in shown and NAME.encode() not in shown)
    is_so("a key came to another user", not any(key in shown or key.hex().encode() in shown for key in keys))
    end(process, signal.SIGKILL)


class Listener:
    """A socket of the other user, who answers nothing and hears everything."""

    def __init__(self, path):
        self.begin, began = os.pipe()
        ended, self.end = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.setgroups([])
            os.setgid(OTHER)
            os.setuid(OTHER)
            os.close(self.begin)
            os.close(self.end)
            self._listen(path, began, ended)
            os._exit(0)
        os.close(began)
        os.close(ended)
        is_so("the other user listens", os.read(self.begin, 1) == b"!")

    @staticmethod
    def _listen(path, began, ended):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen()
        os.write(began, b"!")
        heard, wires = b"", [listener, ended]
        while True:
            ready, _, _ = select.select(wires, [], [])
            for wire in ready:
                if wire is listener:
                    wires.append(listener.accept()[0])
                elif wire is not ended:
                    part = wire.recv(65536)
                    heard += part
                    part or wires.remove(wire)
            # All that was said before the end was asked for has been heard.
            if ready == [ended]:
                os.write(began, heard[:60_000] or b"nothing")
                return

    def close(self):
        """Everything that was heard."""
        os.close(self.end)
        heard = os.read(self.begin, 65536)
        os.waitpid(self.child, 0)
        return heard


def a_socket_that_others_made_is_told_nothing():
    """`--socket` may name a place that everybody writes."""
    shared = make(f"{WORK}/shared", 0, 0o1777)
    listener = Listener(f"{shared}/kvass.sock")
    ended = kvass(OWNER, f"{WORK}/home-{OWNER}/named", "--socket", f"{shared}/kvass.sock", "set", NAME, data=VALUE)
    is_so(f"a foreign socket: {ended.stderr}", ended.returncode == 3 and b"it belongs to another user" in ended.stderr)
    is_so("it was told something", listener.close() == b"nothing")


def links_of_others_lead_no_output_astray():
    shared, directory = make(f"{WORK}/sticky", 0, 0o1777), f"{WORK}/home-{OWNER}/output"
    kvass(OWNER, directory, "set", "script", data=b"theirs")
    precious = f"{WORK}/home-{OWNER}/precious"
    with open(precious, "w") as file:
        file.write("precious")
    os.chown(precious, OWNER, OWNER)
    os.symlink(precious, f"{shared}/out")
    os.lchown(f"{shared}/out", OTHER, OTHER)
    for arguments in (["get", "script", "-o", f"{shared}/out"], ["export", f"{shared}/out"]):
        ended = kvass(OWNER, directory, *arguments)
        is_so(f"{arguments[0]}: {ended.stderr}", ended.returncode == 2 and b"a symbolic link of another user" in ended.stderr)
    with open(precious) as file:
        is_so("a link of another user was followed", file.read() == "precious")
    # One's own is, and the file keeps its mode, whatever the mask.
    os.chmod(precious, 0o600)
    os.symlink(precious, f"{WORK}/home-{OWNER}/mine")
    os.lchown(f"{WORK}/home-{OWNER}/mine", OWNER, OWNER)
    ended = kvass(OWNER, directory, "get", "script", "-o", f"{WORK}/home-{OWNER}/mine", umask=0)
    is_so(f"one's own link: {ended.stderr}", ended.returncode == 0 and os.stat(precious).st_mode & 0o777 == 0o600)
    ended = kvass(OWNER, directory, "export", f"{WORK}/home-{OWNER}/all", umask=0)
    is_so("an export that others read", os.stat(f"{WORK}/home-{OWNER}/all").st_mode & 0o777 == 0o600)
    is_so("something temporary is left", not [name for name in os.listdir(shared) if name != "out"])
    kvass(OWNER, directory, "daemon", "stop")


def no_runtime_directory_is_used():
    """One that everybody writes, as somebody may have set it."""
    loose, directory = make(f"{WORK}/runtime", OTHER, 0o777), f"{WORK}/home-{OWNER}/runtime"
    environment = {"XDG_RUNTIME_DIR": loose, "TMPDIR": loose, "XDG_CONFIG_HOME": loose, "XDG_CACHE_HOME": loose}
    kvass(OWNER, directory, "set", NAME, data=VALUE * 5_000, environment=environment)
    kvass(OWNER, directory, "get", NAME, "-o", f"{WORK}/home-{OWNER}/got", environment=environment)
    is_so(f"something was made there: {os.listdir(loose)}", os.listdir(loose) == [])
    kvass(OWNER, directory, "daemon", "stop")


# Cores, tracing, swap


def with_cores():
    """In a process of a user, who cannot go beyond the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def raise_limits():
    """Lets what is started leave cores and lock a page of keys, as far as this system allows it."""
    cores, locked = resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_MEMLOCK)
    enough = tuple(limit if limit == resource.RLIM_INFINITY else max(limit, MAY_LOCK) for limit in locked)
    for which, limits, note in (
        (resource.RLIMIT_CORE, (cores[0], resource.RLIM_INFINITY), "with cores no larger than this system allows"),
        (resource.RLIMIT_MEMLOCK, enough, "without locked keys, which this system forbids"),
    ):
        try:
            resource.setrlimit(which, limits)
        except (OSError, ValueError):
            notes.append(note)


def reading(directory, where):
    """A client that has read a secret and waits for more of it; its process and the other end."""
    near, far = os.pipe()
    client = start(OWNER, f"{BIN}/kvass", "--db", directory, "set", "pending", stdin=near, cwd=where, preexec_fn=with_cores)
    os.write(far, VALUE)
    left = lambda: struct.unpack("i", fcntl.ioctl(near, termios.FIONREAD, b"\0" * 4))[0]
    is_so("the client reads", wait_until(lambda: left() == 0, 60))
    os.close(near)
    return client, far


def no_core_is_left():
    where, directory = make(f"{WORK}/cores", OWNER, 0o700), f"{WORK}/home-{OWNER}/cores"
    control = start(OWNER, "/bin/sleep", "600", cwd=where, preexec_fn=with_cores)
    wait_until(lambda: os.path.realpath(f"/proc/{control.pid}/exe").endswith(("sleep", "coreutils", "busybox")), 20)
    if not os.WCOREDUMP(end(control, signal.SIGSEGV)):
        notes.append("without cores, which this system makes of nothing")
    for core in os.listdir(where):
        os.remove(f"{where}/{core}")
    for how in (signal.SIGSEGV, signal.SIGABRT):
        process = daemon(directory, cwd=where, preexec_fn=with_cores)
        kvass(OWNER, directory, "set", NAME, data=VALUE)
        client, far = reading(directory, where)
        is_so(f"kvass left a core of {how.name}", not os.WCOREDUMP(end(client, how)))
        os.close(far)
        is_so(f"kvassd left a core of {how.name}", not os.WCOREDUMP(end(process, how)))
        is_so(f"there is a core: {os.listdir(where)}", os.listdir(where) == [])


def no_process_of_the_same_user_looks_in():
    directory = f"{WORK}/home-{OWNER}/peek"
    process = daemon(directory)
    kvass(OWNER, directory, "set", NAME, data=VALUE)
    client, far = reading(directory, f"{WORK}/home-{OWNER}")
    control = start(OWNER, "/bin/sleep", "600")
    seen = as_user(OWNER, look_at, control.pid)
    is_so(f"of any other process only {seen} is seen", {"environ", "maps", "fd"} <= set(seen))
    if "trace" not in seen:
        notes.append("without tracing, which this system forbids anyway")
    for name, pid in (("kvassd", process.pid), ("kvass", client.pid)):
        seen = as_user(OWNER, look_at, pid)
        is_so(f"another process saw the {seen} of {name}", not seen)
    end(control, signal.SIGKILL)
    end(client, signal.SIGKILL)
    os.close(far)
    end(process)


def mappings(process):
    """The bytes of each mapping of a process, and whether it is locked."""
    with open(f"/proc/{process}/smaps") as file:
        text = file.read()
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
            head, *lines = part.splitlines()
            start, stop = (int(number, 16) for number in head.split()[0].split("-"))
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            data = mapped(memory, start, stop)
            if data is not None:
                yield data, int(fields["Locked"].split()[0]) > 0 and "lo" in fields["VmFlags"].split()


def keys_are_locked():
    directory = f"{WORK}/home-{OWNER}/locked"
    process = daemon(directory)
    kvass(OWNER, directory, "set", NAME, data=VALUE)
    with open(f"/proc/{process.pid}/status") as file:
        locked = int(re.search(r"^VmLck:\s+(\d+) kB", file.read(), re.M)[1])
    is_so(f"{locked} KiB are locked", locked <= MAY_LOCK >> 10)
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY or limit >= MAY_LOCK:
        keys, found = keys_of(directory), set()
        for data, is_locked in mappings(process.pid):
            found |= {name for name, key in keys.items() if is_locked and key in data}
        is_so(f"not found in locked memory: {set(keys) - found}", found == set(keys) and locked > 0)
    end(process)
    # Where nothing may be locked, it serves all the same, and says so once.
    log = f"{WORK}/unlocked.log"
    with open(log, "wb") as words:
        forbid = lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        process = daemon(directory, stderr=words, preexec_fn=forbid)
    is_so("without locking", kvass(OWNER, directory, "get", NAME).stdout == VALUE)
    end(process)
    with open(log) as words:
        said = words.read().count("the system does not let keys be kept out of swap")
    is_so(f"it was said {said} times", said == 1)
    return locked


# Words


def nothing_is_in_words_or_in_files():
    """All levels of the log, the list of processes, and the store without its key file."""
    directory, server = f"{WORK}/home-{OWNER}/words", f"{WORK}/home-{OWNER}/server"
    log = f"{WORK}/words.log"
    with open(log, "wb") as words:
        serving = daemon(server, "--server", "--bind", "127.0.0.1:0", "--log", "trace", stderr=words)
        process = daemon(directory, "--log", "trace", stderr=words)
    status = kvass(OWNER, server, "status").stdout.decode()
    address = re.search(r"127\.0\.0\.1:\d+", status)[0]
    key = keys_of(directory)["K"]
    old = os.urandom(32)
    secrets = {"the key": key, "another key": old, "the value": VALUE, "the name": NAME.encode()}
    kvass(OWNER, directory, "set", NAME, data=VALUE)
    kvass(OWNER, directory, "set", f"{NAME}/large", data=VALUE * 10_000)
    kvass(OWNER, server, "config", "key", "-", data=key.hex().encode())
    kvass(OWNER, directory, "config", "remote", address)
    is_so("in step", kvass(OWNER, directory, "sync", "--timeout", "60s").returncode == 0)
    link = kvass(OWNER, directory, "url", NAME).stdout.strip()
    secrets["a token"] = link.split(b"q=")[1]
    secrets["the pairing line"] = kvass(OWNER, directory, "pair").stdout.split()[0]
    server_key = kvass(OWNER, directory, "config", "server-key").stdout.strip()
    secrets["the server key"] = server_key
    for arguments, data in (
        (["ls", "-v"], b""),
        (["config", "show"], b""),
        (["set", NAME * 100], VALUE),
        (["set", NAME + "\n"], VALUE),
        (["get", NAME + "/missing"], b""),
        (["config", "key", "-"], key.hex().encode()[:-1]),
        (["join", "-"], secrets["the pairing line"][:-3] + b"zzz"),
        (["url", "--revoke", link.decode()], b""),
        (["rm", f"{NAME}/large"], b""),
        (["config", "key", "-"], old.hex().encode()),
        (["config", "key", "-"], key.hex().encode()),
        (["export"], b""),
        (["doctor"], b""),
    ):
        kvass(OWNER, directory, *arguments, data=data)
    for pid in (serving.pid, process.pid):
        shown = b""
        for name in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                shown += file.read()
        for what, secret in secrets.items():
            is_so(f"{what} is in the list of processes", not written(secret, shown))
    end(serving)
    end(process)
    with open(log, "rb") as words:
        said = words.read()
    is_so("nothing is in the log", said.count(b"DEBUG") > 5)
    for what, secret in secrets.items():
        for form in forms(secret):
            at = said.find(form)
            is_so(f"{what} is in the log: {said[max(0, at - 200):at + 200]}", at < 0)
    for place in (directory, server):
        os.remove(f"{place}/key")
    stored = content(directory, server)
    for what, secret in secrets.items():
        is_so(f"{what} is in the files of the store", not written(secret, stored))
    for name, derived in keys_of_bytes(key).items():
        is_so(f"{name} is in the files of the store", not written(derived, stored))
    return len(said) + len(stored)


def keys_of_bytes(key):
    return {f"K_{label}": derive(key, b"kvass v1 " + label.encode()) for label in ("sync", "id", "record", "auth", "nonce")}


def forms(secret):
    """How a secret could be written."""
    return {secret, secret.hex().encode(), secret.hex().upper().encode(), repr(list(secret)).encode()}


def written(secret, text):
    return any(form in text for form in forms(secret))


def what_a_start_on_demand_passes_on():
    """The first command starts the daemon; nothing that it was given gets there but by the socket."""
    directory = f"{WORK}/home-{OWNER}/demand"
    kvass(OWNER, directory, "set", NAME, data=VALUE)
    with open(f"/proc/{holder(directory)}/cmdline", "rb") as file:
        line = file.read()
    with open(f"/proc/{holder(directory)}/environ", "rb") as file:
        line += file.read()
    is_so("the list of processes", VALUE not in line and NAME.encode() not in line)
    key = keys_of(directory)["K"]
    # The program that `run` starts gets what it was given, and neither a key nor another value.
    kvass(OWNER, directory, "set", "other", data=b"another value")
    ended = kvass(OWNER, directory, "run", "-e", f"GIVEN={NAME}", "--", "/usr/bin/env")
    is_so("what run gives", b"GIVEN=" + VALUE in ended.stdout)
    is_so("more than run was to give", b"another value" not in ended.stdout and key.hex().encode() not in ended.stdout)
    kvass(OWNER, directory, "daemon", "stop")


os.chmod(WORK, 0o755)
os.mkdir(BIN)
for program in ("kvass", "kvassd"):
    shutil.copy(os.path.join(os.path.dirname(KVASS), program), BIN)
    os.chmod(f"{BIN}/{program}", 0o755)
for user in (OWNER, OTHER):
    make(f"{WORK}/home-{user}", user, 0o700)
try:
    run(OTHER, f"{BIN}/kvass", "--version")
except PermissionError:
    print(f"secrets: SKIPPED: another user does not even get to {BIN}", file=sys.stderr)
    os._exit(77)
raise_limits()
another_user_gets_at_nothing()
loose_directories_are_refused()
a_directory_that_is_replaced_later_gives_nothing_away()
a_socket_that_others_made_is_told_nothing()
links_of_others_lead_no_output_astray()
no_runtime_directory_is_used()
no_core_is_left()
no_process_of_the_same_user_looks_in()
locked = keys_are_locked()
read = nothing_is_in_words_or_in_files()
what_a_start_on_demand_passes_on()
figures = f"{programs.looks} looks by another user, another process and at what is left; {locked} KiB of keys locked"
finish("secrets", ", ".join([f"{figures}, {read >> 10} KiB of words and files without a secret", *notes]))
