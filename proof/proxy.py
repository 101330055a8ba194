"""A TCP proxy that does to a connection what networks, and those who meddle with them, do.

It runs in a thread of its own. What it does to each direction of each connection follows from the seed, so a seed
replays as far as the bytes come in the same pieces.
"""

import asyncio
import random
import socket
import struct
import threading

# The most bytes that are taken from one side at once.
SEGMENT = 16 * 1024

# What may happen to a segment, and how often next to the others.
FAULTS = {
    "delay": 10, "hold": 2, "cut": 3, "reset": 3, "flip": 3, "duplicate": 2, "truncate": 2, "reorder": 2, "drip": 3,
}


class Network:
    """The loop that all proxies run in, and the count of what they have done."""

    def __init__(self):
        self.counts, self.calm = {}, False
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)


class Proxy:
    """The way of one device to the server: a port that moves, and a target that may change under it."""

    def __init__(self, network, seed, port=0):
        self.network, self.chance, self.target = network, random.Random(seed), port
        self.is_cut, self.is_hole, self.live = False, False, set()
        self.listener = self.port = None
        self.move()

    def move(self):
        """Listens on another port. Connections through the old one live on."""
        self.network.call(self._listen())

    async def _listen(self):
        if self.listener:
            self.listener.close()
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=SEGMENT)
        self.port = self.listener.sockets[0].getsockname()[1]

    def cut(self):
        """No connection passes until `mend`, and those that there are end."""
        self.is_cut = True
        self.network.loop.call_soon_threadsafe(self._end_all)

    def swallow(self):
        """Bytes are taken and go nowhere until `mend`: a black hole."""
        self.is_hole = True

    def mend(self):
        self.is_cut = self.is_hole = False

    def _end_all(self):
        for writer in list(self.live):
            self.network.count("cut")
            writer.transport.abort()

    async def _accept(self, reader, writer):
        if self.is_cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target, limit=SEGMENT)
        except OSError:
            writer.transport.abort()
            return
        self.network.count("connection")
        self.live |= {writer, back}
        # Some connections are good, else nothing large would ever arrive.
        faults = 0 if self.chance.random() < 0.3 else self.chance.choice((0.002, 0.02, 0.1))
        ways = [self._carry(reader, back, writer, faults), self._carry(there, writer, back, faults)]
        await asyncio.gather(*ways, return_exceptions=True)
        self.live -= {writer, back}
        for end in (writer, back):
            end.transport.abort()

    async def _carry(self, reader, writer, other, faults):
        """Carries one direction to its end, with faults in it."""
        while data := await reader.read(SEGMENT):
            while self.is_hole and not self.network.calm:
                await asyncio.sleep(0.05)
            if not self.network.calm and self.chance.random() < faults:
                data = await self._meddle(data, reader, writer, other)
                if data is None:
                    return
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _meddle(self, data, reader, writer, other):
        """Does one thing to a segment. `None`: the connection is gone."""
        fault = self.chance.choices(list(FAULTS), FAULTS.values())[0]
        self.network.count(fault)
        at = self.chance.randrange(len(data))
        if fault == "delay":
            await asyncio.sleep(self.chance.uniform(0.01, 2) ** 2 / 2)
        elif fault == "hold":
            await asyncio.sleep(self.chance.uniform(1, 5))
            return data if self.chance.random() < 0.5 else self._end(writer, other)
        elif fault in ("cut", "reset"):
            # In the middle of what is on its way.
            writer.write(data[:at])
            await asyncio.sleep(0)
            return self._end(writer, other, fault == "reset")
        elif fault == "flip":
            return data[:at] + bytes([data[at] ^ 1 << self.chance.randrange(8)]) + data[at + 1 :]
        elif fault == "duplicate":
            return data + data[at:] if self.chance.random() < 0.5 else data + data
        elif fault == "truncate":
            return data[:at]
        elif fault == "reorder":
            try:
                later = await asyncio.wait_for(reader.read(SEGMENT), 0.5)
            except asyncio.TimeoutError:
                later = b""
            return later + data if later else data[at:] + data[:at]
        elif fault == "drip":
            for start in range(0, len(data), 700):
                writer.write(data[start : start + 700])
                await writer.drain()
                await asyncio.sleep(0.001)
            return b""
        return data

    def _end(self, writer, other, is_reset=False):
        for end in (writer, other):
            if is_reset:
                held = end.get_extra_info("socket")
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.transport.abort()
            else:
                end.close()
