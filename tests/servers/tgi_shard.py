"""A shard of a small TGI: batches of requests that only count. Arguments: PATH-OF-SOCKET RANK SHARDS.

Each shard has every batch and answers for the requests whose place in it is its rank. A request is done when it has as many
tokens as it may have (`finish_reason` 0), or at its fifth token where it has a stop sequence (2).
"""

import sys
import time
from concurrent import futures

import generate_pb2 as pb
import generate_pb2_grpc as rpc
import grpc

RANK, SHARDS = int(sys.argv[2]), int(sys.argv[3])
FORWARD_S = 0.003
STOPS_AT = 5


class Row:
    def __init__(self, request):
        self.id = request.id
        self.most = request.stopping_parameters.max_new_tokens
        self.stops = bool(request.stopping_parameters.stop_sequences)
        self.generated = 0

    def next(self):
        self.generated += 1
        generation = pb.Generation(request_id=self.id, tokens=pb.Tokens(ids=[1000 + self.generated]))
        if self.is_done():
            text = generation.generated_text
            text.text, text.generated_tokens = "text", self.generated
            text.finish_reason = 2 if self.stops and self.generated == STOPS_AT else 0
        return generation

    def is_done(self):
        return self.generated >= self.most or self.stops and self.generated == STOPS_AT


class Service(rpc.TextGenerationServiceServicer):
    def __init__(self):
        self.batches = {}

    def Health(self, request, context):
        return pb.Nothing()

    def Prefill(self, request, context):
        rows = [Row(r) for r in request.batch.requests]
        if request.HasField("cached_batch"):
            rows = self.batches.pop(request.cached_batch.id) + rows
        return self.step(request.batch.id, rows)

    def Decode(self, request, context):
        rows = [row for batch in request.batches for row in self.batches.pop(batch.id)]
        return self.step(request.batches[0].id, rows)

    def FilterBatch(self, request, context):
        rows = [row for row in self.batches[request.batch_id] if row.id in request.request_ids]
        self.batches[request.batch_id] = rows
        return pb.FilterBatchResponse(batch=self.cached(request.batch_id))

    def cached(self, batch):
        ids = [row.id for row in self.batches[batch]]
        return pb.CachedBatch(id=batch, request_ids=ids, size=len(ids), current_tokens=len(ids))

    def step(self, batch, rows):
        start = time.monotonic_ns()
        time.sleep(FORWARD_S)
        generations = [row.next() for row in rows]
        mine = [generation for at, generation in enumerate(generations) if at % SHARDS == RANK]
        self.batches[batch] = rows
        total = time.monotonic_ns() - start
        answer = pb.StepResponse(generations=mine, forward_ns=total, decode_ns=1, total_ns=total)
        if not all(row.is_done() for row in rows):
            answer.batch.CopyFrom(self.cached(batch))
        return answer


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
rpc.add_TextGenerationServiceServicer_to_server(Service(), server)
server.add_insecure_port(f"unix:{sys.argv[1]}")
server.start()
server.wait_for_termination()
