"""A small continuous-batching server on PyTorch alone, for machines where `transformers serve` cannot be imported:
`python -m gpucheck.work_server SHAPE PORT`. A Llama-like model with random weights, a fixed number of slots, one step
for all busy slots, OpenAI's chat API as a stream. Absent: positions, sampling, everything that text would need.
"""

import http.server
import json
import queue
import sys
import threading

import torch
from torch.nn import functional

SLOTS = 32
LENGTH = 512
VOCABULARY = 1027


def weight(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) / shape[-1] ** 0.5


class Model:
    """Weights and a cache of keys and values by slot."""

    def __init__(self, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads):
        self.width = hidden_size // num_attention_heads
        kv = num_key_value_heads * self.width
        shapes = {
            "q": (hidden_size, hidden_size),
            "k": (kv, hidden_size),
            "v": (kv, hidden_size),
            "o": (hidden_size, hidden_size),
            "gate": (intermediate_size, hidden_size),
            "up": (intermediate_size, hidden_size),
            "down": (hidden_size, intermediate_size),
        }
        self.embedding = weight(VOCABULARY, hidden_size)
        self.weights = [{name: weight(*shape) for name, shape in shapes.items()} for _ in range(num_hidden_layers)]
        cache = (num_hidden_layers, SLOTS, num_key_value_heads, LENGTH, self.width)
        self.keys = torch.zeros(cache, device="cuda", dtype=torch.bfloat16)
        self.values = torch.zeros_like(self.keys)
        self.norm = torch.ones(hidden_size, device="cuda", dtype=torch.bfloat16)

    def forward(self, tokens, slots, starts):
        """The next token of each slot; `tokens` is (slots, count), written into the cache from `starts` on."""
        at = starts[:, None] + torch.arange(tokens.shape[1], device="cuda")
        mask = torch.arange(LENGTH, device="cuda")[None, None, None] <= at[:, None, :, None]
        x = functional.embedding(tokens, self.embedding)
        for layer, weights in enumerate(self.weights):
            x = x + self.attention(self.normed(x), layer, weights, slots, at, mask)
            x = x + self.feed_forward(self.normed(x), weights)
        return functional.linear(x[:, -1], self.embedding).argmax(-1)

    def normed(self, x):
        return functional.rms_norm(x, x.shape[-1:], self.norm)

    def attention(self, h, layer, weights, slots, at, mask):
        heads = {name: functional.linear(h, weights[name]).unflatten(-1, (-1, self.width)) for name in "qkv"}
        self.keys[layer, slots[:, None], :, at] = heads["k"]
        self.values[layer, slots[:, None], :, at] = heads["v"]
        seen = functional.scaled_dot_product_attention(
            heads["q"].transpose(1, 2),
            self.keys[layer, slots],
            self.values[layer, slots],
            attn_mask=mask,
            enable_gqa=True,
        )
        return functional.linear(seen.transpose(1, 2).flatten(2), weights["o"])

    def feed_forward(self, h, weights):
        gate = functional.silu(functional.linear(h, weights["gate"]))
        return functional.linear(gate * functional.linear(h, weights["up"]), weights["down"])


class Request:
    """What a connection waits for: tokens, then None."""

    def __init__(self, prompt_tokens, max_tokens):
        self.prompt_tokens = min(prompt_tokens, LENGTH // 2)
        self.left = min(max_tokens, LENGTH - self.prompt_tokens - 1)
        self.tokens = queue.SimpleQueue()
        self.position = self.last = 0


class Engine(threading.Thread):
    """Admits one waiting request a step (its prompt is a step of its own), then steps all busy slots together."""

    def __init__(self, model):
        super().__init__(daemon=True, name="engine")
        self.model, self.waiting, self.busy = model, queue.SimpleQueue(), {}

    @torch.inference_mode()
    def run(self):
        while True:
            if not self.busy or (len(self.busy) < SLOTS and not self.waiting.empty()):
                self.admit(self.waiting.get())
            self.step()

    def admit(self, request):
        slot = next(slot for slot in range(SLOTS) if slot not in self.busy)
        tokens = torch.arange(request.prompt_tokens, device="cuda")[None] % VOCABULARY
        self.busy[slot] = request
        request.position = request.prompt_tokens
        self.give({slot: request}, self.model.forward(tokens, self.on_device([slot]), self.on_device([0])))

    def step(self):
        if not self.busy:
            return
        members = dict(self.busy)
        tokens = self.on_device([request.last for request in members.values()])[:, None]
        starts = self.on_device([request.position for request in members.values()])
        for request in members.values():
            request.position += 1
        self.give(members, self.model.forward(tokens, self.on_device(list(members)), starts))

    def give(self, members, tokens):
        for (slot, request), token in zip(members.items(), tokens.tolist()):
            request.last, request.left = token, request.left - 1
            request.tokens.put(token)
            if request.left == 0:
                request.tokens.put(None)
                del self.busy[slot]

    def on_device(self, numbers):
        return torch.tensor(numbers, device="cuda")


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    engine = None

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = sum(len(message["content"].split()) for message in asked["messages"])
        request = Request(words, asked.get("max_tokens", 16))
        self.engine.waiting.put(request)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        made = 0
        for token in iter(request.tokens.get, None):
            made += 1
            self.event(asked, [{"index": 0, "delta": {"content": f" w{token}"}, "finish_reason": None}])
        usage = {
            "prompt_tokens": request.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": request.prompt_tokens + made,
        }
        self.event(asked, [{"index": 0, "delta": {}, "finish_reason": "length"}], usage)
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, asked, choices, usage=None):
        event = {
            "id": f"chatcmpl-{id(asked)}",
            "object": "chat.completion.chunk",
            "model": asked["model"],
            "choices": choices,
        }
        if usage:
            event["usage"] = usage
        self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_):
        """Silent."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    #: As many connections as streams come at once.
    request_queue_size = 128


def main(shape, port):
    Handler.engine = Engine(Model(**json.loads(shape)))
    Handler.engine.start()
    Server(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
