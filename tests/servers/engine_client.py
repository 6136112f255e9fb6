"""A client of OpenAI-compatible servers that keeps a record of every event: `engine_client.py HOST PORT < plan > records`.

The plan is a JSON list of requests, the records are JSON lines in the order of the plan. A request:
  lane     requests of one lane follow each other on one connection; lanes run at the same time
  wait_s   pause before it is sent
  path, body, headers
  fresh    the connection is closed after the answer: llama-server closes some that it says it keeps
  abort    {"events": n} or {"after_s": s}: the connection is closed then, on purpose

All times are `time.monotonic_ns()`, the clock of the engines' own stamps. No retries: what fails is told.
"""

import asyncio
import json
import os
import sys
import time


def take_priority():
    """The client's clock is read when the kernel has the bytes, not when a busy machine gets to it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError as error:
        print(f"no real-time priority: {error}", file=sys.stderr)


class Aborted(Exception):
    """The plan says so."""


class Connection:
    """One keep-alive connection of HTTP/1.1."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.reader = self.writer = None

    async def send(self, request):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        body = json.dumps(request["body"]).encode()
        headers = {"Host": self.host, "Content-Type": "application/json", "Content-Length": str(len(body))}
        headers.update(request.get("headers", {}))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"POST {request['path']} HTTP/1.1\r\n{head}\r\n".encode() + body)
        await self.writer.drain()
        return self.writer.get_extra_info("sockname")[1]

    async def head(self):
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}

    async def pieces(self, headers):
        """The body, as it comes."""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readline()
        elif "content-length" in headers:
            yield await self.reader.readexactly(int(headers["content-length"]))
        else:
            yield await self.reader.read()
            self.close()
        if headers.get("connection") == "close":
            self.close()

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def text_of(choice):
    part = choice.get("delta") or choice.get("message") or choice
    return part.get("content") or part.get("text") or ""


def understand(record, answer, now):
    """Takes one event, or a whole answer, into the record. llama-server answers several prompts in lists, with nulls."""
    if not isinstance(answer, dict):
        for one in answer or []:
            understand(record, one, now)
        return
    record["id"] = answer.get("id") or record["id"]
    if "error" in answer:
        record["error"] = str(answer["error"])
    for name in ("usage", "metrics", "timings"):
        if answer.get(name):
            record[name] = answer[name]
    for choice in answer.get("choices", []):
        index = choice.get("index", 0)
        text = text_of(choice)
        if text:
            record["texts"].append([now, index, len(text)])
        if choice.get("finish_reason"):
            record["reasons"][str(index)] = choice["finish_reason"]


async def stream(connection, headers, record, abort):
    waiting = b""
    async for piece in connection.pieces(headers):
        now = time.monotonic_ns()
        waiting += piece.replace(b"\r\n", b"\n")
        *events, waiting = waiting.split(b"\n\n")
        for event in events:
            data = b"".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
            if data == b"[DONE]":
                record["done"] = True
            elif data:
                understand(record, json.loads(data), now)
                record["events"] += 1
        if abort and record["events"] >= abort.get("events", float("inf")):
            raise Aborted


async def answer(connection, request, record):
    record["port"] = await connection.send(request)
    record["sent_ns"] = time.monotonic_ns()
    record["status"], headers = await connection.head()
    record["head_ns"] = time.monotonic_ns()
    if "text/event-stream" in headers.get("content-type", ""):
        await stream(connection, headers, record, request.get("abort"))
    else:
        body = b"".join([piece async for piece in connection.pieces(headers)])
        understand(record, json.loads(body), time.monotonic_ns())


async def ask(connection, request, record):
    await asyncio.sleep(request.get("wait_s", 0))
    patience = (request.get("abort") or {}).get("after_s")
    try:
        await asyncio.wait_for(answer(connection, request, record), patience)
    except (Aborted, asyncio.TimeoutError):
        record["aborted"] = True
        connection.close()
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        record["error"] = repr(error)
        connection.close()
    record["end_ns"] = time.monotonic_ns()


def empty(index):
    return {
        "index": index, "port": 0, "sent_ns": 0, "head_ns": None, "end_ns": 0, "status": 0, "id": None, "usage": None,
        "metrics": None, "timings": None, "texts": [], "events": 0, "reasons": {}, "done": False, "aborted": False,
        "error": None,
    }  # fmt: skip


async def lane(host, port, requests):
    connection = Connection(host, port)
    for request, record in requests:
        await ask(connection, request, record)
        if request.get("fresh"):
            connection.close()
    connection.close()


async def main():
    host, port, plan = sys.argv[1], int(sys.argv[2]), json.load(sys.stdin)
    records = [empty(index) for index in range(len(plan))]
    lanes = {}
    for request, record in zip(plan, records):
        lanes.setdefault(request["lane"], []).append((request, record))
    await asyncio.gather(*(lane(host, port, requests) for requests in lanes.values()))
    for record in records:
        print(json.dumps(record))


if __name__ == "__main__":
    take_priority()
    asyncio.run(main())
