"""SGLang without a model: a front end, a scheduler and a detokenizer, three processes that talk as SGLang 0.5.23 does.

In: OpenAI's completions over HTTP. Out: tokens, and in `LOG` what every step of the scheduler really did, which is the
truth that tests compare with: one JSON line a step, with its members. Continuous batching is real: slots, chunked
prefill, a prefix cache of whole prompts, retraction when the pool is full, a loop that spins on a receive that does not
wait, and a load snapshot in shared memory. Deliberately absent: a model; a step takes `--step-ms`.
"""

import argparse
import array
import asyncio
import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import uuid
import zlib

import msgspec
import zmq
import zmq.asyncio

import sglang_wire as wire

# SGLANG_FORCE_STREAM_INTERVAL of SGLang: requests that do not stream are reported every so many tokens.
FORCE_STREAM_INTERVAL = 50
SNAPSHOT_INTERVAL = 15
SLOT = 16 * 1024


class Request:
    def __init__(self, asked, metrics):
        self.rid, self.stream = asked.rid, asked.stream
        self.prompt, self.limit = list(asked.input_ids), asked.sampling_params.max_new_tokens
        self.output, self.sent, self.cached, self.retractions = [], 0, 0, 0
        self.computed, self.reason = 0, None
        self.times = wire.SchedulerReqTimeStats(metrics)
        self.times.wait_queue_entry_time = time.perf_counter()

    def length(self):
        return len(self.prompt) + len(self.output)


class Scheduler:
    def __init__(self, options):
        self.options, self.wire = options, wire.Wire(options.msgpack)
        context = zmq.Context()
        self.requests = wire.pull(context, options.ipc + "scheduler", False)
        self.to_detokenizer = wire.push(context, options.ipc + "detokenizer", False)
        self.to_tokenizer = wire.push(context, options.ipc + "tokenizer", False)
        self.waiting, self.running, self.chunked = [], [], None
        self.cache, self.unpublished = set(), 0
        self.log = open(options.log, "w", buffering=1)
        self.snapshot = Snapshot(options.ipc, options.dp_rank)
        self.idle = False

    def run(self):
        while True:
            self.receive()
            batch = self.next_prefill()
            if batch or self.running:
                self.idle = False
                self.prefill(batch) if batch else self.decode()
            elif not self.idle:
                self.idle = True
                self.publish(True)
            elif self.options.rest:
                time.sleep(0.001)

    def receive(self):
        while True:
            try:
                message = self.wire.receive(self.requests, zmq.NOBLOCK)
            except zmq.Again:
                return
            every = message.batch if isinstance(message, wire.BatchTokenizedGenerateReqInput) else [message]
            for one in every:
                self.abort(one) if isinstance(one, wire.AbortReq) else self.add(one)

    def add(self, asked):
        if isinstance(asked, wire.TokenizedEmbeddingReqInput):
            return self.embed(asked)
        self.waiting.append(Request(asked, self.options.metrics))

    def embed(self, asked):
        started = time.monotonic_ns()
        time.sleep(self.options.step_ms / 1000)
        output = wire.BatchEmbeddingOutput(
            rids=[asked.rid],
            http_worker_ipcs=[None],
            finished_reasons=[{"type": "length", "length": 0}],
            embeddings=[[0.5] * 8],
            prompt_tokens=[len(asked.input_ids)],
            cached_tokens=[0],
            retraction_counts=[0],
            cached_tokens_details=[None],
            time_stats=self.wire.wrap([wire.SchedulerReqTimeStats(False)]),
        )
        members = [{"rid": asked.rid, "phase": "prefill", "computed": len(asked.input_ids), "generated": 0}]
        self.note("embed", started, members)
        self.wire.send(self.to_detokenizer, output)

    def abort(self, asked):
        for request in [one for one in self.waiting if one.rid.startswith(asked.rid)]:
            self.waiting.remove(request)
            self.note_end(request, "abort")
            self.wire.send(self.to_tokenizer, wire.AbortReq(rid=request.rid))
        for request in self.running + ([self.chunked] if self.chunked else []):
            if request.rid.startswith(asked.rid):
                request.reason = {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}

    def used(self):
        return sum(one.computed + len(one.output) for one in self.running) + (self.chunked.computed if self.chunked else 0)

    def next_prefill(self):
        """Prompts, or parts of them, for one step: (request, tokens)."""
        budget, batch = self.options.chunk, []
        if self.chunked:
            todo = self.chunked.length() - self.chunked.computed
            batch.append((self.chunked, min(todo, budget)))
            budget -= batch[0][1]
        while self.waiting and budget > 0:
            request = self.waiting[0]
            if len(self.running) + len(batch) >= self.options.slots:
                break
            if self.used() + request.length() + 2 > self.options.pool and (self.running or batch):
                break
            self.waiting.pop(0)
            hit = tuple(request.prompt) in self.cache and request.retractions == 0
            request.cached = len(request.prompt) - 1 if hit else 0
            request.computed = request.cached
            if request.times.forward_entry_time == 0.0:
                request.times.forward_entry_time = time.perf_counter()
            tokens = min(request.length() - request.computed, budget)
            batch.append((request, tokens))
            budget -= tokens
        return batch

    def prefill(self, batch):
        started = time.monotonic_ns()
        time.sleep(self.options.step_ms / 1000)
        self.chunked, members, done = None, [], []
        for request, tokens in batch:
            request.computed += tokens
            whole = request.computed >= request.length()
            members.append({"rid": request.rid, "phase": "prefill", "computed": tokens, "generated": int(whole)})
            if not whole:
                self.chunked = request
                continue
            if request.times.prefill_finished_time == 0.0:
                request.times.prefill_finished_time = time.perf_counter()
            self.cache.add(tuple(request.prompt))
            request.computed = len(request.prompt)
            self.grow(request)
            self.running.append(request)
            done.append(request)
        self.finish_step("extend", started, members, done)
        self.publish(True)

    def decode(self):
        while len(self.running) > 1 and self.used() + len(self.running) > self.options.pool:
            victim = self.running.pop()
            victim.retractions += 1
            victim.computed = 0
            self.waiting.insert(0, victim)
        started = time.monotonic_ns()
        time.sleep(self.options.step_ms / 1000)
        members = []
        for request in self.running:
            members.append({"rid": request.rid, "phase": "decode", "computed": 1, "generated": 1})
            self.grow(request)
        self.finish_step("decode", started, members, list(self.running))
        self.publish(False)

    def grow(self, request):
        request.output.append(zlib.crc32(f"{request.rid}{len(request.output)}".encode()) % 1000)
        if request.reason is None and len(request.output) >= request.limit:
            request.reason = {"type": "length", "length": len(request.output)}

    def finish_step(self, kind, started, members, requests):
        self.note(kind, started, members)
        for request in requests:
            if request.reason:
                self.running.remove(request)
                self.note_end(request, request.reason["type"])
        self.stream(requests)

    def note(self, kind, started, members):
        line = {"step": kind, "pid": os.getpid(), "start_ns": started, "end_ns": time.monotonic_ns(), "members": members}
        self.log.write(json.dumps(line | {"running": len(self.running)}) + "\n")

    def note_end(self, request, reason):
        line = {"end": request.rid, "reason": reason, "prompt": len(request.prompt), "generated": len(request.output)}
        times = request.times
        line |= {"cached": request.cached, "retractions": request.retractions, "stream": request.stream}
        line |= {"queued": times.wait_queue_entry_time, "scheduled": times.forward_entry_time}
        self.log.write(json.dumps(line | {"first": times.prefill_finished_time}) + "\n")

    def stream(self, requests):
        told = [one for one in requests if one.reason or one.stream or len(one.output) % FORCE_STREAM_INTERVAL == 0]
        if not told:
            return
        new = [array.array("q", one.output[one.sent :]) for one in told]
        for request in told:
            request.sent = len(request.output)
        count = len(told)
        self.wire.send(
            self.to_detokenizer,
            wire.BatchTokenIDOutput(
                rids=[one.rid for one in told],
                http_worker_ipcs=[None] * count,
                finished_reasons=[one.reason for one in told],
                decoded_texts=[""] * count,
                decode_ids=new,
                read_offsets=[0] * count,
                output_ids=new,
                skip_special_tokens=[True] * count,
                spaces_between_special_tokens=[True] * count,
                no_stop_trim=[False] * count,
                prompt_tokens=[len(one.prompt) for one in told],
                reasoning_tokens=[0] * count,
                completion_tokens=[len(one.output) for one in told],
                cached_tokens=[one.cached for one in told],
                retraction_counts=[one.retractions for one in told],
                cached_tokens_details=[{"device": one.cached, "host": 0} if one.cached else None for one in told],
                dp_ranks=[self.options.dp_rank] * count,
                time_stats=self.wire.wrap([one.times for one in told]),
                image_tokens=[0] * count,
                audio_tokens=[0] * count,
                video_tokens=[0] * count,
                **{name: [] for name in wire.SPECULATIVE},
            ),
        )

    def publish(self, forced):
        self.unpublished += 1
        if not forced and self.unpublished < SNAPSHOT_INTERVAL:
            return
        self.unpublished = 0
        running = len(self.running) + (1 if self.chunked else 0)
        used = self.used()
        self.snapshot.write(
            {
                "timestamp": time.time(),
                "num_running_reqs": running,
                "num_waiting_reqs": len(self.waiting),
                "num_used_tokens": used,
                "max_total_num_tokens": self.options.pool,
                "max_running_requests": self.options.slots,
                "token_usage": used / self.options.pool,
            }
        )


class Snapshot:
    """`/dev/shm/sglang_loads_*` (sglang/srt/managers/load_snapshot.py): a header, and a slot of msgpack a rank."""

    def __init__(self, ipc, rank):
        digest = hashlib.blake2s(ipc.encode(), digest_size=4).hexdigest()
        name = "".join(char if char.isalnum() or char in "._-" else "_" for char in os.path.basename(ipc)) or "default"
        self.path, self.offset = f"/dev/shm/sglang_loads_{name}_{digest}.shm", 12 + rank * SLOT
        self.fd = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
        os.ftruncate(self.fd, 12 + (rank + 1) * SLOT)
        self.map = mmap.mmap(self.fd, 12 + (rank + 1) * SLOT)
        struct.pack_into("<4sHHI", self.map, 0, b"SLNS", 2, rank + 1, SLOT)

    def write(self, load):
        # Values that are zero are left out, as `omit_defaults` has it.
        data = msgspec.msgpack.encode({name: value for name, value in load.items() if value})
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        struct.pack_into("<I", self.map, self.offset, 0)
        self.map[self.offset + 4 : self.offset + SLOT] = data.ljust(SLOT - 4, b"\0")
        struct.pack_into("<I", self.map, self.offset, len(data))
        fcntl.flock(self.fd, fcntl.LOCK_UN)


def detokenizer(options):
    talk, context = wire.Wire(options.msgpack), zmq.Context()
    source = wire.pull(context, options.ipc + "detokenizer", True)
    target = wire.push(context, options.ipc + "tokenizer", False)
    while True:
        got = talk.receive(source)
        if isinstance(got, wire.BatchEmbeddingOutput):
            talk.send(target, got)
            continue
        names = [name for name in wire.BatchStrOutput.__struct_fields__ if hasattr(got, name)]
        texts = ["".join(f" {token}" for token in ids) for ids in got.output_ids]
        talk.send(target, wire.BatchStrOutput(output_strs=texts, **{name: getattr(got, name) for name in names}))


class Front:
    """HTTP, tokens of words, and the streams that wait for an answer."""

    def __init__(self, options):
        self.options, self.wire = options, wire.Wire(options.msgpack)
        context = zmq.asyncio.Context()
        self.to_scheduler = wire.push(context, options.ipc + "scheduler", True)
        self.answers = wire.pull(context, options.ipc + "tokenizer", True)
        self.open = {}

    async def send(self, message):
        data = self.wire.encode(message)
        self.wire.keep(self.to_scheduler, True, data, time.monotonic_ns())
        await self.to_scheduler.send(data)

    async def listen(self):
        while True:
            data = await self.answers.recv()
            self.wire.keep(self.answers, False, data, time.monotonic_ns())
            got = self.wire.decode(data)
            if isinstance(got, wire.AbortReq):
                self.tell(got.rid, ("", 0, 0, 0, {"type": "abort"}))
                continue
            texts = getattr(got, "output_strs", None) or [""] * len(got.rids)
            counts = getattr(got, "completion_tokens", None) or [0] * len(got.rids)
            for row in zip(got.rids, texts, got.prompt_tokens, counts, got.cached_tokens, got.finished_reasons):
                self.tell(row[0], row[1:])

    def tell(self, rid, row):
        if rid in self.open:
            self.open[rid].put_nowait(row)

    async def handle(self, reader, writer):
        try:
            while await self.exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()

    async def exchange(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ", 2)[1]
        lengths = [line.split(":")[1] for line in head.lower().split("\r\n") if line.startswith("content-length:")]
        asked = json.loads(await reader.readexactly(int(lengths[0])) or b"{}") if lengths else {}
        if path == "/health":
            self.answer(writer, {"status": "ok"})
        else:
            await self.generate(path, asked, reader, writer)
        await writer.drain()
        return True

    def answer(self, writer, body):
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)

    def message(self, path, asked, rid):
        words = str(asked.get("prompt") or asked.get("input") or asked.get("messages")).split()
        ids = array.array("q", [zlib.crc32(word.encode()) % 30000 for word in words])
        sampling = wire.SamplingParams(max_new_tokens=asked.get("max_tokens", 16))
        if path == "/v1/embeddings":
            return wire.TokenizedEmbeddingReqInput(rid=rid, input_text=None, input_ids=ids, sampling_params=sampling)
        return wire.TokenizedGenerateReqInput(
            rid=rid,
            input_text=" ".join(words),
            input_ids=ids,
            sampling_params=sampling,
            stream=bool(asked.get("stream")),
        )

    async def generate(self, path, asked, reader, writer):
        rid = uuid.uuid4().hex
        queue = self.open[rid] = asyncio.Queue()
        chat = "chat" in path
        await self.send(self.message(path, asked, rid))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            if asked.get("stream"):
                await self.stream(rid, chat, queue, gone, writer)
            else:
                await self.whole(rid, chat, queue, gone, writer)
        finally:
            del self.open[rid]
            if not gone.done():
                gone.cancel()
                # A cancelled read leaves the stream as it is.
                await asyncio.gather(gone, return_exceptions=True)

    async def next(self, rid, queue, gone):
        """What comes next for a request; it is aborted when its client is gone."""
        getting = asyncio.ensure_future(queue.get())
        await asyncio.wait({getting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not getting.done():
            getting.cancel()
            await self.send(wire.AbortReq(rid=rid))
            raise ConnectionResetError
        return await getting

    async def stream(self, rid, chat, queue, gone, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        kind = "chat.completion.chunk" if chat else "text_completion"

        def event(body):
            data = b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n"
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        while True:
            text, prompt, count, cached, reason = await self.next(rid, queue, gone)
            finish = reason["type"] if reason else None
            choice = {"index": 0, "finish_reason": finish} | ({"delta": {"content": text}} if chat else {"text": text})
            event({"id": rid, "object": kind, "created": 1, "model": "tiny", "choices": [choice]})
            if reason:
                break
        event({"id": rid, "object": kind, "created": 1, "model": "tiny", "choices": [], "usage": usage(prompt, count, cached)})
        event(b"[DONE]")
        writer.write(b"0\r\n\r\n")

    async def whole(self, rid, chat, queue, gone, writer):
        texts, reason = [], None
        while not reason:
            text, prompt, count, cached, reason = await self.next(rid, queue, gone)
            texts.append(text)
        text, choice = "".join(texts), {"index": 0, "finish_reason": reason["type"]}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        kind = "chat.completion" if chat else "text_completion"
        body = {"id": rid, "object": kind, "created": 1, "model": "tiny", "choices": [choice]}
        self.answer(writer, body | {"usage": usage(prompt, count, cached)})

    async def serve(self):
        server = await asyncio.start_server(self.handle, "127.0.0.1", self.options.port)
        print(json.dumps({"port": server.sockets[0].getsockname()[1]} | self.options.pids), flush=True)
        await self.listen()


def usage(prompt, count, cached):
    details = {"cached_tokens": cached}
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count, "prompt_tokens_details": details}


def front(options):
    """Starts the other two as SGLang's launcher does, and ends them with itself."""
    folder = tempfile.mkdtemp()
    options.ipc = f"ipc://{folder}/"
    arguments = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--ipc", options.ipc]
    children = {role: subprocess.Popen([*arguments, "--role", role]) for role in ("scheduler", "detokenizer")}
    options.pids = {role: child.pid for role, child in children.items()} | {"front": os.getpid()}
    options.pids |= {"snapshot": Snapshot(options.ipc, options.dp_rank).path}

    def end(*_):
        for child in children.values():
            child.kill()
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
        os.unlink(options.pids["snapshot"])
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    asyncio.run(Front(options).serve())


def title(role):
    """The name that processes of SGLang give themselves."""
    names = {"front": "sglang::http_server", "scheduler": "sglang::scheduler", "detokenizer": "sglang::detokenizer"}
    PR_SET_NAME = 15
    ctypes.CDLL(None).prctl(PR_SET_NAME, names[role].encode())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", default="/dev/null", help="where the scheduler says what its steps did")
    parser.add_argument("--msgpack", action="store_true", help="msgpack between the processes instead of pickle")
    parser.add_argument("--metrics", action="store_true", help="requests carry the scheduler's stamps")
    parser.add_argument("--rest", action="store_true", help="do not spin while there is nothing to do")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=64, help="prompt tokens of a step")
    parser.add_argument("--pool", "--max-total-tokens", type=int, default=4096, help="tokens that fit; fewer make it retract")
    parser.add_argument("--step-ms", type=float, default=5.0)
    parser.add_argument("--dp-rank", type=int, default=0)
    parser.add_argument("--role", choices=["front", "scheduler", "detokenizer"], default="front")
    parser.add_argument("--ipc", default="")
    options = parser.parse_args()
    title(options.role)
    if options.role == "front":
        front(options)
    elif options.role == "scheduler":
        Scheduler(options).run()
    else:
        detokenizer(options)


main()
