"""Frames of every kind that libzmq has, sent and received by one process: a line on standard input begins it.

Sizes around those of libzmq's kinds (up to 33 bytes inside the structure, more behind a pointer, received ones in the
receiver's buffer) and of the records that carry them. The content of frame n is made from n alone.
"""

import sys

import zmq

SIZES = [0, 1, 32, 33, 34, 207, 208, 209, 976, 977, 4048, 4049, 16336, 16337, 65488, 65489, 200_000]


def content(size):
    return bytes((size + 7 * place) % 251 for place in range(size))


def main():
    context = zmq.Context()
    sender, receiver = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    sender.bind(f"ipc://{sys.argv[1]}")
    receiver.connect(f"ipc://{sys.argv[1]}")
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "spin":
            for _ in range(2000):
                try:
                    receiver.recv(zmq.NOBLOCK)
                except zmq.Again:
                    pass
        else:
            for size in SIZES:
                # Without a copy libzmq is handed the caller's own bytes.
                sender.send_multipart([b"\x02", content(size)], copy=size % 2 == 0)
                assert receiver.recv_multipart() == [b"\x02", content(size)]
        print("done", flush=True)


main()
