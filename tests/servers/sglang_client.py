"""Requests of every kind to `sglang.py`, and what they got: one JSON line a request, times of CLOCK_MONOTONIC.

In: its port, and which scenario. Out: id, usage and finish as the response says, and when its events came.
"""

import asyncio
import json
import sys
import time

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


def prompt(seed, length):
    return " ".join(f"{WORDS[(seed * 7 + n * 3) % len(WORDS)]}{seed}x{n}" for n in range(length))


async def ask(port, path, body, leave_after=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    said = {"path": path, "stream": bool(body.get("stream")), "sent_ns": time.monotonic_ns(), "events": []}
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    if leave_after == 0:
        await asyncio.sleep(0.004)
        writer.close()
        return said | {"left": True}
    await reader.readuntil(b"\r\n\r\n") if said["stream"] else None
    if not said["stream"]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        finish = answer["choices"][0]["finish_reason"] if answer.get("choices") else None
        said |= {"id": answer.get("id"), "usage": answer.get("usage"), "finish": finish}
        writer.close()
        return said | {"ended_ns": time.monotonic_ns()}
    while True:
        size = int(await reader.readline(), 16)
        chunk = await reader.readexactly(size + 2)
        if size == 0:
            break
        at, event = time.monotonic_ns(), chunk[6:-4]
        if event == b"[DONE]":
            continue
        event = json.loads(event)
        said["id"] = event["id"]
        if event["choices"]:
            said["events"].append(at)
            said["finish"] = event["choices"][0]["finish_reason"] or said.get("finish")
        else:
            said["usage"] = event["usage"]
        if leave_after and len(said["events"]) >= leave_after:
            writer.close()
            return said | {"left": True}
    writer.close()
    return said | {"ended_ns": time.monotonic_ns()}


def completion(seed, length, tokens, stream):
    return {"model": "tiny", "prompt": prompt(seed, length), "max_tokens": tokens, "stream": stream}


def mixed():
    """Streams and whole answers, short and long prompts, one token, a hit of the prefix cache, clients that leave."""
    plans = []
    for seed in range(8):
        plans.append((0.02 * seed, "/v1/completions", completion(seed, 10 + 9 * seed, 20 + seed * 5, True), None))
    plans.append((0.05, "/v1/completions", completion(20, 150, 10, True), None))
    plans.append((0.1, "/v1/completions", completion(21, 12, 1, True), None))
    plans.append((0.1, "/v1/completions", completion(22, 12, 1, False), None))
    for seed in range(23, 26):
        plans.append((0.06 * (seed - 22), "/v1/completions", completion(seed, 12, 40 * (seed - 22), False), None))
    plans.append((0.3, "/v1/completions", completion(0, 10, 5, True), None))
    plans.append((0.2, "/v1/completions", completion(30, 10, 500, True), 5))
    plans.append((0.3, "/v1/completions", completion(31, 10, 500, False), 0))
    messages = [{"role": "user", "content": prompt(32, 6)}]
    plans.append((0.3, "/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 7, "stream": True}, None))
    return plans


def streams():
    return [(0.03 * seed, "/v1/completions", completion(seed, 10 + 5 * seed, 30, True), None) for seed in range(10)]


def warm():
    return [(0, "/v1/completions", completion(99, 3, 2, False), None)]


def whole():
    return [(0.03 * seed, "/v1/completions", completion(seed, 10 + 5 * seed, 120, False), None) for seed in range(6)]


async def main():
    port, scenario = int(sys.argv[1]), sys.argv[2]
    plans = {"mixed": mixed, "streams": streams, "warm": warm, "whole": whole}[scenario]()

    async def later(wait, path, body, leave_after):
        await asyncio.sleep(wait)
        return await ask(port, path, body, leave_after)

    for said in await asyncio.gather(*(later(*plan) for plan in plans)):
        print(json.dumps(said))
    if scenario == "mixed":
        print(json.dumps(await ask(port, "/v1/embeddings", {"model": "tiny", "input": prompt(40, 9)})))


asyncio.run(main())
