"""Runs kvass for the proofs, finds and kills the daemons that they started, and judges every word printed."""

import base64
import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

WORK = os.environ["KVASS_WORK"]
KVASS = os.path.join(os.environ["KVASS_BIN"], "kvass")
KVASSD = KVASS + "d"

# What no user must ever see: panic traces, log lines, source paths and Rust's way of printing values.
NOISE = re.compile(
    rb"panicked|RUST_BACKTRACE|stack backtrace|(?<![\w/.-])src/|\.rs:\d+|\w::\w|\b(?:Err|Ok|Some)\("
    rb"|\b(?:Os|Custom|Error|Io|Kind) \{|\b(?:TRACE|DEBUG|INFO|WARN|ERROR)\b|\x1b\[",
)

# Commands whose standard output is words of ours and not a user's data.
SPEAKING = ("status", "doctor", "daemon", "import", "set", "rm")

# How long any single command may take before it counts as hung.
PATIENCE = 120

problems = []
# How many things were looked at by `is_so`.
looks = 0
_lock = threading.Lock()


def fail(text):
    """Notes that the proof does not hold; it goes on, so that one run shows everything."""
    with _lock:
        problems.append(text)
        if len(problems) <= 20:
            print("FAIL: " + text, file=sys.stderr, flush=True)


def is_so(what, condition):
    """Counts one thing that is looked at, and notes where it is not so; whether it is."""
    global looks
    looks += 1
    if not condition:
        fail(what)
    return condition


def finish(name, figures):
    """Prints the line of figures and ends the proof."""
    with _lock:
        verdict = "ok" if not problems else f"{len(problems)} FAILED"
    print(f"{name}: {verdict}: {figures}", flush=True)
    os._exit(1 if problems else 0)


def free_port():
    """A port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def low_port():
    """A port of loopback that nobody has, and that the kernel gives to no connection: it stays free over restarts."""
    for port in random.SystemRandom().sample(range(15_000, 30_000), 1_000):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            pass
    raise OSError("no port of loopback is free")


def ends_with_this():
    """Makes the kernel end a child with this process, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def judge(words, command):
    """Notes whatever in the words of a program is not meant for people."""
    found = NOISE.search(words)
    if found:
        start = words.rfind(b"\n", 0, found.start()) + 1
        line = words[start : start + 300].split(b"\n")[0]
        fail(f"`kvass {command}` printed what is not for people: {line.decode(errors='replace')}")


def one_line(words, command):
    """Notes an error that is not one `kvass:` line, and at most one `hint:` line."""
    lines = words.decode(errors="replace").splitlines()
    good = bool(lines) and lines[0].startswith("kvass: ")
    good = good and (len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")))
    if not good:
        fail(f"`kvass {command}` should print one error line and at most one hint, but printed {lines!r}")


class Ended:
    """How a command ended."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def words(self):
        return self.err.decode(errors="replace").strip() or "(nothing on standard error)"


class Store:
    """A data directory, reached through the programs."""

    # A `kvass` that stands alone starts no daemon.
    client = KVASS

    def __init__(self, directory):
        self.directory = directory
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.environ["HOME"],
            "KVASS_DB": directory,
        }

    def start(self, *arguments, **streams):
        """Starts a command without waiting for it."""
        return subprocess.Popen([self.client, *arguments], env=self.environment, **streams)

    def run(self, *arguments, data=None, stdin=None, stdout=None, expect=None, patience=PATIENCE):
        """Runs a command to its end. `expect`: the exit codes that are right, else the proof does not hold."""
        command = " ".join(arguments)[:120]
        if data is None and stdin is None:
            stdin = subprocess.DEVNULL
        try:
            ended = subprocess.run(
                [self.client, *arguments],
                env=self.environment,
                input=data,
                stdin=stdin if data is None else None,
                stdout=stdout if stdout is not None else subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=patience,
            )
        except subprocess.TimeoutExpired:
            fail(f"`kvass {command}` hung for {patience} s")
            return Ended(124, b"", b"")
        judge(ended.stderr, command)
        if arguments[0] in SPEAKING:
            judge(ended.stdout or b"", command)
        if expect is not None and ended.returncode not in ((expect,) if isinstance(expect, int) else expect):
            words = ended.stderr.decode(errors="replace").strip()
            fail(f"`kvass {command}` ended with {ended.returncode}, not {expect}: {words}")
        return Ended(ended.returncode, ended.stdout or b"", ended.stderr)

    def set(self, key, value, expect=0):
        return self.run("set", key, data=value, expect=expect)

    def get(self, key, expect=0):
        return self.run("get", key, expect=expect)

    def key(self):
        """The encryption key, in hex."""
        shown = self.run("config", "show", expect=0).out.decode()
        return shown.split("Encryption Key: ")[1].split()[0]

    def keys(self):
        """The keys in order, NUL-terminated on the way so that nothing in them matters; None on failure."""
        listed = self.run("ls", "-0", expect=0)
        return [key.decode() for key in listed.out.split(b"\0")[:-1]] if listed.code == 0 else None

    def daemon(self):
        """The process id of the daemon that holds the lock, or None."""
        try:
            with open(os.path.join(self.directory, "lock"), "rb") as lock:
                process = int(lock.readline().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return process if self.is_own(process) else None

    def is_own(self, process):
        """Whether this is a kvassd that was started for this directory."""
        traces = []
        try:
            with open(f"/proc/{process}/status", "rb") as file:
                status = file.read()
            if not status.startswith(b"Name:\tkvassd\n") or b"\nState:\tZ" in status:
                return False
            for trace in ("cmdline", "environ"):
                with open(f"/proc/{process}/{trace}", "rb") as file:
                    traces += file.read().split(b"\0")
        except OSError:
            pass
        directory = self.directory.encode()
        names = (directory, b"KVASS_DB=" + directory, b"--db=" + directory)
        return any(trace in names for trace in traces)

    def daemons(self):
        """Every kvassd that was started for this directory and still runs."""
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and self.is_own(int(name))]

    def kill(self, process=None):
        """`kill -9`. Returns the process id, or None where there was no daemon."""
        process = process or self.daemon()
        if process is None:
            return None
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            return None
        wait_until(lambda: not self.is_own(process), 10)
        return process

    def kill_all(self):
        for process in self.daemons():
            self.kill(process)
        if not wait_until(lambda: not self.daemons(), 10):
            fail("a daemon outlived kill -9 by 10 s")

    def stop(self):
        """`kvass daemon stop`, and the end of the process."""
        process = self.daemon()
        ended = self.run("daemon", "stop", expect=0)
        if process is not None and not wait_until(lambda: not self.is_own(process), 20):
            fail("the daemon was still there 20 s after `kvass daemon stop`")
            self.kill(process)
        return ended


def exported(lines):
    """The values in the lines of an export, by their keys."""
    values = {}
    for entry in map(json.loads, lines):
        if "key" in entry:
            text = entry.get("value")
            part = base64.b64decode(entry["value_base64"]) if text is None else text.encode()
            # A long value stands on several lines.
            values[entry["key"]] = values.get(entry["key"], b"") + part
    return values


def wait_until(condition, seconds):
    """Polls until the condition holds; whether it did in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def memory(process, field):
    """A field of /proc/PID/status (VmRSS, VmHWM), in KiB; 0 where the process is gone."""
    try:
        with open(f"/proc/{process}/status") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def mapped(file, start, stop):
    """What an open /proc/PID/mem has from one address to another; None where the kernel does not show it, as [vvar]."""
    content = b""
    try:
        file.seek(start)
        while len(content) < stop - start and (part := file.read(stop - start - len(content))):
            content += part
    except (OSError, OverflowError):
        return None
    return content


def disk_bytes(directory):
    """What a directory takes on the disk, as `du` counts it."""
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except OSError:
                pass
    return total
