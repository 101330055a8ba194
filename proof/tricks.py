"""See tricks.sh."""

import os
import re
import socket
import struct
import threading
import time
import zlib

import programs
from programs import WORK, Store, finish, is_so, memory, wait_until
from strangers import PREFACE, frame
from website import Site

VALUE, OTHER = b"what the link leads to", b"what another link leads to"
LARGE = 16 << 20
MAY_GROW, DOWNLOADS_MAY_TAKE = 24 << 10, 80 << 10

notes = []


def connect(source="127.0.0.1", receive=None):
    connection = socket.socket()
    if receive:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    connection.settimeout(60)
    connection.bind((source, 0))
    connection.connect(("127.0.0.1", site.port))
    return connection


def hear(connection):
    """Everything until the other side ends."""
    heard = b""
    try:
        while part := connection.recv(65536):
            heard += part
    except OSError:
        # The other side broke off, or a guest's time is over while nothing comes.
        pass
    return heard


def say(words, source="127.0.0.1"):
    """All that is answered to these words, when nothing comes after them."""
    with connect(source) as connection:
        try:
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            # It was shown out already; what was answered can still be read.
            pass
        return hear(connection)


def request(target, *lines, method="GET", host="server", source="127.0.0.1"):
    head = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host else []), "Connection: close", *lines]
    # On a machine that is busy a guest's time may be over before it is answered.
    return next((heard for _ in range(5) if (heard := say("\r\n".join([*head, "", ""]).encode(), source))), b"")


def statuses(heard):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]


def without_date(heard):
    return re.sub(rb"\r\ndate: [^\r]*", b"", heard)


# Paths and hosts


def paths_say_one_thing():
    for target in (
        f"/get/../get?q={token}",
        f"/x/../get?q={token}",
        f"//get?q={token}",
        f"/./get?q={token}",
        f"/get/?q={token}",
        f"/get/.?q={token}",
        f"/%67et?q={token}",
        f"/get%3Fq={token}",
        f"/get%2F?q={token}",
        f"/%2e/get?q={token}",
        f"/get;v=1?q={token}",
        f"\\get?q={token}",
        f"get?q={token}",
        f"/get?q={token}%00",
        f"/get?q={token}/../x",
        f"/get?q=%{ord(token[0]):x}{token[1:]}",
        f"/get?x=&amp;q={token}",
        f"/get#?q={token}",
        f"/get?{token}",
        f"/get?r=q={token}",
        "*",
    ):
        heard = request(target)
        is_so(f"{target} gave {heard!r}", VALUE not in heard and statuses(heard) in ([404], [400], []))
    # The first token counts, and no link gives the value of another.
    is_so("q twice", (both := request(f"/get?q={token}&q={other}")).endswith(VALUE) and OTHER not in both)
    is_so("q after what is none", request(f"/get?q=&q=x&q={token}").endswith(VALUE))
    # Who is asked for changes nothing, and is said nowhere.
    for host, lines in ((None, ()), ("evil.example", ()), ("evil.example", ("Host: other.example",)), ("a b<script>", ())):
        for target in (f"/get?q={token}", f"http://evil.example/get?q={token}", "/nowhere<script>", "/get?q=<script>"):
            heard = request(target, *lines, "X-Forwarded-Host: evil.example", host=host)
            is_so(f"{target} for {host}: {heard!r}", b"evil.example" not in heard and b"<script>" not in heard)
            is_so(f"{target} for {host} gave more than one answer", len(statuses(heard)) <= 1)
    heard = request("example.org:443", method="CONNECT") + request(f"http://127.0.0.1:{site.port}/get?q=", method="GET")
    is_so(f"it is no proxy: {heard!r}", set(statuses(heard)) <= {400, 404, 405, 501})
    for method in ("TRACE", "OPTIONS", "PUT", "DELETE", "PATCH", "PROPFIND", "get", "G\x00T"):
        heard = request(f"/get?q={token}", "X-Secret: echo", method=method)
        is_so(f"{method}: {heard!r}", VALUE not in heard and b"X-Secret" not in heard and b"echo" not in heard)


def lengths_say_one_thing():
    """Of a request that can be read in two ways, at most one answer comes, and what hides in it is not asked."""
    hidden = b"GET /healthz HTTP/1.1\r\nHost: server\r\n\r\n"
    chunked = b"0\r\n\r\n" + hidden
    for lines in (
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chun\r\n ked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n",
        b"\x00: x\r\nContent-Length: 5\r\n",
    ):
        heard = say(b"POST /get?q=none HTTP/1.1\r\nHost: server\r\n" + lines + b"\r\n" + chunked)
        is_so(f"{lines!r} hid a request: {heard!r}", len(statuses(heard)) <= 1 and b"ok\n" not in heard)
    for chunk in (b"FFFFFFFFFFFFFFFF\r\n", b"10000000000000000\r\n", b"-1\r\n", b"5;" + b"x" * 20_000 + b"\r\n", b"0x5\r\n"):
        heard = say(b"POST /nowhere HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + hidden)
        is_so(f"{chunk[:20]!r} hid a request", len(statuses(heard)) <= 1 and b"ok\n" not in heard)
    for words in (b"GET / HTTP/0.9\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n", b"GET /healthz\r\n", b"\r\n" * 9_000, b"\0" * 20_000):
        is_so(f"{words[:20]!r}", b"ok\n" not in say(words))


# Names that would be headers


KNOWN = {
    "content-type", "content-disposition", "content-security-policy", "content-length", "etag", "accept-ranges",
    "cache-control", "x-content-type-options", "referrer-policy", "x-robots-tag", "x-dns-prefetch-control", "date",
    "connection",
}  # fmt: skip


def names_are_no_headers():
    for name in ("a\r\nSet-Cookie: x=y", "a\nb", "a\rb", "tab\t", "\x7f", "\x1b[2J", "x" * 1_025, ""):
        ended = site.store.run("set", name, data=b"x")
        is_so(f"a key of {name[:20]!r}", ended.code == 2)
    for name in (
        'x"; filename="evil.exe',
        "a; filename*=UTF-8''evil.exe",
        "a%0d%0aSet-Cookie: x=y",
        "a\u2028Set-Cookie: x=y",
        "a\u0085Set-Cookie: x=y",
        "cod\u202efdp.exe",
        "\u2066a\u2069\ufeff",
        "é" * 512,
        "👋" * 256,
        '"' * 1_024,
        "\\" * 1_024,
        "../" * 300 + "etc/passwd",
        "<script>alert(1)</script>.html",
        "page.html\u200b",
        "CON",
        "~/.bashrc",
        "desktop.ini",
    ):
        ended = site.store.run("set", "--", name, data=VALUE)
        if not is_so(f"{name[:20]!r} can be no key: {ended.words()}", ended.code == 0 or "\u0085" in name):
            continue
        if ended.code != 0:
            continue
        heard = request(site.path(site.store.run("url", "--", name, expect=0).out.decode().strip()))
        head = heard.split(b"\r\n\r\n")[0]
        lines = head.split(b"\r\n")[1:]
        names = [line.split(b":")[0].decode("latin-1").lower() for line in lines]
        is_so(f"{name[:20]!r} gave {names}", set(names) <= KNOWN and len(names) == len(set(names)))
        is_so(f"{name[:20]!r} is in the head as it is", re.fullmatch(rb"[ -~\r\n]*", head) and len(head) < 6_000)
        found = re.search(rb'content-disposition: (inline|attachment); filename="([^"\\/]*)"(; filename\*=UTF-8\'\'[\w%.~!#$&+^`|-]*)?\r\n', head + b"\r\n")
        is_so(f"{name[:20]!r}: {head}", found and not found[2].startswith(b"."))


# HTTP/2 and gRPC


def literal(name, value):
    return b"\x00" + integer(len(name)) + name + integer(len(value)) + value


def integer(number):
    """A length of HPACK, with seven bits in its first byte."""
    if number < 127:
        return bytes([number])
    rest, out = number - 127, b"\x7f"
    while rest >= 128:
        out += bytes([rest % 128 + 128])
        rest //= 128
    return out + bytes([rest])


def head2(*fields, flags=0x5, stream=1):
    return frame(0x1, flags, stream, b"".join(literal(name, value) for name, value in fields))


def over_2(*frames):
    return say(PREFACE + frame(0x4, 0, 0) + b"".join(frames))


def is_served_over_2(*frames):
    """Whether the value comes. HTTP/2 answers only as long as the other side may still say something."""
    heard = b""
    try:
        with connect() as connection:
            connection.sendall(PREFACE + frame(0x4, 0, 0) + b"".join(frames))
            while VALUE not in heard and (part := connection.recv(65536)):
                heard += part
    except OSError:
        return False
    return VALUE in heard


def http_2_says_one_thing():
    path = f"/get?q={token}".encode()
    right = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"server"), (b":path", path)]
    is_so("over HTTP/2 it is the same", any(is_served_over_2(head2(*right)) for _ in range(5)))
    for wrong in (
        [*right, (b":path", b"/healthz")],
        [*right[:3]],
        [*right[1:]],
        [*right, (b":status", b"200")],
        [*right, (b":unknown", b"x")],
        [(b"x", b"y"), *right],
        [*right, (b"X-Upper", b"y")],
        [*right, (b"connection", b"close")],
        [*right, (b"transfer-encoding", b"chunked")],
        [*right, (b"x\r\ny", b"z")],
        [*right, (b"x", b"a\r\nb: c")],
        [*right, (b"x", b"\0")],
        [*right, (b"content-length", b"5")],
        [*right[:3], (b":path", b"get?q=" + token.encode())],
        [*right[:3], (b":path", b"")],
        [*right[:3], (b":path", b"http://server" + path)],
        [*right[:3], (b":path", path + b" x")],
    ):
        heard = over_2(head2(*wrong))
        is_so(f"{wrong[-1]} gave the value", VALUE not in heard)
    for frames in (
        frame(0x1, 0x5, 2, b"\x82"),
        frame(0x1, 0x5, 0, b"\x82"),
        frame(0x5, 0x4, 1, b"\0\0\0\x02\x82"),
        frame(0x8, 0, 0, b"\x7f\xff\xff\xff") * 3,
        frame(0x8, 0, 0, b"\0\0\0\0"),
        frame(0x2, 0, 1, b"\0\0\0\x01\xff"),
        frame(0x0, 0x8, 1, b"\xff"),
        b"\xff\xff\xff\0\0\0\0\0\x01",
        frame(0x1, 0x5, 1, b"\x3f\xff\xff\xff\xff\xff\xff"),
        frame(0x1, 0x5, 1, b"\xff\xff\xff\xff\xff\xff"),
        head2(*right, *[(b"x", b"y" * 4_000)] * 3),
        # One table entry of 4 KiB, named again and again: 4 MB of head in 16 KiB.
        frame(0x1, 0x5, 1, b"\x40\x01x" + integer(3_900) + b"y" * 3_900 + b"\xbe" * 12_000),
    ):
        is_so(f"{frames[:20]!r} was served", VALUE not in over_2(frames))


def what_unpacks_or_nests_is_not_unpacked():
    """Messages of gRPC that say they are compressed, nest without end, or lie about their length."""
    call = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"s"), (b":path", b"/kvass.v1.Sync/Session"), (b"te", b"trailers"), (b"content-type", b"application/grpc")]
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = bomb.compress(bytes(8 << 20)) + bomb.flush()
    groups, nested = b"\x0b" * 12_000, b""
    for _ in range(2_000):
        nested = b"\x0a" + varint(len(nested)) + nested
    before = memory(site.process.pid, "VmHWM")
    for compressed, data in ((1, bomb), (1, b"x"), (0, groups), (0, nested), (0, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), (0, b"\xff" * 12_000), (2, b"x")):
        for more in ([], [(b"grpc-encoding", b"gzip")], [(b"grpc-encoding", b"zstd"), (b"grpc-timeout", b"99999999H")]):
            data = data[:14_000]
            message = bytes([compressed]) + struct.pack(">I", len(data)) + data
            frames = [frame(0x0, 0, 1, message[at : at + 16_000]) for at in range(0, len(message), 16_000)]
            heard = over_2(head2(*call, *more, flags=0x4), *frames)
            is_so(f"a message of {len(data)} bytes was taken", b"grpc-status: 0" not in heard)
    for kind in (b"application/grpc+json", b"application/grpc-web", b"application/grpc;x=" + b"y" * 4_000):
        over_2(head2(*call[:-1], (b"content-type", kind), flags=0x4), frame(0x0, 1, 1, b"\0\0\0\0\0"))
    grew = memory(site.process.pid, "VmHWM") - before
    is_so(f"messages of 16 KiB made the server grow by {grew} KiB", grew < 8 << 10)


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


# Who is slow, guesses, or takes too much


def who_is_slow_goes():
    """Each says a byte now and then and reads nothing; the server ends all of them."""
    settings = PREFACE + frame(0x4, 0, 0)
    beginnings = {
        "nothing": (b"", b""),
        "a request line": (b"GET /", b"a"),
        "a head": (b"GET / HTTP/1.1\r\nX: ", b"a"),
        "lines": (b"GET / HTTP/1.1\r\n", b"X: a\r\n"),
        "a body": (b"POST /nowhere HTTP/1.1\r\nHost: s\r\nContent-Length: 9999\r\n\r\n", b"a"),
        "chunks": (b"POST /nowhere HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        "requests": (b"", b"GET /healthz HTTP/1.1\r\nHost: s\r\n\r\n"),
        "a preface": (PREFACE[:5], b""),
        "pings": (settings, frame(0x6, 0, 0, b"pingpong")),
        "a head in parts": (settings + frame(0x1, 0, 1, b"\x82"), frame(0x9, 0, 1, b"\x86")),
    }
    left = set(beginnings)

    def be_slow(name, beginning, drop):
        with connect("127.0.0.77") as connection:
            ended = threading.Event()

            def listen():
                hear(connection)
                ended.set()

            threading.Thread(target=listen, daemon=True).start()
            try:
                connection.sendall(beginning)
                while not ended.wait(0.3):
                    connection.sendall(drop)
            except OSError:
                pass
            if ended.wait(60):
                left.discard(name)

    slow = [threading.Thread(target=be_slow, args=(name, *words), daemon=True) for name, words in beginnings.items()]
    for one in slow:
        one.start()
    for one in slow:
        one.join(60)
    is_so(f"never sent away: {left}", not left)


def links_cannot_be_guessed():
    """All that is not there is the same to whoever asks, and who asks much is told to wait; what is there comes."""
    source = "127.0.0.50"
    unlike = {without_date(request(f"/get?q={guess}", source=source)) for guess in ("0" * 26, "1" * 26, "x", "", token[:-1])}
    is_so(f"what is not there differs: {unlike}", len(unlike) == 1 and statuses(*unlike) == [404])
    start = time.monotonic()
    heard = [statuses(request(f"/get?q={number:026}", source=source)) for number in range(60)]
    # 30 at once, and one more every two seconds.
    most = 30 + (time.monotonic() - start) / 2 + 1
    right = all(status in ([404], [429], []) for status in heard) and [429] in heard
    is_so(f"60 guesses: {heard}", right and heard.count([404]) <= most)
    is_so("what is there is held back", request(f"/get?q={token}", source=source).endswith(VALUE))
    is_so("another address waits as well", statuses(request("/get?q=x", source="127.0.0.51")) == [404])
    # Each time for somebody else, who would have guesses left.
    said = (request("/get?q=x", f"X-Forwarded-For: 192.0.2.{n}", f"Forwarded: for=192.0.2.{n}", source=source) for n in range(40))
    is_so("it is believed for whom it asks", any(statuses(heard) == [429] for heard in said))


def begin(path, source):
    """Asks for a value and reads no more than how the answer begins; the connection, and that."""
    answer = b""
    for _ in range(5):
        connection = connect(source, receive=4_096)
        try:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: s\r\n\r\n".encode())
            answer = connection.recv(12)
        except OSError:
            pass
        if answer:
            break
        connection.close()
    return connection, answer


def has_place(path, source):
    connection, answer = begin(path, source)
    connection.close()
    return answer == b"HTTP/1.1 200"


def downloads_have_places():
    """256 large values at once, and to one address half of them."""
    path, start = site.path(site.link("large")), time.monotonic()
    taken = [begin(path, source) for source in ["127.0.0.60"] * 129 + ["127.0.0.61"] * 128 + ["127.0.0.62"]]
    answers = [answer for _, answer in taken]
    if time.monotonic() - start > 40:
        # Who takes nothing for so long loses its place.
        notes.append("without the places of downloads, which this machine is too slow to take")
    else:
        is_so(f"one address: {answers[126:129]}", answers[:129] == [b"HTTP/1.1 200"] * 128 + [b"HTTP/1.1 503"])
        is_so("another address has the rest", answers[129:-1] == [b"HTTP/1.1 200"] * 128)
        is_so("a third one waits", answers[-1] == b"HTTP/1.1 503")
    is_so("a short value comes", request(f"/get?q={token}", source="127.0.0.60").endswith(VALUE))
    for connection, _ in taken:
        connection.close()
    is_so("places come back", wait_until(lambda: has_place(path, "127.0.0.62"), 60))


# Links that end


def pages_say_why():
    site.store.run("set", "pinned", data=b"one", expect=0)
    pinned = site.path(site.link("pinned", "--pin"))
    site.store.run("set", "pinned", data=b"two", expect=0)
    heard = request(pinned)
    is_so(f"a pinned link after a set: {heard!r}", statuses(heard) == [410] and b"replaced" in heard)
    known = site.path(site.link("pinned", "--pin"))
    # A removal revokes the links that are known; this one is made on a device that does not hear of the removal.
    device, address = Store(f"{WORK}/device"), f"127.0.0.1:{site.port}"
    device.run("config", "key", "-", data=site.store.key().encode(), expect=0)
    device.run("config", "remote", address, expect=0)
    device.run("sync", "--timeout", "60s", expect=0)
    device.run("config", "public-url", f"http://{address}", expect=0)
    device.run("config", "remote", "", expect=0)
    unknown = site.path(device.run("url", "pinned", "--pin", expect=0).out.decode().strip())
    site.store.run("rm", "pinned", expect=0)
    heard = request(known)
    is_so(f"a link after a removal: {heard!r}", statuses(heard) == [410] and b"was revoked" in heard)
    device.run("config", "remote", address, expect=0)
    device.run("sync", "--timeout", "60s", expect=0)
    heard = request(unknown)
    is_so(f"a link of a device away after it: {heard!r}", statuses(heard) == [410] and b"was removed" in heard)
    device.stop()


def a_read_that_cannot_be_counted_is_not_given():
    site.store.run("set", "once", data=VALUE, expect=0)
    path = site.path(site.link("once", "--reads", "1"))
    site.stop()
    site.store.environment["KVASS_RESERVE"] = "1000000G"
    site.start()
    heard = request(path, "Content-Length: 0", method="POST")
    is_so(f"a read that cannot be counted: {heard!r}", statuses(heard) == [503] and VALUE not in heard)
    site.stop()
    del site.store.environment["KVASS_RESERVE"]
    site.start()
    heard = request(path, "Content-Length: 0", method="POST")
    is_so(f"the read that was left: {heard!r}", heard.endswith(VALUE))
    is_so("once more", statuses(request(path, "Content-Length: 0", method="POST")) == [410])


site = Site("server")
for name, data in (("note", VALUE), ("other", OTHER), ("large", os.urandom(LARGE))):
    site.store.run("set", name, data=data, expect=0)
token, other = (site.path(site.link(name)).split("q=")[1] for name in ("note", "other"))
is_so("the value", request(f"/get?q={token}").endswith(VALUE))
before = memory(site.process.pid, "RssAnon")
paths_say_one_thing()
lengths_say_one_thing()
names_are_no_headers()
http_2_says_one_thing()
what_unpacks_or_nests_is_not_unpacked()
links_cannot_be_guessed()
who_is_slow_goes()
grew = memory(site.process.pid, "RssAnon") - before
is_so(f"the server grew by {grew} KiB", grew < MAY_GROW)
peak = memory(site.process.pid, "VmHWM")
downloads_have_places()
pages_say_why()
is_so("the server ended", site.process.poll() is None)
taken = memory(site.process.pid, "VmHWM") - peak
is_so(f"downloads took {taken} KiB", taken < DOWNLOADS_MAY_TAKE)
a_read_that_cannot_be_counted_is_not_given()
site.stop()
with open(f"{WORK}/server.log", "rb") as log:
    said = log.read()
is_so(f"{len(said)} bytes of log", len(said) < 16 << 10)
is_so("a token is in the log", token.encode() not in said and other.encode() not in said)
figures = f"{programs.looks} things that are so; the server grew by {grew / 1024:.1f} MiB and logged {len(said)} bytes"
finish("tricks", ", ".join([figures, *notes]))
