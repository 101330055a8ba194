"""See https.sh."""

import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

from programs import WORK, Store, fail, finish, wait_until

mib = int(sys.argv[1])
chance = random.Random()
README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "README.md")
steps, slowest = 0, 0.0


def is_so(what, condition):
    global steps
    steps += 1
    if not condition:
        fail(what)


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], cwd=WORK, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certify():
    """Makes an authority, and a certificate of it for localhost."""
    with open(f"{WORK}/names", "w", encoding="ascii") as names:
        names.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=kvass proof")
    openssl("req", *curve, "-keyout", "site.key", "-out", "site.csr", "-subj", "/CN=localhost")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
    openssl("x509", "-req", "-in", "site.csr", *signed, "-out", "site.pem")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ends_with_this():
    """Makes the kernel end a child with this process, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Nginx:
    """A web server on two ports: one that passes to kvassd as README.md says, and one that is a web server alone."""

    def __init__(self, backend):
        self.port, self.plain, self.process = free_port(), free_port(), None
        os.makedirs(f"{WORK}/nginx/temporary", exist_ok=True)
        with open(f"{WORK}/nginx/nginx.conf", "w", encoding="utf-8") as file:
            file.write(self.configuration(backend))

    def configuration(self, backend):
        with open(README, encoding="utf-8") as file:
            block = re.search(r"```nginx\n(.*?)```", file.read(), re.DOTALL)[1]
        if "127.0.0.1:8000" not in block:
            fail("README.md names another port than 8000 in its block for nginx")
        temporary = "".join(
            f"{kind}_temp_path {WORK}/nginx/temporary/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        tls = f"ssl_certificate {WORK}/site.pem; ssl_certificate_key {WORK}/site.key; server_name localhost;"
        return (
            f"daemon off; worker_processes 1; pid {WORK}/nginx/pid; error_log {WORK}/nginx/error.log;\n"
            f"{'user root;' if os.getuid() == 0 else ''}\n"
            f"events {{}}\nhttp {{ access_log off; {temporary}\n"
            f"server {{ {self.listen(self.port)} {tls}\n{block.replace('127.0.0.1:8000', backend)}}}\n"
            f"server {{ {self.listen(self.plain)} {tls} location / {{ return 200 hello; }} }}\n}}\n"
        )

    @staticmethod
    def listen(port):
        # `http2 on` came with 1.25.1, which also warns of the older way.
        words = subprocess.run(["nginx", "-v"], stderr=subprocess.PIPE, check=True).stderr.decode()
        version = tuple(int(part) for part in re.search(r"/(\d+)\.(\d+)\.(\d+)", words).groups())
        if version >= (1, 25, 1):
            return f"listen 127.0.0.1:{port} ssl; http2 on;"
        return f"listen 127.0.0.1:{port} ssl http2;"

    def start(self):
        arguments = ["nginx", "-p", f"{WORK}/nginx", "-e", f"{WORK}/nginx/error.log", "-c", f"{WORK}/nginx/nginx.conf"]
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, preexec_fn=ends_with_this)
        if not wait_until(self.answers, 20):
            with open(f"{WORK}/nginx/error.log", encoding="utf-8") as log:
                fail(f"nginx did not start: {log.read()[-500:]}")
            finish("https", "nothing was proved")

    def answers(self):
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


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
nginx = Nginx(json.loads(server.run("status", "--json", expect=0).out)["bind"])
nginx.start()
url = f"https://localhost:{nginx.port}"
key = re.search(rb"^Encryption Key: (\S+)", server.run("config", "show", expect=0).out, re.MULTILINE)[1].decode()
for store in (device, stranger):
    store.run("config", "key", key, expect=0)

words = found(stranger, url)
is_so(f"an authority that nobody knows is taken, or not named: {words!r}", "certificate" in words and "KVASS_CA" in words)
words = found(device, f"https://localhost:{nginx.plain}")
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
    f"{steps} things that are so behind nginx, {mib} MiB there in {taken:.1f} s, slowest set on one and wait on another "
    f"{slowest * 1000:.0f} ms",
)
