"""A server of CPython's own asyncio with TLS, which deciphers in memory: all connections on one thread.

In: a certificate, a key, and the highest version, 1.2 or 1.3. Out: its port, then for each request a streamed answer with
as many tokens as it asks for, each token of all connections in turn.
"""

import asyncio
import json
import ssl
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            request = json.loads(await reader.readexactly(length))
            await answer(writer, request["max_tokens"])
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def answer(writer: asyncio.StreamWriter, tokens: int) -> None:
    name = f"chatcmpl-{tokens}"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head)
    delta = {"index": 0, "delta": {"content": "word"}, "finish_reason": None}
    for _ in range(tokens):
        event(writer, {"id": name, "model": "m", "choices": [delta]})
        # Whoever else has a token goes first.
        await asyncio.sleep(0)
    usage = {"prompt_tokens": 1, "completion_tokens": tokens}
    # A record holds 16 KiB: this event takes several.
    padding = "x" * 50_000 if tokens % 2 else ""
    event(writer, {"id": name, "choices": [], "padding": padding, "usage": usage})
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()


def event(writer: asyncio.StreamWriter, value: object) -> None:
    text = f"data: {json.dumps(value)}\n\n".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(text), text))


async def main(certificate: str, key: str, version: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
