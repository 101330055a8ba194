"""See run.sh. Every figure is the median of whole processes, from their start to their end; what is compared is run in
turn, so that a machine that gets slower slows both. Output goes to /dev/null unless a row says otherwise."""

import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

from programs import KVASS, WORK, Store, disk_bytes, fail, memory, wait_until
from table import alone, print_table, row, rows, say, skipped

MIB = 1024 * 1024
big, runs = int(sys.argv[1]), int(sys.argv[2])
DEVNULL = os.devnull


class Command:
    """A process to be timed."""

    def __init__(self, *arguments, stdin=DEVNULL, stdout=DEVNULL, environment=None, before=None):
        self.path = shutil.which(arguments[0]) or arguments[0]
        self.arguments, self.stdin, self.stdout = arguments, stdin, stdout
        self.environment, self.before = environment or dict(os.environ), before

    def time(self):
        """Runs it once; seconds."""
        if self.before:
            self.before()
        files = [
            (os.POSIX_SPAWN_OPEN, 0, self.stdin, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self.stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        began = time.perf_counter()
        process = os.posix_spawn(self.path, self.arguments, self.environment, file_actions=files)
        _, status = os.waitpid(process, 0)
        took = time.perf_counter() - began
        if status != 0:
            fail(f"`{' '.join(self.arguments)[:100]}` failed with status {status}")
        return took


def compare(count, *commands):
    """Runs the commands in turn. Their medians, in seconds."""
    for command in commands:
        command.time()
    times = [[] for _ in commands]
    for _ in range(count):
        for index, command in enumerate(commands):
            times[index].append(command.time())
    return [statistics.median(list_of) for list_of in times]


def kvass(store, *arguments, **more):
    return Command(KVASS, *arguments, environment=store.environment, **more)


def fill(store, count):
    """Imports keys with values of 100 bytes; returns the keys in order."""
    path = f"{WORK}/{count}.jsonl"
    keys = [f"key/{number:06}" for number in range(count)]
    with open(path, "w") as file:
        for key in keys:
            file.write(json.dumps({"key": key, "value": key.ljust(100, ".")}) + "\n")
    began = time.monotonic()
    store.run("import", path, expect=0, patience=1200)
    say(f"bench: imported {count} keys in {time.monotonic() - began:.1f} s")
    os.unlink(path)
    return keys


class Redis:
    """A redis-server of our own on loopback, which syncs its log at every write."""

    def __init__(self):
        self.directory = WORK + "/redis"
        os.mkdir(self.directory)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.process = subprocess.Popen(
            ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory, "--appendonly", "yes",
             "--appendfsync", "always", "--save", "", "--daemonize", "no"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        if not wait_until(lambda: self.ask("ping") == b"PONG\n", 20):
            fail("redis-server did not start")

    def ask(self, *words):
        return subprocess.run(["redis-cli", "-p", self.port, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

    def command(self, *words):
        return Command("redis-cli", "-p", self.port, *words)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def small_values(store):
    """get and set of 100 bytes."""
    value = "v" * 100
    with open(WORK + "/small", "w") as file:
        file.write(value)
    store.run("set", "small", value, expect=0)
    redis = Redis() if shutil.which("redis-server") and shutil.which("redis-cli") else None
    get, cat, true = kvass(store, "get", "small"), Command("cat", WORK + "/small"), Command("true")
    put = kvass(store, "set", "small", value)
    if redis:
        redis.ask("set", "small", value)
        figures = compare(runs, get, cat, true, redis.command("get", "small"))
        row("`get`, 100 bytes", figures[0], "`cat` of a file", figures[1], "at most 1.5", 1.5)
        row("`get`, 100 bytes", figures[0], "`redis-cli get`", figures[3], "under 0.5", 0.5)
        row("`get`, 100 bytes", figures[0], "`true`", figures[2], "")
        ours, theirs = compare(runs, put, redis.command("set", "small", value))
        row("`set`, 100 bytes, durable", ours, "`redis-cli set`, `appendfsync always`", theirs, "under 1", 1.0)
        redis.end()
    else:
        figures = compare(runs, get, cat, true)
        row("`get`, 100 bytes", figures[0], "`cat` of a file", figures[1], "at most 1.5", 1.5)
        row("`get`, 100 bytes", figures[0], "`true`", figures[2], "")
        skipped("`get` and `set`, 100 bytes", "redis")


def many_keys(store):
    """ls of 100,000 keys, and the first answer from a cold start."""
    count = 100_000
    keys = fill(store, count)
    listed = store.run("ls", expect=0).out.decode().splitlines()
    if listed != keys:
        fail(f"`ls` shows {len(listed)} keys, not the {count} that were imported")
    if shutil.which("sqlite3"):
        database = WORK + "/peer.sqlite"
        script = "create table kv(key text primary key, value blob) without rowid;\nbegin;\n"
        script += "".join(f"insert into kv values('{key}','{key.ljust(100, '.')}');\n" for key in keys) + "commit;\n"
        subprocess.run(["sqlite3", database], input=script.encode(), check=True)
        select = Command("sqlite3", database, "select key from kv order by key")
        ours, theirs = compare(max(20, runs // 10), kvass(store, "ls"), select)
        row(f"`ls` of {count:,} keys", ours, "`sqlite3` over an index", theirs, "at most 2", 2.0)
    else:
        skipped(f"`ls` of {count:,} keys", "sqlite3")

    get = kvass(store, "get", keys[count // 2], before=store.stop)
    stopped = statistics.median(get.time() for _ in range(20))
    alone(f"first `get` with {count:,} keys, after a stop", show(stopped), "at most 100 ms", stopped <= 0.1)
    get = kvass(store, "get", keys[count // 2], before=store.kill)
    killed = statistics.median(get.time() for _ in range(20))
    alone(f"first `get` with {count:,} keys, after `kill -9`", show(killed), "at most 100 ms", killed <= 0.1)
    store.run("ls", stdout=subprocess.DEVNULL, expect=0)
    time.sleep(2)
    resident = memory(store.daemon(), "VmRSS") / 1024
    rows.append((f"resident with {count:,} keys, after `ls`", f"{resident:.1f} MiB", "", "", "", "", ""))
    rows.append((f"disk with {count:,} keys", f"{disk_bytes(store.directory) / MIB:.0f} MiB", "", "", "", "", ""))
    store.stop()


def large_value(store):
    """A large value in and out."""
    path, copy, name = WORK + "/big", WORK + "/copy", f"{big} MiB" if big < 1024 else f"{big // 1024} GiB"
    with open(path, "wb") as file:
        for _ in range(big):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    count = 7 if big >= 1024 else 15

    def removed():
        store.run("rm", "-f", "big", expect=0)
        os.sync()

    def uncopied():
        if os.path.exists(copy):
            os.unlink(copy)
        os.sync()

    put = kvass(store, "set", "big", stdin=path, before=removed)
    cp = Command("sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh", path, copy, before=uncopied)
    ours, theirs = compare(count, put, cp)
    row(f"`set` of {name}, durable", ours, "`cp` and `sync` of the copy", theirs, "at most 2", 2.0)
    uncopied()

    put.time()
    out = WORK + "/out"

    def fresh():
        if os.path.exists(out):
            os.unlink(out)
        os.sync()

    get = kvass(store, "get", "big", stdout=out, before=fresh)
    if shutil.which("age"):
        identity = WORK + "/age.key"
        subprocess.run(["age-keygen", "-o", identity], check=True, stderr=subprocess.DEVNULL)
        recipient = subprocess.run(["age-keygen", "-y", identity], check=True, stdout=subprocess.PIPE).stdout.decode().strip()
        subprocess.run(["age", "-r", recipient, "-o", WORK + "/big.age", path], check=True)
        age = Command("age", "-d", "-i", identity, "-o", out, WORK + "/big.age", before=fresh)
        ours, theirs = compare(count, get, age)
        row(f"`get` of {name} into a file", ours, "`age -d` into a file", theirs, "at most 1.5", 1.5)
        os.unlink(WORK + "/big.age")
    else:
        skipped(f"`get` of {name}", "age")
    fresh()
    get.time()
    if subprocess.run(["cmp", out, path]).returncode != 0:
        fail("the large value that came out is not what went in")
    store.run("rm", "big", expect=0)
    store.stop()


def idle(store):
    """What a daemon with 10,000 keys takes while nobody asks anything."""
    fill(store, 10_000)
    store.stop()
    store.run("get", "key/000001", expect=0)
    time.sleep(10)
    daemon = store.daemon()

    def wakeups():
        found = {}
        for task in os.listdir(f"/proc/{daemon}/task"):
            with open(f"/proc/{daemon}/task/{task}/status") as file:
                fields = dict(line.rstrip("\n").split(":", 1) for line in file)
            found[task] = (fields["Name"].strip(), int(fields["voluntary_ctxt_switches"]))
        return found

    before = wakeups()
    seconds = 20
    time.sleep(seconds)
    after = wakeups()
    own = theirs = 0
    for task, (name, count) in after.items():
        count -= before.get(task, (name, 0))[1]
        if name.startswith("sled-io") or name == "log flusher":
            theirs += count
        else:
            own += count
            if count:
                say(f"bench: thread {name}: {count} wake-ups in {seconds} s")
    resident = memory(daemon, "VmRSS") / 1024
    alone("idle, 10,000 keys: resident", f"{resident:.1f} MiB", "under 25 MiB", resident < 25)
    alone("idle: wake-ups a second, own threads", f"{own / seconds:.1f}", "at most 2", own / seconds <= 2)
    rows.append(("idle: wake-ups a second, threads of sled", f"{theirs / seconds:.1f}", "", "", "", "", ""))
    store.stop()


random.seed(0)
for part in (small_values, many_keys, large_value, idle):
    say(f"bench: {part.__name__.replace('_', ' ')} …")
    part(Store(f"{WORK}/{part.__name__}"))

print_table(f"medians of {runs} runs of the short commands")
