"""See https.sh."""

import json
import random
import re
import subprocess
import sys
import time

import programs
from programs import WORK, Store, fail, finish, free_port, is_so, wait_until
from web import Nginx, certify, documented, listen

mib = int(sys.argv[1])
chance = random.Random()
slowest = 0.0


def servers(port, plain, backend):
    """One that passes to kvassd as README.md says, and one that is a web server alone."""
    tls = f"ssl_certificate {WORK}/site.pem; ssl_certificate_key {WORK}/site.key; server_name localhost;"
    block = documented("README.md").replace("127.0.0.1:8000", backend)
    return (
        f"server {{ {listen(port)} {tls}\n{block}}}\n"
        f"server {{ {listen(plain)} {tls} location / {{ return 200 hello; }} }}"
    )


def comes(key, value, *, by, to):
    """What is set on one machine is there on another, a moment later."""
    global slowest
    began = time.monotonic()
    by.set(key, value)
    is_so(f"{key} came as something else", to.run("wait", key, "--timeout", "60s", expect=0).out == value)
    slowest = max(slowest, time.monotonic() - began)


def found(device, url):
    """What `config remote` says about what it has found."""
    ended = device.run("config", "remote", url, expect=0)
    return (ended.out + ended.err).decode()


certify()
server, device, stranger = (Store(f"{WORK}/{name}") for name in ("server", "device", "stranger"))
device.environment["KVASS_CA"] = f"{WORK}/ca.pem"
serving = server.start("serve", "--bind", "127.0.0.1:0", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
if not wait_until(lambda: server.daemon() == serving.pid, 20):
    fail("the server did not start")
port, plain = free_port(), free_port()
nginx = Nginx(port, servers(port, plain, json.loads(server.run("status", "--json", expect=0).out)["bind"]))
nginx.start()
url = f"https://localhost:{nginx.port}"
key = server.key()
for store in (device, stranger):
    store.run("config", "key", key, expect=0)

words = found(stranger, url)
is_so(f"an authority that nobody knows is taken, or not named: {words!r}", "certificate" in words and "KVASS_CA" in words)
words = found(device, f"https://localhost:{plain}")
is_so(f"a web server is not named as one: {words!r}", "is no kvassd server, but a web server" in words)

words = found(device, url)
is_so(f"the server is not found: {words!r}", not re.search("nothing|refuses|no kvassd|ends the|proxy", words))
device.run("sync", "--timeout", "30s", expect=0)
comes("from the device", b"here", by=device, to=server)
comes("from the server", b"there", by=server, to=device)
large, began = chance.randbytes(mib << 20), time.monotonic()
device.set("large", large)
device.run("sync", "--timeout", "100s", expect=0)
is_so("a large value came as something else", server.get("large").out == large)
taken = time.monotonic() - began
comes("back", large[::-1], by=server, to=device)

# What waits while nginx is away goes out once it is back, with nobody asking.
nginx.stop()
device.set("while away", b"1")
nginx.start()
is_so("what was set without nginx did not come", server.run("wait", "while away", "--timeout", "60s", expect=0).out == b"1")
comes("after", b"2", by=server, to=device)

# kvassd away, and nginx there: its 502 is told as what it is.
serving.terminate()
serving.wait(timeout=30)
words = found(device, url)
is_so(f"a proxy without kvassd behind it is not named as one: {words!r}", "a proxy answers" in words)
nginx.stop()
finish(
    "https",
    f"{programs.looks} things that are so behind nginx, {mib} MiB there in {taken:.1f} s, slowest set on one and wait on another "
    f"{slowest * 1000:.0f} ms",
)
