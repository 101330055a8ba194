"""nginx with TLS, by a certificate of an authority made here, for the proofs that need a real web server."""

import os
import re
import signal
import socket
import subprocess

from programs import WORK, ends_with_this, fail, finish, wait_until


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


def documented(page):
    """The first block for nginx in a page of the repository."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", page)
    with open(path, encoding="utf-8") as file:
        block = re.search(r"```nginx\n(.*?)```", file.read(), re.DOTALL)[1]
    if "127.0.0.1:8000" not in block:
        fail(f"{page} names another port than 8000 in its block for nginx")
    return block


def listen(port):
    """What a server with TLS and HTTP/2 says about its port."""
    # `http2 on` came with 1.25.1, which also warns of the older way.
    words = subprocess.run(["nginx", "-v"], stderr=subprocess.PIPE, check=True).stderr.decode()
    version = tuple(int(part) for part in re.search(r"/(\d+)\.(\d+)\.(\d+)", words).groups())
    if version >= (1, 25, 1):
        return f"listen 127.0.0.1:{port} ssl; http2 on;"
    return f"listen 127.0.0.1:{port} ssl http2;"


class Nginx:
    """An nginx of one worker."""

    log = f"{WORK}/nginx/access.log"

    def __init__(self, port, servers):
        """`servers`: the blocks of its servers, of which one listens on `port`."""
        self.port, self.process = port, None
        os.makedirs(f"{WORK}/nginx/temporary", exist_ok=True)
        self.configure(servers)

    def configure(self, servers):
        """Writes the configuration, for the next start or reload."""
        temporary = "".join(
            f"{kind}_temp_path {WORK}/nginx/temporary/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        with open(f"{WORK}/nginx/nginx.conf", "w", encoding="utf-8") as file:
            file.write(
                f"daemon off; worker_processes 1; pid {WORK}/nginx/pid; error_log {WORK}/nginx/error.log;\n"
                f"{'user root;' if os.getuid() == 0 else ''}\n"
                f"events {{}}\nhttp {{ access_log {self.log}; {temporary}\n{servers}\n}}\n"
            )

    def start(self):
        arguments = ["nginx", "-p", f"{WORK}/nginx", "-e", f"{WORK}/nginx/error.log", "-c", f"{WORK}/nginx/nginx.conf"]
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, preexec_fn=ends_with_this)
        if not wait_until(self.answers, 20):
            with open(f"{WORK}/nginx/error.log", encoding="utf-8") as log:
                fail(f"nginx did not start: {log.read()[-500:]}")
            finish("nginx", "nothing was proved")

    def answers(self):
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def reload(self):
        """New connections have the new configuration; old ones go on with the old one."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
