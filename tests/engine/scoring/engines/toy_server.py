"""A completions server on loopback for tests: it answers as vLLM does, from any function of a prefix, or with a fault."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

LogProbabilities = Callable[[Sequence[int]], np.ndarray]
"""Of ids, [ids, vocabulary]: row i holds the log-probability of each token after ids[: i + 1]."""


@dataclass
class Behaviour:
    """What the server does; `faults` are named in the tests."""

    log_probabilities: LogProbabilities
    name: str = "toy"
    limit: int = 64
    version: str = "1"
    end: int = 1
    """The token that ends a text."""
    faults: set[str] = field(default_factory=set)
    refusals: list[int] = field(default_factory=list)
    """Status codes that the next calls of `/v1/completions` get."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    answers_left: int | None = None
    """Completions after which the server breaks every connection off."""

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = [self.choice(index, ids, body) for index, ids in enumerate(body["prompt"])]
        sent = sum(map(len, body["prompt"]))
        if "tokenizes anew" in self.faults:
            sent += 1
        if "a choice is missing" in self.faults and len(choices) > 1:
            choices.pop()
        return {"choices": list(reversed(choices)), "usage": {"prompt_tokens": sent}}

    def choice(self, index: int, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        if body["max_tokens"] > 1:
            return self.written(index, ids, body)
        table = self.log_probabilities(ids)
        rows = table[-1]
        best = int(rows.argmax())
        if "no log-probabilities" in self.faults:
            return {"index": index, "logprobs": None, "text": "x"}
        if body.get("echo"):
            values: list[float | None] = [None]
            values += [float(table[i - 1, ids[i]]) for i in range(1, len(ids))]
            if "shifted by one" in self.faults:
                values = [None, *values[:-1]]
            if "not finite" in self.faults:
                values[-1] = float("nan")
            if "fewer values" in self.faults:
                values.pop()
            logprobs = {"token_logprobs": [*values, float(rows[best])], "tokens": []}
        else:
            logprobs = {"token_logprobs": [float(rows[best])], "tokens": [f"token_id:{best}"]}
            asked = body.get("logprob_token_ids") if "steps are unknown" not in self.faults else None
            logprobs["top_logprobs"] = [{f"token_id:{i}": float(rows[i]) for i in [*(asked or ()), best]}]
        return {"index": index, "logprobs": logprobs, "prompt_token_ids": ids, "token_ids": [best]}

    def written(self, index: int, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        """The most probable tokens, or, above temperature 0, tokens drawn from the seed."""
        random = np.random.default_rng(body.get("seed"))
        new: list[int] = []
        while len(new) < body["max_tokens"] and self.end not in new:
            row = self.log_probabilities([*ids, *new])[-1]
            chances = np.exp(row) / np.exp(row).sum()
            new.append(int(row.argmax() if not body["temperature"] else random.choice(len(row), p=chances)))
        told = {} if "ids are not told" in self.faults else {"token_ids": new}
        return {"index": index, "text": f"text of {len(new)}\nand more", **told}


@contextmanager
def served(behaviour: Behaviour) -> Generator[str]:
    """The server's address while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, value: Any) -> None:
            payload = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def do_GET(self) -> None:
            if self.path == "/version":
                return self.answer(200, {"version": behaviour.version})
            if self.path != "/v1/models":
                return self.answer(404, {"error": {"message": "no such path"}})
            model = {"id": behaviour.name, "max_model_len": behaviour.limit}
            return self.answer(200, {"data": [model]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/completions":
                return self.answer(404, {"error": {"message": "no such path"}})
            behaviour.calls.append(body)
            behaviour.keys.append(self.headers.get("Authorization"))
            if behaviour.answers_left is not None:
                if behaviour.answers_left <= 0:
                    return self.connection.close()
                behaviour.answers_left -= 1
            if behaviour.refusals:
                return self.answer(behaviour.refusals.pop(0), {"error": {"message": "not now"}})
            return self.answer(200, behaviour.completion(body))

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
