"""A Chromium without a window, driven over WebDriver (https://www.w3.org/TR/webdriver2/)."""

import base64
import contextlib
import json
import os
import struct
import subprocess
import urllib.error
import urllib.request
import zlib

from programs import WORK, fail, free_port, wait_until

# No window, no updates, nothing in the background; as root there is no sandbox of the system to be had.
SWITCHES = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=900,650",
]


def picture(png):
    """Width, height and rows of a PNG of 8 bits without interlacing, as a browser makes it (RFC 2083)."""
    width, height, _, colour = struct.unpack(">IIBB", png[16:26])
    size, at, packed = {2: 3, 6: 4}[colour], 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        packed += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    data, stride, before, rows = zlib.decompress(packed), width * size, bytes(width * size), []
    for number in range(height):
        start = number * (stride + 1)
        method, row = data[start], bytearray(data[start + 1 : start + 1 + stride])
        for at in range(stride):
            left, up, corner = (row[at - size], before[at], before[at - size]) if at >= size else (0, before[at], 0)
            if method == 4:
                guess = left + up - corner
                nearest = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
                row[at] = (row[at] + nearest) & 255
            elif method:
                row[at] = (row[at] + (left, up, (left + up) // 2)[method - 1]) & 255
        before = bytes(row)
        rows.append(before)
    return width, height, rows


class Browser:
    """One window."""

    def __init__(self):
        self.port, self.session = free_port(), None
        with open(f"{WORK}/chromedriver.log", "wb") as log:
            self.process = subprocess.Popen(["chromedriver", f"--port={self.port}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.is_ready, 30)
        options = {"binary": os.environ["CHROMIUM"], "args": [*SWITCHES, f"--user-data-dir={WORK}/chromium"]}
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        begun = self.ask("POST", "/session", {"capabilities": wanted})
        self.session = f"/session/{begun['sessionId']}"
        self.ask("POST", "/timeouts", {"pageLoad": 30_000, "script": 30_000})

    def is_ready(self):
        with contextlib.suppress(OSError):
            return self.ask("GET", "/status")["ready"]
        return False

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.session or ''}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            said = json.load(error)["value"]
            fail(f"the browser: {path}: {said['error']}: {said['message'].splitlines()[0]}")
            return None

    def open(self, url):
        self.ask("POST", "/url", {"url": url})

    def title(self):
        return self.ask("GET", "/title")

    def run(self, script):
        """What a script of ours returns, in the window and not in the page's name."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, selector):
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        if found:
            self.ask("POST", f"/element/{next(iter(found.values()))}/click", {})

    def shoot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("GET", "/screenshot")))

    def white(self):
        """Which part of the window is white."""
        width, _, rows = picture(base64.b64decode(self.ask("GET", "/screenshot")))
        white = sum(row[at : at + 3] == b"\xff\xff\xff" for row in rows for at in range(0, len(row), len(row) // width))
        return white / (width * len(rows))

    def end(self):
        self.ask("DELETE", "", None)
        self.process.terminate()
        self.process.wait(20)
