"""What clients asked a traced daemon for on its local socket, and what it answered and when; see docs/local.md."""

import struct

# By their numbers in proto/kvass/v1/local.proto.
REQUESTS = {
    10: "set", 13: "remove", 18: "set_key", 19: "set_pid", 24: "make_share", 26: "revoke_shares", 27: "set_public_url",
}
DONE = {3: "stored", 5: "removed", 10: "config", 17: "shares", 18: "revoked"}
ERROR = 2
MESSAGE, DATA = 0, 1


def fields(message):
    """The fields of a protobuf message: number and value, in their order."""
    at = 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            yield number, varint()
        elif kind == 2:
            length = varint()
            yield number, message[at : at + length]
            at += length
        else:
            raise ValueError(f"field {number} is of a kind that no message has")


class Request:
    """Something that a client wants to be changed.

    `begin` is where its first bytes came, `received` where its message was whole.
    """

    def __init__(self, name, body, first, last):
        self.name, self.begin, self.received = name, first.start, last.end
        # Whether the value follows in frames of its own.
        self.is_long = False
        self.keys = [value.decode() for number, value in body if number == 1] if name in ("set", "remove") else []
        # The beginning of the value that is to be stored, or the key that is to be in force where the client knows it.
        self.value = next((value for number, value in body if number == (2 if name == "set" else 1)), None)
        # The call that sent the answer and the fields of the answer, once there is one; `done`: it was not an error.
        self.answer, self.said, self.done = None, [], False


class Frames:
    """Frames out of bytes that come in parts."""

    def __init__(self):
        self.bytes = bytearray()

    def add(self, data):
        self.bytes += data
        while len(self.bytes) >= 5:
            length, kind = struct.unpack(">IB", self.bytes[:5])
            if len(self.bytes) < 5 + length:
                return
            yield kind, bytes(self.bytes[5 : 5 + length])
            del self.bytes[: 5 + length]


class Connection:
    def __init__(self):
        self.incoming, self.outgoing, self.request, self.first = Frames(), Frames(), None, None


class Conversations:
    """Follows the calls of a daemon; `requests` are those for changes, in their order."""

    def __init__(self):
        self.connections, self.requests = {}, []

    def begin(self, call):
        """The first line of a call: what it sends counts as said, and what it closes is closed. Returns the request that
        it answers, if it does."""
        if call.result is None and call.name != "close":
            # A kill cut it short, so nobody can tell; what it would have said is not counted as said.
            return None
        if call.name == "close":
            self.connections.pop(call.number(0), None)
        elif call.name in ("sendto", "write", "writev", "sendmsg"):
            connection = self.connections.get(call.number(0))
            if connection:
                return self.send(connection, call)
        return None

    def end(self, call):
        if call.name in ("accept4", "accept") and call.succeeded:
            self.connections.pop(call.result, None)
            if "AF_UNIX" in call.argument(1):
                self.connections[call.result] = Connection()
        elif call.name in ("recvfrom", "read", "recvmsg") and call.succeeded and call.result:
            connection = self.connections.get(call.number(0))
            if connection:
                self.receive(connection, call)

    def receive(self, connection, call):
        connection.first = connection.first or call
        for kind, payload in connection.incoming.add(call.bytes(1)):
            request = connection.request
            if kind == DATA and request and not request.is_long:
                request.value, request.is_long = payload[:200], True
            if kind != MESSAGE or request:
                continue
            for number, value in fields(payload):
                if number in REQUESTS:
                    connection.request = Request(REQUESTS[number], list(fields(value)), connection.first, call)
                    self.requests.append(connection.request)

    def send(self, connection, call):
        for kind, payload in connection.outgoing.add(call.bytes(1)):
            request = connection.request
            if kind == MESSAGE and request and request.answer is None:
                number, said = next(fields(payload))
                if number in DONE or number == ERROR:
                    request.answer, request.said, request.done = call, list(fields(said)), number in DONE
                    return request
        return None
