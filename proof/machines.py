"""The machines of a proof of sync: a server and devices, each with a way of its own to the server."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time

from programs import WORK, Store, fail, wait_until


class Gate:
    """Commands pass together; who replaces a data directory passes alone."""

    def __init__(self):
        self.free, self.inside = threading.Condition(), 0

    @contextlib.contextmanager
    def together(self):
        with self.free:
            self.inside += 1
        try:
            yield
        finally:
            with self.free:
                self.inside -= 1
                self.free.notify_all()

    @contextlib.contextmanager
    def alone(self):
        with self.free:
            self.free.wait_for(lambda: self.inside == 0)
            yield


class Machine(Store):
    """A device: a data directory, and its way to the server."""

    def __init__(self, name, proxy=None):
        super().__init__(f"{WORK}/{name}")
        self.name, self.proxy = name, proxy
        self.gate, self.life = Gate(), threading.RLock()

    def status(self):
        """`kvass status --json`, or nothing where the daemon is being killed."""
        ended = self.run("status", "--json", expect=(0, 3))
        return json.loads(ended.out) if ended.code == 0 else {}

    def again(self, *arguments, data=None):
        """Runs a command until it ends well, while the daemon is killed again and again."""
        for _ in range(20):
            if self.run(*arguments, data=data, expect=(0, 3)).code == 0:
                return True
            time.sleep(0.2)
        fail(f"{self.name}: `kvass {arguments[0]} {arguments[1]}` failed 20 times")
        return False

    def set_key(self, key):
        return self.again("config", "key", "-", data=key.encode())

    def set_remote(self):
        """Points the device at its own way to the server."""
        return self.again("config", "remote", f"127.0.0.1:{self.proxy.port}")

    def sleep(self, seconds):
        """The machine is asleep: nothing of it runs, and nobody is told."""
        process = self.daemon()
        if process is None:
            return False
        try:
            os.kill(process, signal.SIGSTOP)
            time.sleep(seconds)
        except ProcessLookupError:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        return True

    def begin(self):
        """Starts the daemon."""
        self.again("daemon", "start")

    def judge_log(self):
        """A log may say much, but not that the program itself failed."""
        for name in (self.directory + "/kvassd.log", self.directory + "/kvassd.log.old", self.directory + ".log"):
            if os.path.exists(name):
                with open(name, "rb") as log:
                    hit = re.search(rb".*(?: ERROR |panic|RUST_BACKTRACE|stack backtrace|damaged).*", log.read())
                if hit:
                    fail(f"{self.name}: its log says {hit.group().decode(errors='replace')[:300]}")

    def copy_to(self, directory):
        """Copies the data directory of a daemon that does not run."""

        def sockets(where, names):
            return [name for name in names if stat.S_ISSOCK(os.lstat(os.path.join(where, name)).st_mode)]

        shutil.copytree(self.directory, directory, symlinks=True, ignore=sockets)

    def replace_by(self, directory=None):
        """Puts a copy in the place of the data directory, or nothing."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if directory:
            shutil.copytree(directory, self.directory, symlinks=True)


class Server(Machine):
    """The machine that all devices reach."""

    def __init__(self, name, port=0):
        """`port`: the one that it always serves on; 0: any that is free, another one each time."""
        super().__init__(name)
        self.process, self.port, self.ways, self.fixed_port = None, 0, [], port

    def begin(self):
        """Serves, and points all ways to its port."""
        with self.life:
            if self.process and self.process.poll() is None:
                return
            log = open(self.directory + ".log", "ab")
            self.process = self.start(
                "serve", "--bind", f"127.0.0.1:{self.fixed_port}", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            log.close()
            self.port = 0
            if not wait_until(self._serves, 30):
                fail(f"the server did not start: {open(self.directory + '.log').read()[-300:]}")
            for way in self.ways:
                way.target = self.port

    def _serves(self):
        if self.daemon() != self.process.pid:
            return False
        bind = self.status().get("bind")
        self.port = int(bind.rsplit(":", 1)[1]) if bind else 0
        return self.port > 0

    def end(self, is_killed):
        """Ends the process and takes note of it."""
        if self.process:
            (self.process.kill if is_killed else self.process.terminate)()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                fail("the server was still there 20 s after SIGTERM")
                self.process.kill()
                self.process.wait()
