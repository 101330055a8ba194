"""See run.sh. Links beside nginx, which has the same bytes as plain files: a large value with curl, and a short one over
connections that stay open with wrk. Client and servers share one machine; what is compared is run in turn."""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys

from programs import WORK, fail, free_port, memory, wait_until
from table import alone, print_table, rate, say, skipped
from website import Site

MB = 1_000_000
size, rounds, seconds = int(sys.argv[1]) * MB, int(sys.argv[2]), int(sys.argv[3])


class Nginx:
    """A web server of files, as Debian sets one up but for its log."""

    def __init__(self):
        self.port, root = free_port(), f"{WORK}/nginx"
        os.makedirs(f"{root}/files")
        os.makedirs(f"{root}/temporary")
        temporary = "".join(f"{kind}_temp_path {root}/temporary/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(f"{root}/nginx.conf", "w") as file:
            file.write(
                f"daemon off; worker_processes auto; pid {root}/pid; error_log {root}/error.log;\n"
                f"{'user root;' if os.getuid() == 0 else ''}\nevents {{ worker_connections 768; }}\n"
                f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; {temporary}\n"
                f"server {{ listen 127.0.0.1:{self.port}; root {root}/files; }} }}\n"
            )
        command = ["nginx", "-p", root, "-e", f"{root}/error.log", "-c", f"{root}/nginx.conf"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if not wait_until(lambda: os.path.exists(f"{root}/pid"), 20):
            fail("nginx did not start")
        self.files = f"{root}/files"

    def add(self, name, value):
        with open(f"{self.files}/{name}", "wb") as file:
            file.write(value)
        return f"http://127.0.0.1:{self.port}/{name}"

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def take(url):
    """Takes a value once; bytes a second."""
    command = ["curl", "--silent", "--fail", "-o", os.devnull, "-w", "%{size_download} %{time_total}", url]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300).stdout.split()
    if int(said[0]) != size:
        fail(f"{url} gave {said[0]} bytes")
    return size / float(said[1])


def load(url):
    """Asks as fast as it goes over open connections; answers a second."""
    command = ["wrk", "-t", "1", "-c", "16", "-d", f"{seconds}s", url]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 60).stdout.decode()
    if "Socket errors" in said or "Non-2xx" in said:
        fail(f"wrk had errors: {said}")
    return float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1])


def in_turn(count, measure, *urls):
    """The median for each URL."""
    figures = [[] for _ in urls]
    for url in urls:
        measure(url)
    for _ in range(count):
        for url, of_url in zip(urls, figures):
            of_url.append(measure(url))
    return [statistics.median(of_url) for of_url in figures]


missing = [tool for tool in ("nginx", "wrk", "curl") if not shutil.which(tool)]
if missing:
    for tool in missing:
        skipped("links", tool)
    print_table("links")
site, nginx = Site("server"), Nginx()
large, short = os.urandom(size), os.urandom(1_000)
site.store.run("set", "large.bin", data=large, expect=0)
site.store.run("set", "short.bin", data=short, expect=0)
os.sync()
say("bench: links: large …")
ours, theirs = in_turn(rounds, take, site.link("large.bin"), nginx.add("large.bin", large))
rate(f"a link to {size // MB} MB, `curl`", ours / MB, "nginx, a plain file", theirs / MB, "MB/s", 1 / 3)
say("bench: links: short …")
ours, theirs = in_turn(max(3, rounds // 5), load, site.link("short.bin"), nginx.add("short.bin", short))
rate("a link to 1 kB, `wrk` over 16 connections", ours, "nginx, a plain file", theirs, "/s", 1 / 4)
peak = memory(site.process.pid, "VmHWM") / 1024
alone("memory of the server, at most", f"{peak:.0f} MiB", "under 64 MiB", peak < 64)
nginx.end()
print_table(f"medians of {rounds} downloads and of {max(3, rounds // 5)} loads of {seconds} s, in turn")
