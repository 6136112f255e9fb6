"""Stage 6: a model server with and without gpuspan, in turn. In: a model's shape. Out: tokens a second of both, and
what gpuspan says of each request beside what the client saw. Absent: other loads than short prompts on 32 streams.
"""

import threading
import time

from . import nvml
from .compare import median, ratio
from .context import FAILURES
from .report import DIFFERS, FACT, OK
from .serving import Server
from .worker import Died, Worker

STAGE = "server"
STREAMS = 32
PROMPT_WORDS, MAX_TOKENS = 32, 64
#: Seconds of a round: long enough for a steady batch, short enough for several pairs.
ROUND_S = 4
PAIRS = 7
#: The first rounds make cuBLAS load kernels for shapes that are new.
WARM_UP_S, WARM_ROUNDS = 20, 8
#: Share of the tokens a second that must be left.
GOAL = 0.97
TINY = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
#: 0.97 billion parameters.
LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def run(name, shape, own=False):
    def stage(context, deadline):
        try:
            server = Server(context.settings, shape, name, deadline, own) if own else started(
                context, deadline, name, shape
            )
            with server, Worker(context.settings, "work_client", f"client-{name}") as client:
                context.report.add(STAGE, f"{name}: server", f"{server.kind}, answers")
                Rounds(context, deadline, server, client, name).run()
        except FAILURES as error:
            context.report.skip(STAGE, name, error)

    return stage


def started(context, deadline, name, shape):
    """A server; our own where `transformers serve` does not start."""
    try:
        return Server(context.settings, shape, name, deadline)
    except Died as error:
        context.report.skip(STAGE, f"{name}: transformers serve", error)
        return Server(context.settings, shape, name, deadline, own=True)


class Rounds:
    """Pairs of rounds, the first without gpuspan."""

    def __init__(self, context, deadline, server, client, name):
        self.context, self.deadline, self.server, self.client, self.name = context, deadline, server, client, name
        self.warm_rounds = 0
        self.streams = context.settings.times(STREAMS, 4)
        self.alone, self.observed, self.summaries, self.watch = [], [], [], Watch(context.settings)

    def run(self):
        usual = self.warm_up()
        batches = min(max(round(ROUND_S / max(usual, 0.01)), 1), 16)
        requests = self.streams * (1 if self.context.settings.standins else batches)
        pair_s = 2 * usual * batches + 3
        while len(self.alone) < PAIRS and (self.deadline.has(pair_s) or not self.alone):
            self.pair(requests)
        self.report()

    def warm_up(self):
        """Rounds as they are measured, until they are usual; what such a round takes."""
        took, end = [], time.monotonic() + (0 if self.context.settings.standins else WARM_UP_S)
        while len(took) < 2 or (len(took) < WARM_ROUNDS and time.monotonic() < end):
            took.append(self.load(self.streams)["elapsed_s"])
            self.warm_rounds += 1
        self.context.report.keep(f"warm-up {self.name}", took)
        return median(took[len(took) // 2 :])

    def pair(self, requests):
        # Every second pair begins with gpuspan, so that a drift of the clocks favours neither.
        order = [self.bare, self.with_gpuspan]
        for round_ in order if len(self.alone) % 2 == 0 else order[::-1]:
            round_(requests)

    def bare(self, requests):
        self.alone.append(self.load(requests))

    def with_gpuspan(self, requests):
        if self.context.blind:
            return
        with self.context.gpuspan.attach(
            self.server.child.pid, f"server-{self.name}", "--output", "json"
        ) as observation:
            with self.watch:
                result = self.load(requests)
            # The last copies may still be under way when the last answer is out.
            time.sleep(0.5)
            summary = observation.stop()
            self.summaries.append((summary, observation.printed()))
        self.observed.append(result)

    def load(self, requests):
        return self.client.ask(
            self.deadline,
            "load",
            port=self.server.port,
            model=self.server.model,
            requests=requests,
            streams=self.streams,
            prompt_words=PROMPT_WORDS,
            max_tokens=MAX_TOKENS,
            seed=len(self.alone) + 100 * len(self.observed) + 10_000 * self.warm_rounds,
        )

    def report(self):
        report, name = self.context.report, self.name
        report.keep(f"server {name}", {"alone": self.alone, "observed": self.observed})
        alone = [rate(round_) for round_ in self.alone]
        if not self.observed:
            return report.skip(
                STAGE,
                f"{name}: tokens/s",
                f"{median(alone):.0f} without gpuspan; {self.context.blind or 'no time for more'}",
            )
        observed = [rate(round_) for round_ in self.observed]
        middle, low, high = ratio(alone, observed)
        text = f"×{middle:.3f} ({low:.3f} to {high:.3f}; {median(alone):.0f} to {median(observed):.0f})"
        text += f", {len(observed)} pairs, {self.streams} streams"
        # For shapes of attention that are new cuBLAS loads a kernel, 50 to 70 ms each on an H100: rounds with some take
        # up to three times as long as others, with gpuspan and without, and their ratio says nothing.
        loaded = [summary["calls"].get("cuLibraryLoadData", 0) for summary, _ in self.summaries]
        if any(loaded):
            text += f"; not steady: kernels loaded in the observed rounds {loaded}"
        verdict = FACT if any(loaded) else OK if middle >= GOAL else DIFFERS
        report.add(STAGE, f"{name}: tokens/s", text, verdict)
        self.rest()

    def rest(self):
        self.requests()
        self.cost()

    def requests(self):
        """Every round's requests, one by one, by trace id."""
        report, name = self.context.report, self.name
        lines = [line for _, printed in self.summaries for line in printed if line["type"] == "request"]
        seen = {request["trace_id"]: request for request in lines}
        sent = [record for round_ in self.observed for record in round_["records"]]
        failed = [record for record in sent if record["status"] != 200 or record.get("error")]
        if failed:
            report.add(
                STAGE,
                f"{name}: failed requests",
                f"{len(failed)} of {len(sent)}: {failed[0].get('error', failed[0]['status'])}",
                DIFFERS,
            )
        pairs = [(record, seen[record["trace_id"]]) for record in sent if record["trace_id"] in seen]
        report.equal(STAGE, f"{name}: requests", len(pairs), len(sent), "client")
        for field, key in [("output_tokens", "completion_tokens"), ("input_tokens", "prompt_tokens")]:
            ours = sum(request[field] or 0 for _, request in pairs)
            report.equal(
                STAGE, f"{name}: {field.replace('_', ' ')}", ours, sum(record[key] for record, _ in pairs), "client"
            )
        self.first_tokens(pairs)

    def first_tokens(self, pairs):
        both = [(record["ttft_s"], request["time_to_first_token_s"]) for record, request in pairs]
        away = [(theirs - ours) * 1e3 for theirs, ours in both if theirs is not None and ours is not None]
        if not away:
            return self.context.report.skip(STAGE, f"{self.name}: first token", "no pair of times")
        middle = median([theirs for theirs, _ in both if theirs is not None]) * 1e3
        # The client's begins when it has sent, gpuspan's when the server reads.
        text = f"client's median {middle:.1f} ms; gpuspan's is less by {median(away):.2f} ms (median; "
        text += f"{min(away):.2f} to {max(away):.2f}), {len(away)} requests"
        self.context.report.add(STAGE, f"{self.name}: first token", text)

    def cost(self):
        """For a token of the observed rounds: launches, gpuspan's CPU, joules."""
        tokens = sum(record["completion_tokens"] for round_ in self.observed for record in round_["records"]) or 1

        def total(read):
            return sum(read(summary) for summary, _ in self.summaries)

        launches = total(lambda s: s["launches"]["total"] + s["launches"]["graph_launches"]) / tokens
        cpu = total(lambda s: s["self"]["cpu_s"]) * 1e6 / tokens
        lost = total(lambda s: s["loss"]["lost"])
        unnamed = total(lambda s: s["launches"]["unnamed"])
        text = f"{launches:.1f} launches and {cpu:.1f} µs of gpuspan's CPU a token (start and end included); "
        text += f"lost {lost}, unnamed launches {unnamed}"
        self.context.report.add(
            STAGE, f"{self.name}: cost", f"{text}; {self.watch.words(tokens)}", DIFFERS if lost else OK
        )
        low, best, high = (
            total(lambda s, name=name: s["steps"]["gpu_ns"][name]) for name in ("bounded_lo", "estimated", "bounded_hi")
        )
        window = sum(round_["elapsed_s"] for round_ in self.observed) * 1e9
        text = f"inferred busy {low / window:.1%} to {high / window:.1%} of the rounds, at best {best / window:.1%}; "
        text += f"NVML utilisation {self.watch.mean()}"
        self.context.report.add("GPU time", f"{self.name}: share", text)


def rate(round_):
    return sum(record["completion_tokens"] for record in round_["records"]) / round_["elapsed_s"]


class Watch:
    """NVML's utilisation and energy while `with` lasts."""

    def __init__(self, settings):
        self.nvml, _ = nvml.opened(settings)
        self.samples, self.joules = [], 0.0

    def __enter__(self):
        self.done = threading.Event()
        self.before = self.nvml and self.nvml.energy_mj()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()

    def sample(self):
        while self.nvml and not self.done.wait(0.2):
            self.samples.append(self.nvml.utilisation())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        after = self.nvml and self.nvml.energy_mj()
        if self.before is not None and after is not None:
            self.joules += (after - self.before) / 1e3

    def words(self, tokens):
        return f"{self.joules / tokens:.4f} J a token by NVML" if self.joules else "no energy from NVML"

    def mean(self):
        samples = [sample for sample in self.samples if sample is not None]
        return f"{sum(samples) / len(samples):.0f} % (mean of {len(samples)} samples)" if samples else "not readable"
