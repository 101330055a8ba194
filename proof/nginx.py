"""See nginx.sh."""

import http.client
import json
import random
import ssl
import subprocess
import sys
import time

import programs
from programs import WORK, Store, fail, finish, free_port, is_so, wait_until
from web import Nginx, certify, documented, listen

mib = int(sys.argv[1])
chance = random.Random()
slowest = 0.0

# A session that says nothing for this long has said something of its own once.
LIMIT, SILENCE = 28, 32


def server_block(port, backend, limit):
    """The documented server, with names and ports of here, and other time limits."""
    block = documented("docs/operations.md")
    for word, other in (
        ("listen 443 ssl http2;", listen(port)),
        ("kvass.example.org", "localhost"),
        ("/etc/ssl/kvass/fullchain.pem", f"{WORK}/site.pem"),
        ("/etc/ssl/kvass/privkey.pem", f"{WORK}/site.key"),
        ("127.0.0.1:8000", backend),
        ("60s", f"{limit}s"),
    ):
        if word not in block:
            fail(f"docs/operations.md has no '{word}' in its block for nginx")
        block = block.replace(word, other)
    # nginx has an address of its own here, which can be told from those who come to it.
    return f"grpc_bind 127.0.0.2; proxy_bind 127.0.0.2;\n{block}"


def ended_sessions():
    """How many sessions nginx has seen to their end."""
    with open(Nginx.log, encoding="utf-8") as log:
        return sum("/kvass.v1.Sync/Session" in line for line in log)


def ask(method, path, source="127.0.0.1", **headers):
    """Asks over HTTP/1.1 through nginx; returns status, headers and body."""
    trust = ssl.create_default_context(cafile=f"{WORK}/ca.pem")
    connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=trust, source_address=(source, 0))
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def link(name, *options):
    """The path of a link, once the server has it."""
    made = one.run("url", name, *options, expect=0).out.decode().strip()
    is_so("a link begins otherwise than the remote", made.startswith(f"{url}/get?q="))
    path = made.removeprefix(url)
    is_so("a link did not come to the server", wait_until(lambda: ask("HEAD", path)[0] == 200, 30))
    return path


def comes(key, value, *, by, to):
    """What is set on one machine is there on another, a moment later."""
    global slowest
    began = time.monotonic()
    by.set(key, value)
    is_so(f"{key} came as something else", to.run("wait", key, "--timeout", "60s", expect=0).out == value)
    slowest = max(slowest, time.monotonic() - began)


def serve(bind):
    """Starts the server and returns its process."""
    process = server.start("serve", "--bind", bind, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not wait_until(lambda: server.daemon() == process.pid, 20):
        fail("the server did not start")
    return process


certify()
server, one, other = (Store(f"{WORK}/{name}") for name in ("server", "one", "other"))
server.environment["KVASS_PROXY"] = "127.0.0.2"
serving = serve("127.0.0.1:0")
backend = json.loads(server.run("status", "--json", expect=0).out)["bind"]
port = free_port()
nginx = Nginx(port, server_block(port, backend, LIMIT))
nginx.start()
url = f"https://localhost:{port}"
key = server.key()
for device in (one, other):
    device.environment["KVASS_CA"] = f"{WORK}/ca.pem"
    device.run("config", "key", key, expect=0)
    device.run("config", "remote", url, expect=0)
    device.run("sync", "--timeout", "30s", expect=0)

comes("there", b"1", by=one, to=other)
comes("back", b"2", by=other, to=one)
comes("from the server", b"3", by=server, to=one)
large, began = chance.randbytes(mib << 20), time.monotonic()
one.set("large", large)
is_so("a large value came as something else", other.run("wait", "large", "--timeout", "100s", expect=0).out == large)
taken = time.monotonic() - began

status, headers, body = ask("GET", "/healthz")
is_so(f"/healthz is not healthy: {status} {body!r}", (status, body) == (200, b"ok\n"))
is_so("what is not there is there", ask("GET", "/nothing")[0] == 404)

# Links, made on a device.
path = link("large")
status, headers, body = ask("GET", path)
is_so("a large link is not the value", (status, body) == (200, large))
status, headers, body = ask("GET", path, Range="bytes=40000-70000")
is_so("a part of a link is another one", (status, body) == (206, large[40_000:70_001]))
status, headers, body = ask("HEAD", path)
is_so("HEAD of a link says something else", (status, headers["Content-Length"], body) == (200, str(len(large)), b""))
is_so("who has a value gets it again", ask("GET", path, **{"If-None-Match": headers["ETag"]})[0] == 304)
del large, body
path = link("back", "--reads", "1")
is_so("to look at a limited link shows its value", b"2" != ask("GET", path)[2])
is_so("a limited link does not open", ask("POST", path)[::2] == (200, b"2"))
is_so("a limited link opens once more", ask("POST", path)[0] == 410)

# Who guesses is held back, by the address that nginx names, and others are not.
guesses = {ask("GET", "/get?q=" + "0" * 26, source="127.0.0.3")[0] for _ in range(40)}
is_so(f"guesses are answered with {guesses}", guesses == {404, 429})
is_so("somebody else is held back", ask("GET", "/get?q=" + "0" * 26, source="127.0.0.4")[0] == 404)

# Silence that is longer than nginx bears, but for what a session says by itself.
sessions = ended_sessions()
time.sleep(SILENCE)
is_so("a silent session ended", ended_sessions() == sessions)
comes("after the silence", b"4", by=one, to=other)
is_so("a session ended after the silence", ended_sessions() == sessions)

# With limits below that, nginx does end them: so the limits above are in force.
nginx.stop()
nginx.configure(server_block(port, backend, 2))
nginx.start()
comes("with short limits", b"5", by=other, to=one)
sessions = ended_sessions()
is_so("nginx keeps no time limits", wait_until(lambda: ended_sessions() > sessions, 30))
nginx.configure(server_block(port, backend, LIMIT))
nginx.reload()
comes("after a reload", b"6", by=one, to=other)

# What waits while nginx is away goes out once it is back, with nobody asking.
nginx.stop()
one.set("while away", b"7")
nginx.start()
came = other.run("wait", "while away", "--timeout", "60s", expect=0).out
is_so("what was set without nginx did not come", came == b"7")
comes("after a restart", b"8", by=other, to=one)

# kvassd away, and nginx there.
serving.terminate()
serving.wait(timeout=30)
words = ""


def is_told():
    global words
    words = one.run("status").out.decode()
    return f"a proxy answers at {url}, and no kvassd behind it" in words


is_so(f"status does not say that kvassd is away: {words!r}", wait_until(is_told, 30))
one.set("without a server", b"9")
serving = serve(backend)
came = other.run("wait", "without a server", "--timeout", "60s", expect=0).out
is_so("what was set without a server did not come", came == b"9")
nginx.stop()
finish(
    "nginx",
    f"{programs.looks} things that are so behind nginx, {mib} MiB from device to device in {taken:.1f} s, a session silent for "
    f"{SILENCE} s beside limits of {LIMIT} s, slowest set on one and wait on another {slowest * 1000:.0f} ms",
)
