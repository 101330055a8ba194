"""See qr.sh."""

import os
import struct
import subprocess
import time

from programs import KVASS, WORK, Store, ends_with_this, fail, finish

PATIENCE = 30
BASE = "https://kvass.example.org/from/a/long/path"
seen = 0


def read(picture):
    """What a reader of QR codes finds in a picture; nothing where it finds none."""
    command = ["zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", picture]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().strip()


def is_read(what, picture, text):
    global seen
    seen += 1
    found = read(picture)
    if found != text:
        fail(f"{what}: a reader finds {found!r} and not {text!r}")


def grey(name, width, lines):
    """Writes a picture of grey pixels, a byte each."""
    path = f"{WORK}/{name}.pgm"
    with open(path, "wb") as file:
        file.write(b"P5 %d %d 255\n" % (width, len(lines)) + b"".join(lines))
    return path


class Screen:
    """A display in memory, whose pixels the server keeps in a file."""

    def __init__(self):
        os.mkdir(f"{WORK}/screen")
        out, into = os.pipe()
        arguments = ["-displayfd", str(into), "-screen", "0", "1280x1024x24", "-fbdir", f"{WORK}/screen"]
        command = ["Xvfb", *arguments, "-nolisten", "tcp"]
        self.process = subprocess.Popen(
            command, pass_fds=[into], stderr=subprocess.DEVNULL, preexec_fn=ends_with_this
        )
        os.close(into)
        with os.fdopen(out, "rb") as number:
            self.name = ":" + number.readline().decode().strip()
        if self.name == ":":
            fail("Xvfb does not start")
            finish("qr", "no display")

    def picture(self, name):
        """What the screen shows; the file is as the X11 documentation of XWD says."""
        with open(f"{WORK}/screen/Xvfb_screen0", "rb") as file:
            whole = file.read()
        header = struct.unpack(">25I", whole[:100])
        size, width, height, bits, stride, colors = header[0], header[4], header[5], header[11], header[12], header[19]
        if bits != 32:
            fail(f"the screen has {bits} bits a pixel and not 32")
        at = size + 12 * colors
        # One byte of each pixel: black and white are the same in all.
        return grey(name, width, [whole[at + y * stride :][1 : 4 * width : 4] for y in range(height)])


class Terminal:
    """xterm with a command in it, which stays when that has ended."""

    def __init__(self, screen, store, command, look, variables):
        # In front of the command: xterm hides from it what another terminal has said of its colours.
        words = " ".join(f"'{word}'" for word in ["env", *(f"{name}={value}" for name, value in variables.items()), *command])
        environment = {**store.environment, "DISPLAY": screen.name, "LC_ALL": "C.UTF-8"}
        # At 8 points the blocks of this font leave a line free above them, which only grounds in colour fill.
        font = ["-fa", "DejaVu Sans Mono", "-fs", "12" if variables else "8", "-geometry", "80x30+0+0"]
        shell = ["-e", "sh", "-c", f"{words}; exec sleep 1000"]
        self.process = subprocess.Popen(["xterm", *font, *look, *shell], env=environment, preexec_fn=ends_with_this)

    def end(self):
        self.process.terminate()
        self.process.wait()


LOOKS = {
    "dark": ["-bg", "black", "-fg", "gray90"],
    "light": ["-bg", "white", "-fg", "black"],
    # As some themes do, with the numbers of black and white given to other colours.
    "of odd colours": ["-bg", "navy", "-fg", "yellow"]
    + [part for number in (0, 7, 8, 15) for part in ("-xrm", f"XTerm*color{number}: {'white' if number < 7 else 'black'}")],
}


def on_terminal(screen, store, command, text):
    """Each terminal's window is read until the code is there, or time is over."""
    plain = {"NO_COLOR": "1"}
    cases = [(name, look, {}) for name, look in LOOKS.items()]
    cases += [("dark, without colours", LOOKS["dark"], plain)]
    cases += [("light, without colours", LOOKS["light"], {**plain, "COLORFGBG": "0;15"})]
    for name, look, variables in cases:
        terminal = Terminal(screen, store, [KVASS, "-q", *command], look, variables)
        end = time.monotonic() + PATIENCE
        picture = screen.picture("terminal")
        while read(picture) != text and time.monotonic() < end:
            time.sleep(0.1)
            picture = screen.picture("terminal")
        is_read(f"`kvass {command[0]}` on a terminal that is {name}", picture, text)
        terminal.end()


def as_text(store, text):
    """Off a terminal: half blocks, light on dark."""
    light = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}
    rows = store.run("qr", "wifi", expect=0).out.decode().splitlines()
    lines = []
    for row in rows:
        for half in (0, 1):
            line = b"".join(bytes([light[block][half]]) * 8 for block in row)
            lines += [line] * 8
    is_read("`kvass qr` in a pipe", grey("text", 8 * len(rows[0]), lines), text)


def as_pictures(store, text):
    for name in ("wifi.png", "wifi.svg"):
        store.run("qr", "wifi", "-o", f"{WORK}/{name}", expect=0)
    is_read("the PNG", f"{WORK}/wifi.png", text)
    subprocess.run(["rsvg-convert", "-o", f"{WORK}/drawn.png", f"{WORK}/wifi.svg"], check=True)
    is_read("the SVG", f"{WORK}/drawn.png", text)


store = Store(f"{WORK}/db")
store.set("wifi", b"WIFI:T:WPA;S:home;P:secret;;")
store.run("config", "remote", "127.0.0.1:9", expect=0)
store.run("config", "public-url", BASE, expect=0)
link = store.run("url", "wifi", expect=0).out.decode().strip()
line = store.run("pair", expect=0).out.decode().strip()
if not link.startswith(f"{BASE}/get?q="):
    fail(f"the link is {link!r}")
as_text(store, link)
as_pictures(store, link)
screen = Screen()
on_terminal(screen, store, ["qr", "wifi"], link)
on_terminal(screen, store, ["pair"], line.upper())
store.run("daemon", "stop")
finish("qr", f"{seen} pictures were read")
