"""What libzmq puts on the wire, and which messages it means by it.

A relay stands between a socket that connects and one that is bound, and keeps the bytes of both directions in the
pieces in which they came. Out: one JSON line a scenario and transport, with the pieces and the messages.
"""

import json
import os
import random
import socket
import sys
import tempfile
import threading
import time

import zmq


class Relay:
    """Listens where clients connect, and speaks to the bound socket for each of them."""

    def __init__(self, family, listen, target, draw):
        self.family, self.target, self.draw, self.pieces = family, target, draw, []
        self.server = socket.socket(family)
        self.server.bind(listen)
        self.server.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.server.accept()
            far = socket.socket(self.family)
            far.connect(self.target)
            kept = {"received": [], "sent": []}
            self.pieces.append(kept)
            for source, sink, name in ((near, far, "received"), (far, near, "sent")):
                threading.Thread(target=self.pump, args=(source, sink, kept[name]), daemon=True).start()

    def pump(self, source, sink, kept):
        while True:
            try:
                data = source.recv(self.draw.choice([3, 100, 8192, 1 << 17]))
            except OSError:
                return
            if not data:
                break
            kept.append(data.hex())
            try:
                sink.sendall(data)
            except OSError:
                return
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def messages(draw, count):
    sizes = [0, 1, 33, 34, 255, 256, 1000, 8193, 100000]
    return [[draw.randbytes(draw.choice(sizes)) for _ in range(draw.choice([1, 1, 2, 4]))] for _ in range(count)]


def hexed(all_messages):
    return [[frame.hex() for frame in message] for message in all_messages]


def push_pull(draw, bound, connect):
    pull, wanted = bound(zmq.PULL), messages(draw, 60)
    push = connect(zmq.PUSH)
    for message in wanted:
        push.send_multipart(message)
    got = [pull.recv_multipart() for _ in wanted]
    return got, []


def heartbeats(draw, bound, connect):
    patient = {"HEARTBEAT_IVL": 50, "HEARTBEAT_TIMEOUT": 8000}
    pull = bound(zmq.PULL, **patient)
    push, wanted = connect(zmq.PUSH, **patient), messages(draw, 10)
    for message in wanted:
        push.send_multipart(message)
        time.sleep(0.02)
    return [pull.recv_multipart() for _ in wanted], []


def dealers(draw, bound, connect):
    """Two ask, and are answered: a connection each."""
    router, asked, answered = bound(zmq.ROUTER), [], []
    for name in (b"one", b"two"):
        dealer = connect(zmq.DEALER, IDENTITY=name)
        for message in messages(draw, 10):
            dealer.send_multipart(message)
            got = router.recv_multipart()
            asked.append(got[1:])
            router.send_multipart([name, b"answer", *got[1:]])
            answered.append(dealer.recv_multipart())
    return asked, answered


def subscriptions(draw, bound, connect):
    publisher, subscriber = bound(zmq.PUB), connect(zmq.SUB)
    subscriber.subscribe(b"a")
    subscriber.subscribe(b"b")
    time.sleep(0.2)
    subscriber.unsubscribe(b"b")
    time.sleep(0.2)
    for topic in (b"a", b"b", b"c", b"a"):
        publisher.send_multipart([topic, draw.randbytes(500)])
    return [], [subscriber.recv_multipart() for _ in range(2)]


def reconnects(draw, bound, connect):
    pull, got = bound(zmq.PULL), []
    for _ in range(3):
        push = connect(zmq.PUSH)
        for message in messages(draw, 5):
            push.send_multipart(message)
            got.append(pull.recv_multipart())
        push.close()
    return got, []


def curve(_draw, bound, connect):
    public, secret = zmq.curve_keypair()
    pull = bound(zmq.PULL, CURVE_SERVER=1, CURVE_SECRETKEY=secret, CURVE_PUBLICKEY=public)
    own = zmq.curve_keypair()
    push = connect(zmq.PUSH, CURVE_SERVERKEY=public, CURVE_PUBLICKEY=own[0], CURVE_SECRETKEY=own[1])
    push.send(b"secret")
    pull.recv()
    return None, None


SCENARIOS = [push_pull, heartbeats, dealers, subscriptions, reconnects, curve]


def run(scenario, transport, draw):
    context, folder = zmq.Context(), tempfile.mkdtemp()
    opened = []
    if transport == "tcp":
        free = socket.create_server(("127.0.0.1", 0))
        target = free.getsockname()
        free.close()
        relay_at, family, address = ("127.0.0.1", 0), socket.AF_INET, f"tcp://127.0.0.1:{target[1]}"
    else:
        target, relay_at, family = f"{folder}/bound", f"{folder}/relay", socket.AF_UNIX
        address = f"ipc://{target}"

    def made(kind, options):
        one = context.socket(kind)
        one.set_hwm(0)
        one.rcvtimeo = one.sndtimeo = 10000
        one.linger = 0
        for name, value in options.items():
            one.setsockopt(getattr(zmq, name), value)
        opened.append(one)
        return one

    def bound(kind, **options):
        one = made(kind, options)
        one.bind(address)
        return one

    relay = Relay(family, relay_at, target, draw)

    def connect(kind, **options):
        one = made(kind, options)
        at = relay.server.getsockname()
        one.connect(f"tcp://127.0.0.1:{at[1]}" if transport == "tcp" else f"ipc://{at}")
        return one

    to_bound, from_bound = scenario(draw, bound, connect)
    time.sleep(0.1)
    said = {"scenario": scenario.__name__, "transport": transport, "connections": relay.pieces}
    if to_bound is not None:
        said |= {"to_bound": hexed(to_bound), "from_bound": hexed(from_bound)}
    for one in opened:
        one.close()
    return said


def main():
    draw = random.Random(int(sys.argv[1]))
    for transport in ("tcp", "ipc"):
        for scenario in SCENARIOS:
            print(json.dumps(run(scenario, transport, draw)), flush=True)
    os._exit(0)


main()
