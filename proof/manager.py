"""A service manager for the proofs: it holds a daemon's socket and starts the daemon for whoever connects."""

import os
import select
import socket
import subprocess
import threading
import time

from programs import KVASSD, wait_until

# `$$` is the daemon's process id, because the shell becomes the daemon.
PASS_ON = 'exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'


class Ear:
    """Where daemons tell what they have to tell their manager."""

    def __init__(self, path):
        self.path, self.heard, self.alive = path, [], []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            words = self.socket.recv(4096).decode().split("\n")
            if "WATCHDOG=1" in words:
                self.alive.append(time.monotonic())
            self.heard += words

    def count(self, word):
        return self.heard.count(word)

    def count_so_far(self, word):
        """How often a word has been told up to now, what is still on the way included."""
        times = self.count("now") + 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
            mouth.sendto(b"now", self.path)
        self.hears("now", times)
        return self.count(word)

    def longest_silence(self):
        """The longest time between two signs of life, in seconds."""
        return max((later - sooner for sooner, later in zip(self.alive, self.alive[1:])), default=0)

    def hears(self, word, times=1):
        return wait_until(lambda: self.count(word) >= times, 60)


class Manager:
    """Starts `kvassd` for a store with the store's socket, again and again, until it is told to end."""

    def __init__(self, store, ear, *arguments):
        self.store, self.ear, self.arguments = store, ear, arguments
        self.started, self.codes, self.process = 0, [], None
        path = os.path.join(store.directory, "kvassd.sock")
        # As systemd does: what lies at the path gives way.
        if os.path.lexists(path):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        os.chmod(path, 0o600)
        self.socket.listen(128)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ended.is_set():
            if not select.select([self.socket], [], [], 0.05)[0]:
                continue
            environment = {**self.store.environment, "NOTIFY_SOCKET": self.ear.path, "WATCHDOG_USEC": "3000000"}
            command = ["sh", "-c", PASS_ON, "sh", KVASSD, "--db", self.store.directory, *self.arguments]
            self.process = subprocess.Popen(
                command, env=environment, stdin=self.socket, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self.started += 1
            self.codes.append(self.process.wait())

    def serves(self):
        """Whether its daemon, and no other, serves the store."""
        return wait_until(lambda: self.process and self.store.daemons() == [self.process.pid], 60)

    def code(self):
        """How the daemon ended that was started last."""
        wait_until(lambda: len(self.codes) == self.started, 60)
        return self.codes[-1]

    def end(self):
        """Takes the socket away and ends the daemon."""
        self.ended.set()
        if self.process and self.process.poll() is None:
            self.process.terminate()
        self.thread.join(60)
        self.socket.close()
        os.unlink(os.path.join(self.store.directory, "kvassd.sock"))
