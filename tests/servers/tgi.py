"""A router like TGI's with its shards: an HTTP front, one batch that goes on as requests come and go, and gRPC to two shards
over unix sockets. Arguments: PORT FOLDER.

It writes what it did to FOLDER/truth: a line for each call that is a step, with its members and CLOCK_MONOTONIC
nanoseconds, and one for each request that left. What comes while a batch runs joins it, by turns in a prefill with the running
batch in it, or in a prefill of its own that the next decode takes in.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import generate_pb2 as pb
import generate_pb2_grpc as rpc
import grpc

PORT, FOLDER, SHARDS = int(sys.argv[1]), sys.argv[2], 2


class Entry:
    def __init__(self, ask):
        parameters = ask.get("parameters", {})
        self.inputs = ask["inputs"]
        self.most = parameters["max_new_tokens"]
        self.stop = parameters.get("stop", [])
        self.pieces = queue.Queue()
        self.gone = False


class Router:
    def __init__(self):
        self.waiting = queue.Queue()
        self.running = {}
        self.batches = []
        self.next_id = self.next_batch = 0
        self.truth = open(os.path.join(FOLDER, "truth"), "w", buffering=1)
        self.stubs, self.shards = [], []
        for rank in range(SHARDS):
            path = os.path.join(FOLDER, f"shard-{rank}")
            script = os.path.join(os.path.dirname(__file__), "tgi_shard.py")
            self.shards.append(subprocess.Popen([sys.executable, script, path, str(rank), str(SHARDS)]))
            stub = rpc.TextGenerationServiceStub(grpc.insecure_channel(f"unix:{path}"))
            stub.Health(pb.Nothing(), wait_for_ready=True, timeout=30)
            self.stubs.append(stub)

    def tell(self, **what):
        self.truth.write(json.dumps(what) + "\n")

    def call(self, method, request):
        """The same call to every shard; the answers together."""
        calls = [getattr(stub, method).future(request) for stub in self.stubs]
        return [call.result() for call in calls]

    def step(self, method, request, ids):
        start = time.monotonic_ns()
        answers = self.call(method, request)
        end = time.monotonic_ns()
        generations = [generation for answer in answers for generation in answer.generations]
        tokens = {generation.request_id: len(generation.tokens.ids) for generation in generations}
        self.tell(step=method, ids=ids, tokens=tokens, start=start, end=end)
        for generation in generations:
            self.give(generation)
        left = answers[0].batch
        return left if left.size else None

    def give(self, generation):
        entry = self.running[generation.request_id]
        done = generation.HasField("generated_text")
        entry.pieces.put((generation.tokens.ids[0], generation.generated_text if done else None))
        if done:
            del self.running[generation.request_id]
            text = generation.generated_text
            reason = "length" if text.finish_reason == 0 else "stop"
            self.tell(left=generation.request_id, generated=text.generated_tokens, reason=reason)

    def prefill(self, together):
        """Those who wait."""
        batch = pb.Batch(id=self.next_batch)
        self.next_batch += 1
        while not self.waiting.empty():
            entry = self.waiting.get()
            criteria = pb.StoppingCriteriaParameters(max_new_tokens=entry.most, stop_sequences=entry.stop)
            batch.requests.append(pb.Request(id=self.next_id, inputs=entry.inputs, stopping_parameters=criteria))
            self.running[self.next_id] = entry
            self.next_id += 1
        batch.size = len(batch.requests)
        request, ids = pb.PrefillRequest(batch=batch), [r.id for r in batch.requests]
        if together and self.batches:
            cached = self.batches.pop()
            request.cached_batch.CopyFrom(cached)
            ids = list(cached.request_ids) + ids
        left = self.step("Prefill", request, ids)
        self.batches += [left] if left else []

    def filter(self):
        """What is finished, or whose client has left, goes out of the batch."""
        for at, batch in enumerate(self.batches):
            for gone in [id for id in batch.request_ids if id in self.running and self.running[id].gone]:
                del self.running[gone]
                self.tell(left=gone, reason="abort")
            kept = [id for id in batch.request_ids if id in self.running]
            if kept and len(kept) < len(batch.request_ids):
                asked = pb.FilterBatchRequest(batch_id=batch.id, request_ids=kept)
                batch = self.call("FilterBatch", asked)[0].batch
            self.batches[at] = batch if kept else None
        self.batches = [batch for batch in self.batches if batch]

    def run(self):
        turn = 0
        while True:
            self.filter()
            if not self.batches or not self.waiting.empty():
                if self.waiting.empty():
                    time.sleep(0.002)
                    continue
                turn += 1
                self.prefill(together=turn % 2 == 0)
                self.filter()
            if self.batches:
                ids = [id for batch in self.batches for id in batch.request_ids]
                left = self.step("Decode", pb.DecodeRequest(batches=self.batches), ids)
                self.batches = [left] if left else []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        entry = Entry(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        ROUTER.waiting.put(entry)
        if self.path == "/generate_stream":
            self.stream(entry)
        else:
            self.answer(entry)

    def answer(self, entry):
        end = None
        while end is None:
            _, end = entry.pieces.get()
        reason = "length" if end.finish_reason == 0 else "stop_sequence"
        details = {"finish_reason": reason, "generated_tokens": end.generated_tokens, "prefill": [], "tokens": []}
        body = json.dumps({"generated_text": end.text, "details": details}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, entry):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        end, index = None, 0
        try:
            while end is None:
                token, end = entry.pieces.get()
                index += 1
                event = {"index": index, "token": {"id": token, "text": " word", "logprob": 0.0, "special": False}}
                event["generated_text"] = end.text if end else None
                event["details"] = None
                if end:
                    reason = "length" if end.finish_reason == 0 else "stop_sequence"
                    event["details"] = {"finish_reason": reason, "generated_tokens": end.generated_tokens}
                data = f"data:{json.dumps(event)}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            entry.gone = True
            self.close_connection = True


ROUTER = Router()
threading.Thread(target=ROUTER.run, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
