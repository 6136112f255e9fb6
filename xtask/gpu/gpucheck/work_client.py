"""The client: streamed chat requests over HTTP, so many at a time. In: where, how many, how long. Out: one record a
request, as the client saw it. Absent: prompts and answers; words mean nothing here.
"""

import http.client
import json
import queue
import random
import threading
import time

from .worker import serve

PATIENCE_S = 120


def load(port, model, requests, streams, prompt_words, max_tokens, seed):
    """Sends all requests; the time is from the first one sent to the last one answered."""
    chance = random.Random(seed)
    work = queue.SimpleQueue()
    for _ in range(requests):
        words = " ".join(f"w{chance.randrange(1000)}" for _ in range(prompt_words))
        work.put((f"{chance.getrandbits(128) | 1:032x}", body(model, words, max_tokens)))
    records, lock = [], threading.Lock()

    def one_stream():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        while True:
            try:
                trace_id, sent = work.get_nowait()
            except queue.Empty:
                return connection.close()
            record = exchange(connection, trace_id, sent)
            with lock:
                records.append(record)

    begin = time.monotonic()
    threads = [threading.Thread(target=one_stream) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"elapsed_s": time.monotonic() - begin, "records": records}


def body(model, words, max_tokens):
    return json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


def exchange(connection, trace_id, sent):
    """One request; an error is a record, too."""
    headers = {"Content-Type": "application/json", "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    record = {"trace_id": trace_id, "status": None, "ttft_s": None, "completion_tokens": 0, "prompt_tokens": 0}
    try:
        connection.request("POST", "/v1/chat/completions", sent, headers)
        begin = time.monotonic()
        response = connection.getresponse()
        record["status"] = response.status
        for line in response:
            if line.startswith(b"data: {"):
                take(record, json.loads(line[6:]), begin)
    except (OSError, http.client.HTTPException, ValueError) as error:
        record["error"] = f"{type(error).__name__}: {error}"
        connection.close()
    record["duration_s"] = time.monotonic() - begin if record["status"] else None
    return record


def take(record, event, begin):
    if record["ttft_s"] is None and any(choice.get("delta", {}).get("content") for choice in event.get("choices", [])):
        record["ttft_s"] = time.monotonic() - begin
    usage = event.get("usage")
    if usage:
        record["completion_tokens"], record["prompt_tokens"] = usage["completion_tokens"], usage["prompt_tokens"]


if __name__ == "__main__":
    serve({"load": load})
