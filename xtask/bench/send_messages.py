"""Sends messages as vLLM's engine does, on command: `send_messages.py BYTES`.

In: a count a line. Out: nanoseconds of the sending thread's CPU for one of them. The first line says that it is ready.
A thread receives them and throws them away. vLLM 0.32 sends an engine's outputs by `send_multipart(…, copy=False,
track=True)` on a PUSH socket of a unix path (vllm/v1/engine/core.py).
"""

import sys
import tempfile
import threading
import time

import zmq


def receive(context, address):
    socket = context.socket(zmq.PULL)
    socket.set_hwm(0)
    socket.connect(address)
    while True:
        socket.recv(copy=False)


def main(size):
    context = zmq.Context()
    address = f"ipc://{tempfile.mkdtemp()}/messages"
    socket = context.socket(zmq.PUSH)
    socket.set_hwm(0)
    socket.bind(address)
    threading.Thread(target=receive, args=(context, address), daemon=True).start()
    message = bytes(size)
    socket.send(message)
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line)
        start = time.thread_time_ns()
        for _ in range(count):
            socket.send_multipart((message,), copy=False, track=True)
        print((time.thread_time_ns() - start) / count, flush=True)
        # What is still on its way would take the next count's time.
        time.sleep(0.05)


main(int(sys.argv[1]))
