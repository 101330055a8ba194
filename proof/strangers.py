"""What strangers say to a server's port. Each way to begin goes with what is repeated after it, as long as the server
takes it."""

import itertools
import os
import socket
import struct
import threading

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(stream, flags=0x4):
    """The head of a request for a session, without compression."""
    path, kind = b"/kvass.v1.Sync/Session", b"application/grpc"
    fields = b"\x83\x86" + b"\x04" + bytes([len(path)]) + path + b"\x01\x01x"
    fields += b"\x0f\x10" + bytes([len(kind)]) + kind + b"\x00\x02te\x08trailers"
    return frame(0x1, flags, stream, fields)


def message(data, length=None):
    """A gRPC message with one `Frame` in it; it may lie about its length."""
    inner = b"\x0a" + bytes([len(data)]) + data
    return b"\0" + struct.pack(">I", len(inner) if length is None else length) + inner


def openings(account, recorded):
    """All ways: a name, how it begins, and what follows again and again."""
    settings = PREFACE + frame(0x4, 0, 0)
    session = settings + head(1)
    wrong = b"k\x01\x01" + account + os.urandom(48)
    resets = b"".join(head(stream) + frame(0x3, 0, stream, b"\0\0\0\x08") for stream in range(3, 203, 2))
    return [
        ("silence", b"", b""),
        ("half a preface", PREFACE[:13], b""),
        ("half a request", b"GET /healthz HT", b""),
        ("garbage", b"", os.urandom(65536)),
        ("a huge header", b"GET / HTTP/1.1\r\nX: ", b"a" * 65536),
        ("many headers", b"GET / HTTP/1.1\r\n", b"X: aaaaaaaa\r\n" * 4096),
        ("a huge body", b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"a" * 65536),
        ("endless continuation", settings + head(1, 0), frame(0x9, 0, 1, b"a" * 16000) * 4),
        ("empty continuation", settings + head(1, 0), frame(0x9, 0, 1) * 4096),
        ("endless settings", settings, frame(0x4, 0, 0, b"\0\x01\0\0\x10\0" * 16) * 512),
        ("endless pings", settings, frame(0x6, 0, 0, b"pingpong") * 2048),
        ("endless resets", settings, resets * 4),
        ("endless data", session, frame(0x0, 0, 1, b"a" * 16000) * 4),
        ("empty data", session, frame(0x0, 0, 1) * 4096),
        ("a length of 4 GiB", session + frame(0x0, 0, 1, message(wrong, 0xFFFFFFFF)), frame(0x0, 0, 1, b"a" * 16000) * 4),
        ("a length of 60 KB", session + frame(0x0, 0, 1, message(wrong, 60000)), frame(0x0, 0, 1, b"a")),
        ("a wrong key", session + frame(0x0, 0, 1, message(wrong)), b""),
        ("a wrong key, and much more", session + frame(0x0, 0, 1, message(wrong)), frame(0x0, 0, 1, b"a" * 16000) * 4),
        ("a recording", recorded, b""),
        ("a recording, and much more", recorded, frame(0x0, 0, 1, b"a" * 16000) * 4),
    ]


class Recorder:
    """Stands between one device and the server, and keeps what the device says first."""

    def __init__(self, address):
        self.address, self.heard = address, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            device = self.listener.accept()[0]
            server = socket.create_connection(self.address)
            heard = bytearray()
            threading.Thread(target=self._carry, args=(server, device, None), daemon=True).start()
            self._carry(device, server, heard)
            self.heard = max(self.heard, bytes(heard[:4096]), key=len)

    @staticmethod
    def _carry(source, target, heard):
        try:
            while data := source.recv(65536):
                if heard is not None:
                    heard += data
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            end.close()


class Strangers:
    """Opens connections from many addresses and holds them, until enough were opened and enough was said."""

    THREADS = 8

    def __init__(self, address, ways, connections, bytes_in_all):
        self.address, self.ways = address, ways
        self.connections, self.bytes_in_all = connections, bytes_in_all
        self.opened, self.said, self.held = itertools.count(), [0] * self.THREADS, [[] for _ in range(self.THREADS)]
        self.refused, self.stop = 0, threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self.THREADS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def is_busy(self):
        return any(thread.is_alive() for thread in self.threads)

    def count(self):
        return sum(len(held) for held in self.held)

    def _run(self, number):
        while not self.stop.is_set():
            turn = next(self.opened)
            if turn >= self.connections and sum(self.said) >= self.bytes_in_all:
                return
            _, beginning, rest = self.ways[turn % len(self.ways)]
            connection = socket.socket()
            connection.settimeout(5)
            try:
                connection.bind((f"127.0.0.{2 + turn % 200}", 0))
                connection.connect(self.address)
                self._say(number, connection, beginning)
                for _ in range(16 if rest else 0):
                    self._say(number, connection, rest)
            except OSError:
                # It was shown out; what it has said so far counts.
                pass
            self.held[number].append(connection)
            # So many at once are held; what comes later takes the place of what the server has closed by then.
            if len(self.held[number]) > self.connections // self.THREADS:
                self.held[number].pop(0).close()

    def _say(self, number, connection, data):
        view = memoryview(data)
        while view:
            sent = connection.send(view)
            self.said[number] += sent
            view = view[sent:]

    def close(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        for held in self.held:
            for connection in held:
                connection.close()
