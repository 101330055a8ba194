"""People who use the machines of a long run, moderately and in every way, and check what they are shown."""

import base64
import http.client
import json
import random
import subprocess
import threading
import time

from programs import KVASS, ends_with_this, fail
from website import Site

SHARED, OWN, LINKED, IMPORTED, FADING = 100, 20, 4, 40, 6
# Links that one machine has at most: the oldest ends before a new one is made.
LINKS = 4

counts, counting = {}, threading.Lock()


def count(what, by=1):
    with counting:
        counts[what] = counts.get(what, 0) + by


def value(source):
    """Random bytes, mostly few, some at the border between a row and a file, some beyond it."""
    low, high = source.choices(((0, 300), (4_094, 4_098), (5_000, 200_000)), (80, 8, 12))[0]
    return source.randbytes(source.randint(low, high))


class Person(threading.Thread):
    """Does one thing after another, with pauses. `lock` is held while something is done."""

    def __init__(self, machine, seed, pause):
        super().__init__(daemon=True)
        self.machine, self.source, self.pause = machine, random.Random(seed), pause
        self.lock, self.ending = threading.Lock(), threading.Event()

    def run(self):
        while not self.ending.wait(self.source.uniform(0.5, 1.5) * self.pause):
            with self.lock:
                self.act()

    def act(self):
        raise NotImplementedError

    def stop(self):
        self.ending.set()
        self.join()


class Writer(Person):
    """Whoever writes, and has a history of it."""

    def __init__(self, machine, seed, pause, history):
        super().__init__(machine, seed, pause)
        self.history = history

    def write(self, key, new, **more):
        """Whether the value is there; None removes."""
        write = self.history.begin(key, new, self.machine.name)
        if new is None:
            code = self.machine.run("rm", key, expect=(0, 1, 3)).code
        else:
            code = self.machine.run("set", key, data=new, expect=(0, 3), **more).code
        self.settle(write, code)
        return code == 0

    def settle(self, write, code):
        if code == 0:
            self.history.acknowledged(write)
            count("writes")
        elif code == 1:
            self.history.nothing(write)
        else:
            self.history.unanswered(write)
            count("unanswered")


class User(Writer):
    """Uses a machine by all commands. `server` answers links of a device that is in step with it."""

    def __init__(self, machine, seed, pause, history, server=None):
        super().__init__(machine, seed, pause, history)
        self.server, self.links, self.contents, self.fading = server, [], {}, {}

    def act(self):
        acts = {self.set: 40, self.get: 24, self.remove: 9, self.ls: 6, self.bring: 3, self.wait_for: 2, self.status: 3}
        if self.server:
            acts |= {self.sync: 4, self.link: 3, self.list_links: 1}
        self.source.choices(list(acts), acts.values())[0]()

    def key(self):
        own, shared = f"own/{self.machine.name}/{self.source.randrange(OWN)}", f"shared/{self.source.randrange(SHARED)}"
        return self.source.choice((own, shared))

    def set(self):
        self.write(self.key(), value(self.source))

    def remove(self):
        self.write(self.key(), None)

    def get(self):
        if self.machine.run("get", self.key(), expect=(0, 1, 3)).code != 3:
            count("reads")

    def ls(self):
        self.machine.run("ls", *self.source.choice(([], ["-l"], ["--json"], ["-v"])), "own/", expect=(0, 3))
        count("lists")

    def status(self):
        self.machine.run("status", expect=(0, 3))

    def wait_for(self):
        key, much = f"shared/{self.source.randrange(SHARED)}", ["--change"] * self.source.randrange(2)
        # 1: the change was that it was removed.
        self.machine.run("wait", key, *much, "--timeout", "2s", expect=(0, 1, 3, 4))
        count("waits")

    def sync(self):
        code = self.machine.run("sync", "--timeout", "20s", expect=(0, 3, 4)).code
        count("syncs" if code == 0 else "syncs that were given up")
        return code == 0

    def bring(self):
        """Imports a few entries, of which some expire soon."""
        self.see_faded()
        name, now = self.machine.name, time.time()
        entries = {f"imported/{name}/{n}": value(self.source) for n in self.source.sample(range(IMPORTED), 20)}
        fading = {f"fading/{name}/{n}": now + self.source.uniform(1, 30) for n in self.source.sample(range(FADING), 2)}
        lines = [{"key": key, "value_base64": base64.b64encode(new).decode()} for key, new in entries.items()]
        for key, end in fading.items():
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(end)) + f".{int(end % 1 * 1e6):06}Z"
            lines.append({"key": key, "value": f"until {end}", "expires": stamp})
        writes = [self.history.begin(key, new, name) for key, new in entries.items()]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        code = self.machine.run("import", data=text.encode(), expect=(0, 3)).code
        for write in writes:
            self.settle(write, code)
        for key, end in fading.items():
            # One that may or may not have been stored is not looked for.
            self.fading[key] = end if code == 0 else None
        count("imports", code == 0)

    def see_faded(self):
        """What has expired is not shown any more."""
        for key, end in self.fading.items():
            if end and time.time() > end + 1:
                if self.machine.run("get", key, expect=(1, 3)).code == 1:
                    count("expired")

    def keep_faded(self):
        """Sets what expires to what stays, so that in the end it is known what is there."""
        for key in self.fading:
            self.write(key, b"stays")

    def link(self):
        """Makes a link and opens it at the server, and ends the oldest one."""
        key = f"linked/{self.machine.name}/{self.source.randrange(LINKED)}"
        if self.source.random() < 0.5 or key not in self.contents:
            new = value(self.source)
            self.contents[key] = new if self.write(key, new) else None
        kind = self.source.choice(("plain", "expires", "reads", "pin"))
        options = {"plain": [], "expires": ["--expires", "1m"], "reads": ["--reads", "2"], "pin": ["--pin"]}[kind]
        # 2: a device that is away has no remote.
        made = self.machine.run("--quiet", "url", key, *options, expect=(0, 1, 2, 3))
        if made.code != 0:
            return
        url = made.out.decode().strip()
        self.links.append((url, time.time() + 60 if kind == "expires" else None))
        if self.sync() and self.contents[key] is not None:
            count("links")
            self.open(url, kind, self.contents[key])
        if len(self.links) > LINKS:
            self.end_link()

    def open(self, url, kind, expected):
        if kind == "reads":
            if self.ask("GET", url)[1] == expected:
                fail(f"{self.machine.name}: a limited link showed its value without a question")
            for _ in range(2):
                self.shows(self.ask("POST", url), expected, kind)
            status, _ = self.ask("POST", url)
            if status not in (410, None):
                fail(f"{self.machine.name}: a link that was used up was answered with {status}")
            count("links used up")
        else:
            self.shows(self.ask("GET", url), expected, kind)

    def shows(self, answer, expected, kind):
        status, body = answer
        if status is not None and (status, body) != (200, expected):
            fail(f"{self.machine.name}: a link ({kind}) was answered with {status} and {len(body)} bytes, not {len(expected)}")

    def end_link(self):
        url, end = self.links.pop(0)
        if end is None or time.time() < end:
            # Its entry may have been replaced, which ends a pinned one.
            if self.machine.run("--quiet", "url", url, "--revoke", expect=(0, 1, 3)).code == 3 or not self.sync():
                return
        status, _ = self.ask("GET", url)
        if status not in (404, 410, None):
            fail(f"{self.machine.name}: a link that had ended was answered with {status}")
        count("links ended")

    def ask(self, method, url):
        """Status and body; no status where the server did not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, Site.path(url))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            count("requests without an answer")
            return None, b""
        finally:
            connection.close()

    def list_links(self):
        self.machine.run("url", "--list", "--json", expect=(0, 2, 3))


class Porter(Writer):
    """Sets, removes and reads large values: a key for each size, on any machine."""

    def __init__(self, machines, seed, pause, history, sizes):
        super().__init__(machines[0], seed, pause, history)
        self.machines, self.sizes = machines, sizes

    def act(self):
        number = self.source.randrange(len(self.sizes))
        key, self.machine = f"large/{number}", self.source.choice(self.machines)
        kind = self.source.random()
        if kind < 0.2:
            self.machine.run("get", key, stdout=subprocess.DEVNULL, expect=(0, 1, 3), patience=600)
        elif kind < 0.3:
            self.write(key, None)
        else:
            block, times = self.source.randbytes(1 << 18), self.sizes[number] >> 18
            if self.write(key, block * times, patience=600):
                count("MiB written", self.sizes[number] >> 20)


class Watcher(threading.Thread):
    """Watches a machine, a while at a time, and counts what it sees."""

    def __init__(self, machine, seed, longest):
        super().__init__(daemon=True)
        self.machine, self.source, self.longest, self.process = machine, random.Random(seed), longest, None
        self.ending, self.lock = threading.Event(), threading.Lock()

    def run(self):
        while self.begin():
            timer = threading.Timer(self.source.uniform(0.2, 1) * self.longest, self.process.terminate)
            timer.daemon = True
            timer.start()
            for _ in self.process.stdout:
                count("changes seen")
            timer.cancel()
            self.process.wait()

    def begin(self):
        with self.lock:
            if self.ending.is_set():
                return False
            self.process = subprocess.Popen(
                [KVASS, "watch"],
                env=self.machine.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                preexec_fn=ends_with_this,
            )
            return True

    def stop(self):
        with self.lock:
            self.ending.set()
            if self.process:
                self.process.terminate()
        self.join()
