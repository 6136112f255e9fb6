"""A model server of 100 lines without a model: an ASGI application that speaks OpenAI's chat dialect at a given pace.

Under uvicorn it shows how the sockets of vLLM and SGLang look, whose front ends are uvicorn too. It keeps no record:
the client's is the truth. Not here: batching, and anything that looks at what was asked beyond its lengths.

Fields of a request that only this server knows: `prefill_ms` before the first token, `pace_ms` between tokens.
"""

import asyncio
import itertools
import json

MODEL = "tiny"
IDS = itertools.count(1)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    body = await read(receive)
    if scope["path"] == "/health":
        return await answer(send, 200, {"status": "ok"})
    if scope["path"] != "/v1/chat/completions":
        return await refuse(send, 404, "not_found", "no such path: " + scope["path"])
    try:
        asked = json.loads(body)
        words = prompt_words(asked["messages"])
    except (ValueError, KeyError, TypeError):
        return await refuse(send, 400, "invalid_request_error", "the body is no chat request: " + repr(body[:80]))
    if asked.get("model") != MODEL:
        # Real servers quote what was asked in their messages, and so does this one.
        return await refuse(send, 404, "model_not_found", "no model " + repr(asked.get("model")) + " for " + repr(words[:9]))
    whole = {"id": f"chatcmpl-{next(IDS)}", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    if asked.get("stream"):
        await stream(send, asked, len(words), whole)
    else:
        await complete(send, asked, words, whole)


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def read(receive):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def prompt_words(messages):
    return [word for message in messages for word in str(message["content"]).split()]


async def head(send, status, kind, length=None):
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send, status, value):
    body = json.dumps(value).encode()
    await head(send, status, b"application/json", len(body))
    await send({"type": "http.response.body", "body": body})


async def refuse(send, status, code, message):
    await answer(send, status, {"error": {"message": message, "type": "invalid_request_error", "code": code}})


def usage(prompt, completion):
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def complete(send, asked, words, whole):
    tokens = asked.get("max_tokens", 8)
    await asyncio.sleep((asked.get("prefill_ms", 0) + tokens * asked.get("pace_ms", 0)) / 1e3)
    # The answer repeats the prompt, as models do.
    text = " ".join(itertools.islice(itertools.cycle(words), tokens))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    whole = whole | {"object": "chat.completion", "choices": [choice], "usage": usage(len(words), tokens)}
    await answer(send, 200, whole)


async def stream(send, asked, prompt, whole):
    async def event(delta, finish=None):
        chunk = whole | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        await body(send, b"data: " + json.dumps(chunk).encode() + b"\n\n")

    tokens = asked.get("max_tokens", 8)
    words = prompt_words(asked["messages"])
    await head(send, 200, b"text/event-stream")
    # The role comes before generation starts: it is no token.
    await event({"role": "assistant", "content": ""})
    await asyncio.sleep(asked.get("prefill_ms", 0) / 1e3)
    for index in range(tokens):
        if index:
            await asyncio.sleep(asked.get("pace_ms", 0) / 1e3)
        await event({"content": " " + words[index % len(words)] if words else " über"})
    await event({}, "length")
    if asked.get("stream_options", {}).get("include_usage"):
        last = whole | {"choices": [], "usage": usage(prompt, tokens)}
        await body(send, b"data: " + json.dumps(last).encode() + b"\n\n")
    await body(send, b"data: [DONE]\n\n")
    await send({"type": "http.response.body", "body": b""})


async def body(send, data):
    await send({"type": "http.response.body", "body": data, "more_body": True})
