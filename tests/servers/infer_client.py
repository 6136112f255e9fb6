"""A gRPC client of the Open Inference Protocol on Python's grpcio that keeps its own record of every call.

Arguments: PORT STREAMS TOKENS PACE_MS. It connects, prints `ready` and waits for a line, so that a profiler can attach
behind a connection that is in use. Then it makes STREAMS calls at once on other connections, each with a stream of
TOKENS responses, followed by a call without a stream and one for a model that does not exist; and one call on the first
connection. One JSON line a call goes to standard output, times in nanoseconds of CLOCK_REALTIME.
"""

import json
import secrets
import sys
import threading
import time

import grpc
import inference_pb2 as pb
import inference_pb2_grpc as rpc

port, streams, tokens, pace_ms = map(int, sys.argv[1:5])
CHANNELS = 4
STAGGER_S = 0.01
lock = threading.Lock()


def request(model, **parameters):
    value = pb.ModelInferRequest(model_name=model, id=secrets.token_hex(8))
    for name, number in parameters.items():
        value.parameters[name].int64_param = number
    tensor = value.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"what the client asks")
    return value


def record(method, call, old=False):
    """Runs `call(metadata, seen)`, which tells each response's bytes to `seen`, and prints what became of it."""
    trace = secrets.token_hex(16)
    arrived, body = [], []

    def seen(message):
        arrived.append(time.time_ns())
        body.append(message.ByteSize())

    sent = time.time_ns()
    code = grpc.StatusCode.OK
    try:
        call([("traceparent", f"00-{trace}-{secrets.token_hex(8)}-01")], seen)
    except grpc.RpcError as error:
        code = error.code()
    line = {"trace_id": trace, "method": method, "code": code.name, "sent_ns": sent, "end_ns": time.time_ns()}
    line |= {"messages": len(body), "message_bytes": sum(body), "first_ns": arrived[0] if arrived else None, "old": old}
    with lock:
        print(json.dumps(line), flush=True)


def stream(stub, index):
    time.sleep(index * STAGGER_S)

    def call(metadata, seen):
        asked = iter([request("tiny", tokens=tokens, pace_ms=pace_ms)])
        for message in stub.ModelStreamInfer(asked, metadata=metadata, timeout=60):
            seen(message)

    record("ModelStreamInfer", call)
    record("ModelInfer", lambda metadata, seen: seen(stub.ModelInfer(request("tiny"), metadata=metadata)))
    record("ModelInfer", lambda metadata, seen: seen(stub.ModelInfer(request("missing"), metadata=metadata)))


def connect():
    # A pool of its own for each channel: else all of them share one connection.
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
    return rpc.GRPCInferenceServiceStub(channel)


old = connect()
for _ in range(2):
    old.ServerReady(pb.ServerReadyRequest(), timeout=30, wait_for_ready=True)
print("ready", flush=True)
sys.stdin.readline()
stubs = [connect() for _ in range(CHANNELS)]
threads = [threading.Thread(target=stream, args=(stubs[index % CHANNELS], index)) for index in range(streams)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
record("ModelInfer", lambda metadata, seen: seen(old.ModelInfer(request("tiny"), metadata=metadata)), old=True)
