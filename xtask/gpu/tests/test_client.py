"""The client on a server that streams as model servers do, and the protocol between the run and its workloads."""

import http.server
import json
import tempfile
import threading
import types
import unittest

from gpucheck.budget import Deadline, Late
from gpucheck.work_client import load
from gpucheck.worker import Died, Worker

EVENTS = [
    {"choices": [{"delta": {"role": "assistant"}}]},
    {"choices": [{"delta": {"content": " w1"}}]},
    {"choices": [{"delta": {"content": " w2"}}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.headers["traceparent"], body))
        if body["model"] == "busy":
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in EVENTS:
            data = b"data: " + json.dumps(event).encode() + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        return self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def log_message(self, *_):
        """Silent."""


class Client(unittest.TestCase):
    def setUp(self):
        Handler.asked.clear()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()

    def test_every_request_is_sent_once_with_a_trace_of_its_own(self):
        found = load(self.port, "m", 5, 2, prompt_words=3, max_tokens=2, seed=1)
        records = found["records"]
        self.assertEqual([record["status"] for record in records], [200] * 5)
        self.assertEqual({record["completion_tokens"] for record in records}, {2})
        self.assertEqual({record["prompt_tokens"] for record in records}, {5})
        self.assertTrue(all(0 < record["ttft_s"] <= record["duration_s"] for record in records))
        sent = sorted(f"00-{record['trace_id']}-00f067aa0ba902b7-01" for record in records)
        self.assertEqual(sorted(trace for trace, _ in Handler.asked), sent)
        self.assertEqual(len(set(sent)), 5)

    def test_a_refusal_is_a_record(self):
        (record,) = load(self.port, "busy", 1, 1, 3, 2, seed=1)["records"]
        self.assertEqual((record["status"], record["ttft_s"], record["completion_tokens"]), (503, None, 0))

    def test_a_server_that_is_not_there_is_a_record(self):
        self.tearDown()
        (record,) = load(self.port, "m", 1, 1, 3, 2, seed=1)["records"]
        self.assertIn("ConnectionRefused", record["error"])
        self.setUp()


class Protocol(unittest.TestCase):
    def test_a_workload_answers_and_its_errors_end_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            settings = types.SimpleNamespace(raw=folder, child_environment={})
            nothing = {"port": 1, "model": "m", "streams": 1, "prompt_words": 1, "max_tokens": 1, "seed": 1}
            with Worker(settings, "work_client", "client") as worker:
                deadline = Deadline(20)
                self.assertEqual(worker.ask(deadline, "load", requests=0, **nothing)["records"], [])
                with self.assertRaisesRegex(Died, "KeyError"):
                    worker.ask(deadline, "dance")
                self.assertEqual(worker.ask(deadline, "load", requests=0, **nothing)["records"], [])
                # Its late answer must not be taken for that to another request: it is ended.
                with self.assertRaises(Late):
                    worker.ask(Deadline(0.0001), "load", requests=0, **nothing)
                with self.assertRaises(Died):
                    worker.ask(deadline, "load", requests=0, **nothing)
