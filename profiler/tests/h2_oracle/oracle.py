"""Header blocks and whole connections by the reference libraries `hpack` and `h2`.

In: a mode, a seed and a count. Out: one JSON document per line.
"""

import json
import random
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hpack.struct import HeaderTuple, NeverIndexedHeaderTuple

OTHERS = ["cookie", "authorization", "accept", "x-forwarded-for", "grpc-accept-encoding", "x-" + "n" * 40, "via"]
METHODS = ["GET", "POST", "PUT", "HEAD", "OPTIONS"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_.~/ "


def text(rng, most):
    size = rng.choice([0, 1, 3, 10, 30, most])
    plain = "".join(rng.choice(LETTERS) for _ in range(size)).strip()
    return plain or "v"


def odd(rng, most):
    """Values with octets that have long codes."""
    return "".join(chr(rng.choice(list(range(33, 127)))) for _ in range(rng.randrange(1, most)))


def request(rng, pool):
    """A request's fields; values repeat, so that tables matter."""
    fields = [
        (":method", rng.choice(METHODS)),
        (":scheme", rng.choice(["http", "https"])),
        (":path", "/" + rng.choice(pool)),
        (":authority", rng.choice(pool) + ".example"),
    ]
    rng.shuffle(fields)
    rest = []
    for name in ["user-agent", "x-request-id", "content-type"]:
        if rng.random() < 0.6:
            rest.append((name, rng.choice(pool)))
    if rng.random() < 0.3:
        rest.append(("content-length", str(rng.randrange(10**6))))
    for _ in range(rng.randrange(0, 6)):
        rest.append((rng.choice(OTHERS), rng.choice(pool) if rng.random() < 0.7 else odd(rng, 200)))
    rng.shuffle(rest)
    return fields + rest


def blocks(rng, count):
    """One encoder's blocks in a row, with size updates, evictions and fields that are never indexed."""
    encoder = Encoder()
    pool = [text(rng, 60) for _ in range(30)] + [text(rng, 1500)]
    for _ in range(count):
        if rng.random() < 0.05:
            encoder.header_table_size = rng.choice([0, 40, 100, 300, 1000, 4096])
        if rng.random() < 0.1:
            pool[rng.randrange(len(pool))] = text(rng, 60)
        fields = request(rng, pool)
        tuples = [
            (NeverIndexedHeaderTuple if rng.random() < 0.1 else HeaderTuple)(name, value) for name, value in fields
        ]
        block = encoder.encode(tuples, huffman=rng.random() < 0.6)
        print(json.dumps({"block": block.hex(), "fields": fields}))


def hostile(rng, count):
    """Blocks that were tampered with, and whether the reference takes them."""
    for _ in range(count):
        encoder, decoder = Encoder(), Decoder()
        pool = [text(rng, 40) for _ in range(4)]
        parts = []
        for _ in range(rng.randrange(1, 4)):
            block = bytearray(encoder.encode(request(rng, pool), huffman=rng.random() < 0.7))
            for _ in range(rng.randrange(0, 3)):
                at = rng.randrange(len(block))
                kind = rng.randrange(4)
                if kind == 0:
                    block[at] = rng.randrange(256)
                elif kind == 1:
                    block[at] ^= 1 << rng.randrange(8)
                elif kind == 2:
                    del block[at]
                else:
                    block.insert(at, rng.randrange(256))
                if not block:
                    block = bytearray(b"\x82")
            parts.append(bytes(block))
        answers = []
        for block in parts:
            try:
                fields = decoder.decode(block, raw=True)
                answers.append([[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields])
            except HPACKError as error:
                answers.append(f"{type(error).__name__}: {error}")
                break
            except Exception as error:  # noqa: BLE001: the reference itself has gone astray
                answers.append(f"astray: {error!r}")
                break
        print(json.dumps({"blocks": [part.hex() for part in parts], "answers": answers}))


class Session:
    """A client and a server of `h2`, and the bytes between them."""

    def __init__(self, rng):
        self.rng = rng
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.sent = []
        self.streams = {}
        self.limits = {self.client: 0, self.server: 0}

    def move(self):
        """Bytes go both ways until there are none."""
        while True:
            up, down = self.client.data_to_send(), self.server.data_to_send()
            if not up and not down:
                return
            if up:
                self.sent.append(["request", up.hex()])
                self.take(self.server, up)
            if down:
                self.sent.append(["response", down.hex()])
                self.take(self.client, down)

    @staticmethod
    def take(side, data):
        for event in side.receive_data(data):
            length = getattr(event, "flow_controlled_length", 0)
            if length:
                side.acknowledge_received_data(length, event.stream_id)

    def open(self, pool):
        stream = self.client.get_next_available_stream_id()
        method = self.rng.choice(["GET", "POST", "HEAD"])
        fields = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "h"),
            (":path", f"/{stream}/" + self.rng.choice(pool)),
            ("user-agent", self.rng.choice(pool)),
            ("cookie", "c" * self.rng.choice([3, 30, 20000])),
        ]
        prompt = "p" * self.rng.choice([1, 9000])
        body = b"" if method != "POST" else json.dumps({"model": f"m{stream}", "prompt": prompt}).encode()
        extra = {}
        if self.rng.random() < 0.3:
            extra = {"priority_weight": 16, "priority_depends_on": 0, "priority_exclusive": False}
        self.client.send_headers(stream, fields, end_stream=not body, **extra)
        while body:
            size = min(len(body), self.rng.choice([10, 1000, 16000]))
            part, body = body[:size], body[size:]
            pad = self.rng.choice([None, None, 0, 7, 200])
            self.client.send_data(stream, part, end_stream=not body, pad_length=pad)
            if self.rng.random() < 0.5 or self.client.local_flow_control_window(stream) < 17000:
                self.move()
        self.streams[stream] = {
            "path": dict(fields)[":path"],
            "method": method,
            "tokens": 0,
            "outcome": None,
            "status": None,
            "bytes": 0,
        }
        self.streams[stream]["left"] = self.rng.randrange(0, 6) if method == "POST" else 0
        self.streams[stream]["begun"] = False

    def answer(self, stream):
        """The next frames of a response; true when it is over."""
        told = self.streams[stream]
        fate = self.rng.random()
        if fate < 0.04:
            # What crosses a reset on its way is an error to `h2`.
            self.move()
        if fate < 0.02:
            self.client.reset_stream(stream, ErrorCodes.CANCEL)
            told["outcome"] = "left"
            self.move()
            return True
        if fate < 0.04:
            self.server.reset_stream(stream, ErrorCodes.INTERNAL_ERROR)
            told["outcome"] = "failed"
            self.move()
            return True
        if not told["begun"]:
            if self.rng.random() < 0.2:
                self.server.send_headers(stream, [(":status", "103"), ("link", "</a>")])
            told["begun"], told["status"] = True, self.rng.choice([200, 200, 200, 404, 500])
            kind = "text/event-stream" if told["method"] == "POST" else "text/plain"
            head = [(":status", str(told["status"])), ("content-type", kind), ("server", "python")]
            self.server.send_headers(stream, head, end_stream=told["method"] == "HEAD")
            if told["method"] == "HEAD":
                told["outcome"] = "complete"
            return told["method"] == "HEAD"
        if told["left"]:
            told["left"] -= 1
            event = b'data: {"id":"%d","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' % stream
            cut = self.rng.randrange(len(event) + 1)
            for part in [event[:cut], event[cut:]]:
                self.server.send_data(stream, part, pad_length=self.rng.choice([None, 0, 3]))
            told["tokens"] += 1
            told["bytes"] += len(event)
            return False
        told["outcome"] = "complete"
        if self.rng.random() < 0.4:
            self.server.send_headers(stream, [("x-checksum", "1")], end_stream=True)
        else:
            self.server.send_data(stream, b"end", end_stream=True)
            told["bytes"] += 3
        return True

    def run(self):
        pool = [text(self.rng, 40).replace("/", "").replace(" ", "") or "p" for _ in range(8)]
        self.client.initiate_connection()
        self.server.initiate_connection()
        self.move()
        live = []
        for _ in range(150):
            if self.rng.random() < 0.03:
                side = self.rng.choice([self.client, self.server])
                # The decoder of `hpack` judges all updates of a block by its newest limit: limits only grow.
                size = self.limits[side] = self.rng.choice([n for n in [0, 100, 4096, 16384] if n >= self.limits[side]])
                self.move()
                side.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
                self.move()
            if self.rng.random() < 0.05:
                self.rng.choice([self.client, self.server]).ping(b"01234567")
            if len(live) < 20 and self.rng.random() < 0.4:
                before = set(self.streams)
                self.open(pool)
                self.move()
                live.extend(set(self.streams) - before)
            if live:
                stream = self.rng.choice(live)
                if self.answer(stream):
                    live.remove(stream)
            if self.rng.random() < 0.7:
                self.move()
        while live:
            if self.answer(live[0]):
                live.pop(0)
            self.move()
        self.move()
        for told in self.streams.values():
            del told["left"], told["begun"]
        print(json.dumps({"sent": self.sent, "streams": self.streams}))


def sessions(rng, count):
    for _ in range(count):
        Session(rng).run()


if __name__ == "__main__":
    mode, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    {"blocks": blocks, "hostile": hostile, "sessions": sessions}[mode](random.Random(seed), count)
