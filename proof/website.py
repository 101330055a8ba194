"""A server with links, for the proofs that open them."""

import os
import subprocess

from programs import WORK, Store, fail, low_port, wait_until


class Site:
    """A server of a store of its own, on a port that stays."""

    def __init__(self, name):
        self.store, self.process, self.port = Store(f"{WORK}/{name}"), None, low_port()
        self.start()
        self.store.run("config", "public-url", f"http://127.0.0.1:{self.port}", expect=0)

    def start(self):
        log = open(f"{WORK}/server.log", "ab")
        bind = f"127.0.0.1:{self.port}"
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        self.process = self.store.start("serve", "--bind", bind, **streams)
        log.close()
        if not wait_until(lambda: self.store.daemon() == self.process.pid, 30):
            fail("the server did not start")
        if not wait_until(lambda: b'"bind"' in self.store.run("status", "--json", expect=(0, 3)).out, 30):
            fail(f"the server does not serve at {bind}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def link(self, key, *options):
        """What `kvass url` prints."""
        return self.store.run("url", key, *options, expect=0).out.decode().strip()

    @staticmethod
    def path(url):
        return "/" + url.split("://", 1)[1].split("/", 1)[1]

    def descriptors(self, part=""):
        """How many descriptors the server has open, of files with this in their path."""
        count = 0
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            try:
                count += part in os.readlink(f"/proc/{self.process.pid}/fd/{name}")
            except OSError:
                pass
        return count
