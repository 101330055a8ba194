"""See links.sh."""

import hashlib
import http.client
import os
import random
import subprocess
import sys
import threading
import time

import programs
from programs import WORK, fail, finish, is_so, memory, wait_until
from website import Site

mib, kills = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random()


def curl(*arguments, patience=600):
    command = ["curl", "--silent", "--show-error", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=patience)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def make_large(path):
    """A file of which no two parts are the same."""
    block = bytearray(chance.randbytes(1 << 20))
    with open(path, "wb") as file:
        for number in range(mib):
            block[:8] = number.to_bytes(8, "big")
            file.write(block)
        # The last chunk is not a whole one.
        file.write(b"the end")


def resume(url, path, size):
    """Takes a download in parts, each of which is cut; how many it took."""
    parts = 0
    while not os.path.exists(path) or os.path.getsize(path) < size:
        parts += 1
        before = os.path.getsize(path) if os.path.exists(path) else 0
        command = ["curl", "--silent", "--fail", "-C", "-", "-o", path, url]
        taking = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        goal = min(before + size // 5, size)
        wait_until(lambda: taking.poll() is not None or os.path.exists(path) and os.path.getsize(path) >= goal, 120)
        taking.kill()
        taking.wait()
        if parts > 100:
            fail("a download did not end in 100 parts")
            return parts
    return parts


site = Site("server")
large, size = f"{WORK}/large", mib * (1 << 20) + 7
make_large(large)
with open(large, "rb") as file:
    site.store.run("set", "film.bin", stdin=file, expect=0, patience=600)
site.store.run("set", "note.txt", data="héllo 👋\n".encode(), expect=0)
url, note = site.link("film.bin"), site.link("note.txt")
true_digest = digest(large)

is_so("a short value came as something else", curl(note).stdout == "héllo 👋\n".encode())
baseline = site.descriptors()
before = memory(site.process.pid, "VmHWM")

parts = resume(url, f"{WORK}/resumed", size)
is_so("a download that was resumed is not the value", digest(f"{WORK}/resumed") == true_digest)
os.unlink(f"{WORK}/resumed")

with open(large, "rb") as file:
    for _ in range(30):
        first = chance.randrange(size)
        last = min(first + chance.choice((0, 100, 32_768, 3_000_000)), size - 1)
        file.seek(first)
        got = curl("-r", f"{first}-{last}", url)
        is_so(f"bytes {first} to {last} are others", got.stdout == file.read(last - first + 1))

# Two at once, of which one is slow at first, and a short one beside them.
outs = [f"{WORK}/out-{number}" for number in range(2)]
takers = [subprocess.Popen(["curl", "--silent", "--fail", "-o", out, url]) for out in outs]
is_so("a short value waits behind large ones", curl("--max-time", "20", note).stdout == "héllo 👋\n".encode())
for taker, out in zip(takers, outs):
    is_so("one of two downloads failed", taker.wait(600) == 0)
    is_so("one of two downloads is not the value", digest(out) == true_digest)
    os.unlink(out)

# Cut downloads leave nothing behind.
slow = [subprocess.Popen(["curl", "--silent", "--limit-rate", "1M", "-o", os.devnull, url]) for _ in range(20)]
is_so("20 slow downloads did not begin", wait_until(lambda: site.descriptors("/blobs/") == 20, 60))
for taker in slow:
    taker.kill()
    taker.wait()
is_so("cut downloads left descriptors of values", wait_until(lambda: site.descriptors("/blobs/") == 0, 30))
is_so("cut downloads left descriptors", wait_until(lambda: site.descriptors() <= baseline, 30))
peak = memory(site.process.pid, "VmHWM")
is_so(f"the server's memory grew from {before} to {peak} KiB", peak < before + 40 * 1024)

# A client that is slow to the end, for longer than a guest may stay.
part = 16 << 20
for protocol in ("--http1.1", "--http2-prior-knowledge"):
    got = curl(protocol, "--limit-rate", "2M", "-r", f"0-{part - 1}", url)
    with open(large, "rb") as file:
        is_so(f"a slow download with {protocol} is not the value", got.stdout == file.read(part))

# A stop ends what is on its way, soon.
stopped = subprocess.Popen(["curl", "--silent", "--limit-rate", "1M", "-o", os.devnull, url])
is_so("a slow download did not begin", wait_until(lambda: site.descriptors("/blobs/") == 1, 60))
began = time.monotonic()
site.stop()
stopping = time.monotonic() - began
is_so(f"a stop took {stopping:.1f} s beside a download", stopping < 10)
is_so("a download outlived the server", stopped.wait(30) != 0)
site.start()


def post(path):
    """One read of a limited link; whether the value came, whole. Nothing where the server was not there."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    try:
        connection.request("POST", path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, body
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def read_beside_kills(allowed):
    """Takes a limited link from several sides while the server is killed; how often the value came."""
    secret = chance.randbytes(300_000 if chance.random() < 0.3 else 30)
    site.store.run("set", "secret", data=secret, expect=0)
    path = site.path(site.link("secret", "--reads", str(allowed)))
    came, ends = [], threading.Event()

    def take():
        while not ends.is_set():
            status, body = post(path)
            if status == 200 and body == secret:
                came.append(body)
            elif status == 410:
                return
            elif status not in (None, 200):
                fail(f"a limited link was answered with {status}")
                return

    takers = [threading.Thread(target=take) for _ in range(3)]
    for taker in takers:
        taker.start()
    for _ in range(3):
        time.sleep(chance.uniform(0, 0.02))
        site.kill()
        site.start()
    for taker in takers:
        taker.join(60)
    ends.set()
    is_so("a limited link was not used up", post(path)[0] == 410)
    is_so(f"a link for {allowed} reads gave {len(came)}", len(came) <= allowed)
    return len(came)


taken = allowances = 0
for _ in range((kills + 2) // 3):
    allowed = chance.choice((1, 2, 5, 20))
    allowances += allowed
    taken += read_beside_kills(allowed)
finish(
    "links",
    f"{programs.looks} things that are so; {mib} MiB resumed in {parts} parts, by ranges and two at once, memory of the "
    f"server at most {peak / 1024:.0f} MiB ({before / 1024:.0f} before), a stop beside a download {stopping * 1000:.0f} ms; {taken} of "
    f"{allowances} limited reads came beside {(kills + 2) // 3 * 3} kills, and never one more",
)
