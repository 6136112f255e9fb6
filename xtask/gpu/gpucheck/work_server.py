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

SLOTS = 32
LENGTH = 512
VOCABULARY = 1027


class Model:
    """Weights and a cache of keys and values by slot."""

    def __init__(self, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads):
        self.heads, self.kv, self.layers = num_attention_heads, num_key_value_heads, num_hidden_layers
        self.width = hidden_size // num_attention_heads
        new = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16) / shape[-1] ** 0.5
        self.embedding = new(VOCABULARY, hidden_size)
        kv = self.kv * self.width
        self.weights = [
            {"q": new(hidden_size, hidden_size), "k": new(kv, hidden_size), "v": new(kv, hidden_size), "o": new(hidden_size, hidden_size),
             "gate": new(intermediate_size, hidden_size), "up": new(intermediate_size, hidden_size), "down": new(hidden_size, intermediate_size)}
            for _ in range(self.layers)
        ]
        cache = (self.layers, SLOTS, self.kv, LENGTH, self.width)
        self.keys = torch.zeros(cache, device="cuda", dtype=torch.bfloat16)
        self.values = torch.zeros_like(self.keys)
        self.norm = torch.ones(hidden_size, device="cuda", dtype=torch.bfloat16)

    def forward(self, tokens, slots, starts):
        """The next token of each slot; `tokens` is (slots, count), written into the cache from `starts` on."""
        functional = torch.nn.functional
        batch, count = tokens.shape
        at = starts[:, None] + torch.arange(count, device="cuda")
        mask = torch.arange(LENGTH, device="cuda")[None, None, None] <= at[:, None, :, None]
        x = functional.embedding(tokens, self.embedding)
        for layer, weights in enumerate(self.weights):
            h = functional.rms_norm(x, x.shape[-1:], self.norm)
            split = lambda name, heads: functional.linear(h, weights[name]).view(batch, count, heads, self.width)
            self.keys[layer, slots[:, None], :, at] = split("k", self.kv)
            self.values[layer, slots[:, None], :, at] = split("v", self.kv)
            keys, values = self.keys[layer, slots], self.values[layer, slots]
            seen = functional.scaled_dot_product_attention(
                split("q", self.heads).transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=True)
            x = x + functional.linear(seen.transpose(1, 2).reshape(batch, count, -1), weights["o"])
            h = functional.rms_norm(x, x.shape[-1:], self.norm)
            x = x + functional.linear(functional.silu(functional.linear(h, weights["gate"])) * functional.linear(h, weights["up"]), weights["down"])
        return functional.linear(x[:, -1], self.embedding).argmax(-1)


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
        usage = {"prompt_tokens": request.prompt_tokens, "completion_tokens": made, "total_tokens": request.prompt_tokens + made}
        self.event(asked, [{"index": 0, "delta": {}, "finish_reason": "length"}], usage)
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, asked, choices, usage=None):
        event = {"id": f"chatcmpl-{id(asked)}", "object": "chat.completion.chunk", "model": asked["model"], "choices": choices}
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
