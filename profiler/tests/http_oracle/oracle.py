"""Reference parsers behind a pipe: a JSON object a line in, one a line out.

{"kind": "requests",  "parts": [hex…]}                  what h11 and httptools make of a client's bytes
{"kind": "response", "method": "GET", "parts": [hex…]}  what they make of a server's, up to its close
{"kind": "pack", "coding": "br", "seed": n, "text": …}  text, compressed with settings that the seed draws
{"kind": "unpack", "coding": "br", "data": hex}         whether that is one whole compressed stream, and of what

Bytes are fed in the parts that are given, so that both sides see the same splits. Nothing here judges: the test does.
"""

import gzip
import json
import random
import re
import sys
import zlib

import brotli
import h11
import httptools

LARGEST = 1 << 17
# Without it h11 takes no 101.
PROPOSAL = [("connection", "upgrade"), ("upgrade", "x")]


def path_of(target):
    text = target.decode("latin-1")
    text = text.split("?")[0].split("#")[0]
    absolute = re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*(.*)", text, re.DOTALL)
    return (absolute[1] if absolute else text) or "/"


def message(method, target, version, headers):
    """The facts of a request's head that the profiler tells too."""
    first = {}
    for name, value in headers:
        first.setdefault(name.decode("latin-1").lower(), value.strip().decode("utf-8", "replace"))
    return {
        "method": method.decode("latin-1"),
        "path": path_of(target),
        "absolute": b"://" in target,
        "version": version,
        "host": first.get("host"),
        "user_agent": first.get("user-agent"),
        "request_id": first.get("x-request-id"),
        "content_length": first.get("content-length"),
        "chunked": "transfer-encoding" in first,
        "body": b"",
        "complete": False,
    }


def answered(connection):
    """Says 404 to the request that was read; returns whether another may come."""
    connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
        return False
    connection.start_next_cycle()
    return True


def h11_requests(parts):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST)
    messages = []
    try:
        for part in parts:
            connection.receive_data(part)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    break
                if event is h11.PAUSED:
                    return messages, None
                if isinstance(event, h11.Request):
                    version = event.http_version.decode()
                    messages.append(message(event.method, event.target, version, event.headers))
                elif isinstance(event, h11.Data):
                    messages[-1]["body"] += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    messages[-1]["complete"] = True
                    if not answered(connection):
                        return messages, "closed"
    except h11.RemoteProtocolError as error:
        return messages, str(error)
    return messages, None


class Requests:
    """httptools calls these."""

    def __init__(self):
        self.messages, self.target, self.headers = [], b"", []

    def on_message_begin(self):
        self.target, self.headers = b"", []

    def on_url(self, url):
        self.target += url

    def on_header(self, name, value):
        self.headers.append((name, value))

    def on_headers_complete(self):
        parser = self.parser
        head = message(parser.get_method(), self.target, parser.get_http_version(), self.headers)
        self.messages.append(head)

    def on_body(self, body):
        self.messages[-1]["body"] += body

    def on_message_complete(self):
        self.messages[-1]["complete"] = True


def httptools_requests(parts):
    told = Requests()
    told.parser = httptools.HttpRequestParser(told)
    try:
        for part in parts:
            told.parser.feed_data(part)
    except httptools.HttpParserUpgrade:
        return told.messages, "upgrade"
    except httptools.HttpParserError as error:
        return told.messages, repr(error)
    return told.messages, None


def h11_response(method, parts):
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "h"), *PROPOSAL]))
    connection.send(h11.EndOfMessage())
    told = {"interim": [], "status": None, "body": b"", "complete": False, "upgraded": False}
    try:
        for part in [*parts, b""]:
            connection.receive_data(part)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    break
                if event is h11.PAUSED:
                    told["upgraded"] = connection.their_state is h11.SWITCHED_PROTOCOL
                    return told, None
                if isinstance(event, h11.InformationalResponse):
                    told["interim"].append(event.status_code)
                elif isinstance(event, h11.Response):
                    told["status"] = event.status_code
                elif isinstance(event, h11.Data):
                    told["body"] += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    told["complete"] = True
                    return told, None
                else:
                    return told, None
    except h11.RemoteProtocolError as error:
        return told, str(error)
    return told, None


class Response:
    """httptools calls these. It is not told of the request, so HEAD and CONNECT are not asked."""

    def __init__(self):
        self.told = {"interim": [], "status": None, "body": b"", "complete": False, "upgraded": False}
        self.framed = False

    def on_header(self, name, value):
        name, value = name.lower(), value.lower().strip()
        chunked = name == b"transfer-encoding" and value.split(b",")[-1].strip() == b"chunked"
        self.framed |= name == b"content-length" or chunked

    def on_headers_complete(self):
        status = self.parser.get_status_code()
        if self.told["status"] is None and 100 <= status < 200 and status != 101:
            self.told["interim"].append(status)
        elif self.told["status"] is None:
            self.told["status"] = status

    def on_body(self, body):
        if not self.told["complete"]:
            self.told["body"] += body

    def on_message_complete(self):
        if self.told["status"] is not None:
            self.told["complete"] = True


def httptools_response(parts):
    told = Response()
    told.parser = httptools.HttpResponseParser(told)
    try:
        for part in parts:
            told.parser.feed_data(part)
    except httptools.HttpParserUpgrade:
        told.told["upgraded"] = True
    except httptools.HttpParserError as error:
        return told.told, repr(error)
    # It has no call for the end of the connection, which ends a body that nothing else does.
    told.told["complete"] |= told.told["status"] is not None and not told.framed
    return told.told, None


def pack(coding, seed, text):
    draw = random.Random(seed)
    data = text.encode()
    if coding == "br":
        encoder = brotli.Compressor(quality=draw.randrange(0, 12), lgwin=draw.randrange(10, 23))
        add, flush, finish = encoder.process, encoder.flush, encoder.finish
    else:
        bits = {"gzip": 31, "deflate": 15, "bare": -15}[coding]
        encoder = zlib.compressobj(draw.randrange(0, 10), zlib.DEFLATED, bits, draw.randrange(1, 10))
        modes = [zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH]
        add, finish = encoder.compress, encoder.flush
        flush = lambda: encoder.flush(draw.choice(modes))
    packed = b""
    while data:
        size = draw.randrange(1, len(data) + 1)
        packed += add(data[:size])
        data = data[size:]
        if draw.random() < 0.3:
            packed += flush()
    return packed + finish()


def unpack(coding, data):
    try:
        if coding == "br":
            return brotli.decompress(data)
        if coding == "gzip":
            return gzip.decompress(data)
        return zlib.decompress(data, 15 if coding == "deflate" else -15)
    except Exception:
        return None


def in_hex(value):
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError


def answer(ask):
    kind = ask["kind"]
    parts = [part for part in map(bytes.fromhex, ask.get("parts", [])) if part]
    if kind == "requests":
        return {"h11": h11_requests(parts), "httptools": httptools_requests(parts)}
    if kind == "response":
        both = {"h11": h11_response(ask["method"], parts)}
        if ask["method"] not in ("HEAD", "CONNECT"):
            both["httptools"] = httptools_response(parts)
        return both
    if kind == "pack":
        return {"data": pack(ask["coding"], ask["seed"], ask["text"])}
    return {"data": unpack(ask["coding"], bytes.fromhex(ask["data"]))}


for line in sys.stdin:
    sys.stdout.write(json.dumps(answer(json.loads(line)), default=in_hex) + "\n")
    sys.stdout.flush()
