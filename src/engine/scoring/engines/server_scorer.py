"""A completions server as a scorer and a generator: it takes token ids and gives log-probabilities; vLLM and SGLang do.

Three ways to ask, all of them plain sampling (temperature 0, nothing else), so that no setting of the server changes a
value:
    steps: the next token's log-probability of given ids (vLLM's `logprob_token_ids`), read from the prefix cache;
    echo: the whole prompt's log-probabilities (`echo` with `logprobs`);
    sglang: SGLang's `/generate`, from the target's first token on.
What a server can do is asked once, and checked against itself: fields that it does not know it ignores.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from metashot.base.errors import ConfigError, ModelError
from metashot.base.extras import import_extra
from metashot.engine.generation.request import (
    GREEDY,
    Generated,
    GenerationRequest,
    Sampling,
    Stopping,
    cut_at_stop,
)
from metashot.engine.generation.request import Progress as Answered
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.engines.next_tokens import Prefix, by_cost, checked, put_together, questions
from metashot.engine.scoring.engines.writing import answer_of, asked, wanted_answers
from metashot.engine.scoring.request import Progress, Request

if TYPE_CHECKING:
    from torch import Tensor

Answer = TypeVar("Answer")
Way = Literal["auto", "steps", "echo", "sglang"]
KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable that holds the server's key; a key is never read from a config, and never written."""

_PLAIN = {
    "temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0,
    "frequency_penalty": 0,
}  # fmt: skip
_MOST_IDS = 128
"""Ids that one question by steps may ask for: vLLM's bound."""
_PROMPTS = 64
"""Prompts in one call."""
_WRITTEN = 16
"""Prompts in one call that writes answers; a call ends with its longest answer."""
_BLOCK = 128
"""Tokens by which a server is assumed to cache; vLLM's on a CPU, more than on a GPU."""
_SAME_NATS = 0.05
"""Two answers about one token that differ by more are not about the same token (bfloat16 differs by less)."""


@dataclass(frozen=True)
class Connection:
    """One server, asked with retries and backoff by the client of the package `openai`."""

    url: str
    """With the version, as `http://localhost:8000/v1`."""
    retries: int
    timeout: float
    """Seconds for one call."""

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The server's JSON answer; a path that begins with `/` is below the server's root.

        Raises:
            ModelError: no answer after all retries, or a refusal.
        """
        import openai

        address = self.url.removesuffix("/v1") + path if path.startswith("/") else path
        try:
            if body is None:
                return self.client.get(address, cast_to=object)
            return self.client.post(address, cast_to=object, body=dict(body))
        except openai.APIStatusError as error:
            raise ModelError(
                "scorer.url",
                f"{self.url} refuses ({error.status_code}): {str(error.message)[:300]}",
                "see its log",
            ) from error
        except openai.APIConnectionError as error:
            raise ModelError(
                "scorer.url",
                f"{self.url} does not answer ({error.__cause__ or error})",
                "start the server and run the same command again: what is finished is kept",
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise ModelError("scorer.url", f"{self.url} answers no JSON: {error}", "see its log") from error

    @cached_property
    def client(self) -> Any:
        """The client, with the key from the environment where there is one."""
        import openai

        key = os.environ.get(KEY_VARIABLE)
        return openai.OpenAI(
            base_url=self.url,
            api_key=key or "none",
            default_headers={"Authorization": f"Bearer {key}"} if key else None,
            max_retries=self.retries,
            timeout=self.timeout,
        )


class ServerScorer:
    """Scores requests by a server that holds the weights.

    Args:
        model: whose tokenizer made the ids; its weights are not loaded here.
        connection: the server.
        served: the model's name there; None takes the only one.
        way: how to ask; `auto` takes steps where the server has them, else echo, else SGLang's way.
        concurrency: calls in flight.

    Raises:
        ConfigError: the package `openai` is not installed.
        ModelError: the server does not answer, serves another model, or cannot score token ids.
    """

    def __init__(
        self, model: LazyLanguageModel, connection: Connection, served: str | None, way: Way, concurrency: int
    ) -> None:
        _check_client()
        self._connection = connection
        self._model = model
        self._concurrency = concurrency
        self._computed = 0
        self._name, self.limit = _served_model(connection, served)
        self._check_tokenizer(model)
        self._way = self._checked_way(way, _probe_ids(model))
        self.route = f"server:{self._way}"
        self.reason: str | None = None

    def score(self, requests: Sequence[Request], on_progress: Progress | None = None) -> list[Tensor]:
        """Per request a float32 CPU tensor [request.scored] of target log-probabilities in nats."""
        import torch

        self._check_lengths(requests)
        self._computed = 0
        scores: list[Tensor] = [torch.empty(0)] * len(requests)
        wanted = [place for place, request in enumerate(requests) if request.scored]
        total, done = sum(requests[place].length for place in wanted), 0
        for places, answers in self._parts(requests, wanted):
            for place, answer in zip(places, answers, strict=True):
                scores[place] = answer
                done += requests[place].length
            if on_progress is not None:
                on_progress(done, total)
        return scores

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        stopping: Stopping,
        sampling: Sampling = GREEDY,
        on_progress: Answered | None = None,
    ) -> list[Generated]:
        """An answer to each request by the server's own sampler; a sample is a call of its own, with its seed.

        Raises:
            ConfigError: a prompt that is empty, or leaves no room for `max_new_tokens` in the server's context.
            ModelError: the server does not answer, or not to all.
        """
        wanted = wanted_answers(requests, stopping, sampling, self.limit)
        size = _WRITTEN if sampling.greedy else 1
        parts = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        fields = {
            "max_tokens": stopping.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "stop": list(stopping.stop) or None, "return_token_ids": True,
        }  # fmt: skip

        def write(part: Sequence[GenerationRequest]) -> list[Generated]:
            seed = {} if sampling.greedy else {"seed": part[0].seed}
            choices = self._complete([request.prompt for request in part], fields | seed)
            return [self._answer(choice, stopping) for choice in choices]

        answers: dict[GenerationRequest, Generated] = {}
        for part, found in zip(parts, self._at_once(write, parts), strict=True):
            answers |= dict(zip(part, found, strict=True))
            if on_progress is not None:
                on_progress(len(answers), len(wanted))
        return [answers[asked(request, sampling)] for request in requests]

    def _answer(self, choice: Mapping[str, Any], stopping: Stopping) -> Generated:
        """One choice as an answer; a server that tells no ids of what it writes has made the text itself."""
        if choice.get("token_ids"):
            return answer_of(choice["token_ids"], self._model.tokenizer, stopping)
        text = str(choice.get("text") or "")
        return Generated(cut_at_stop(text, stopping.stop), len(self._model.encode(text)))

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Prompt tokens of the last call that the server did not say to have read from its cache."""
        del requests
        return self._computed

    def _parts(
        self, requests: Sequence[Request], wanted: list[int]
    ) -> Iterator[tuple[list[int], list[Tensor]]]:
        if self._way == "steps":
            chosen = [requests[place] for place in wanted]
            stepped, whole = ([wanted[i] for i in part] for part in by_cost(chosen, _BLOCK))
            # Only steps reach the last position: an echo needs room for the token that is generated.
            stepped += [place for place in whole if requests[place].length >= self.limit]
            whole = [place for place in whole if requests[place].length < self.limit]
        else:
            stepped, whole = list[int](), wanted
        for start in range(0, len(stepped), 8 * _PROMPTS):
            part = stepped[start : start + 8 * _PROMPTS]
            yield part, self._by_steps([requests[place] for place in part])
        one = self._sglang if self._way == "sglang" else self._echo
        parts = [whole[start : start + _PROMPTS] for start in range(0, len(whole), _PROMPTS)]
        answers = self._at_once(one, [[requests[place] for place in part] for part in parts])
        yield from zip(parts, answers, strict=True)

    def _by_steps(self, requests: Sequence[Request]) -> list[Tensor]:
        asked = questions(requests)
        contexts = {request.context for request in requests}
        table: dict[Prefix, dict[int, float]] = {}
        # The bare contexts first: they fill the cache that all others read.
        for prefixes in ([p for p in asked if p in contexts], [p for p in asked if p not in contexts]):
            for part, rows in self._next_tokens(prefixes, asked):
                table.update(zip(part, rows, strict=True))
        return [put_together(request, table) for request in requests]

    def _next_tokens(
        self, prefixes: list[Prefix], asked: Mapping[Prefix, list[int]]
    ) -> Iterator[tuple[list[Prefix], list[dict[int, float]]]]:
        # All prompts of a call are asked for the same ids, so a call takes prompts until their ids are many.
        parts: list[list[Prefix]] = []
        ids: set[int] = set()
        for prefix in prefixes:
            ids |= set(asked[prefix])
            if not parts or len(parts[-1]) == _PROMPTS or len(ids) > _MOST_IDS:
                parts.append([])
                ids = set(asked[prefix])
            parts[-1].append(prefix)
        calls = [(part, sorted(set().union(*(asked[prefix] for prefix in part)))) for part in parts]
        yield from zip(parts, self._at_once(lambda call: self._steps(*call), calls), strict=True)

    def _steps(self, prefixes: Sequence[Prefix], ids: list[int]) -> list[dict[int, float]]:
        rows: list[dict[int, float]] = [{} for _ in prefixes]
        for start in range(0, len(ids), _MOST_IDS):
            part = ids[start : start + _MOST_IDS]
            choices = self._complete(
                prefixes, {"logprobs": 0, "logprob_token_ids": part, "return_tokens_as_token_ids": True}
            )
            for row, choice in zip(rows, choices, strict=True):
                top = choice["logprobs"]["top_logprobs"][0]
                missing = [token for token in part if f"token_id:{token}" not in top]
                if missing:
                    raise _cannot(f"{self._connection.url} does not tell the log-probability of given ids")
                row.update((token, top[f"token_id:{token}"]) for token in part)
        return rows

    def _echo(self, requests: Sequence[Request]) -> list[Tensor]:
        prompts = [request.context + request.target for request in requests]
        choices = self._complete(prompts, {"echo": True, "logprobs": 1})
        scores: list[Tensor] = []
        for request, choice in zip(requests, choices, strict=True):
            row = (choice.get("logprobs") or {}).get("token_logprobs")
            if row is None:
                raise _cannot(f"{self._connection.url} gives no log-probabilities of a prompt")
            if len(row) not in (request.length, request.length + 1) or row[0] is not None:
                raise _cannot(f"{self._connection.url} gives {len(row)} values for {request.length} tokens")
            scores.append(checked(row[request.length - request.scored : request.length], request))
        return scores

    def _sglang(self, requests: Sequence[Request]) -> list[Tensor]:
        prompts = [list(request.context + request.target) for request in requests]
        body = {
            "input_ids": prompts,
            "sampling_params": {"max_new_tokens": 1, "temperature": 0},
            "return_logprob": True,
            # The first entry has no value, so it starts one token before the target.
            "logprob_start_len": [request.length - request.scored - 1 for request in requests],
            "return_text_in_logprobs": False,
        }
        answers = self._connection.ask("/generate", body)
        answers = answers if isinstance(answers, list) else [answers]
        scores: list[Tensor] = []
        for request, ids, answer in zip(requests, prompts, answers, strict=True):
            rows = answer["meta_info"]["input_token_logprobs"][-request.scored :]
            if [row[1] for row in rows] != ids[-request.scored :]:
                raise _cannot(f"{self._connection.url} answers about other tokens")
            self._computed += len(ids) - int(answer["meta_info"].get("cached_tokens") or 0)
            scores.append(checked([row[0] for row in rows], request))
        return scores

    def _complete(self, prompts: Sequence[Sequence[int]], fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The choices of one call, in order of `prompts`, with one token after each."""
        body = {
            "model": self._name,
            "prompt": [list(ids) for ids in prompts],
            "max_tokens": 1,
            **_PLAIN,
            **fields,
        }
        answer = self._connection.ask("completions", body)
        try:
            usage = answer["usage"]
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            indices, told = [choice["index"] for choice in choices], int(usage["prompt_tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise _cannot(f"{self._connection.url} gives an answer of another form ({error!r})") from error
        sent = sum(map(len, prompts))
        if indices != list(range(len(prompts))):
            raise _cannot(f"{self._connection.url} gives {len(choices)} answers to {len(prompts)} prompts")
        if told != sent:
            raise _cannot(
                f"{self._connection.url} counts {told} tokens where {sent} were sent: it tokenizes anew"
            )
        self._computed += sent - int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        return choices

    def _at_once(self, ask: Callable[[Any], Answer], calls: Sequence[Any]) -> Iterator[Answer]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                yield from pool.map(ask, calls)
            finally:
                pool.shutdown(cancel_futures=True)

    def _check_tokenizer(self, model: LazyLanguageModel) -> None:
        """Where the server tokenizes, it must do as the model's own tokenizer; few servers can be asked."""
        text = "Answer: Yes\n\nnaïve B 12"
        try:
            told = self._connection.ask(
                "/tokenize", {"model": self._name, "prompt": text, "add_special_tokens": False}
            )["tokens"]
        except (ModelError, KeyError, TypeError):
            return
        own = list(model.encode(text))
        if told != own:
            raise ModelError(
                "scorer.url",
                f"{self._connection.url} tokenizes {text!r} as {told}, {model.name!r} as {own}",
                "name in `model` the model that is served",
            )

    def _checked_way(self, way: Way, ids: tuple[int, ...]) -> str:
        """The first way that works, and whose values are those of the token that the server itself writes.

        A greedy token and its value are taken; a way that is one place off, or of another model's ids, differs there.
        """
        faults: list[str] = []
        for name in ("steps", "echo", "sglang") if way == "auto" else (way,):
            try:
                self._check_way(name, ids)
            except ModelError as error:
                faults.append(f"{name}: {error.problem}")
            except (KeyError, IndexError, TypeError) as error:
                faults.append(f"{name}: an answer of another form ({error!r})")
            else:
                return name
        raise _cannot("; ".join(faults))

    def _check_way(self, way: str, ids: tuple[int, ...]) -> None:
        if way == "sglang":
            answer = self._connection.ask(
                "/generate",
                {
                    "input_ids": list(ids),
                    "sampling_params": {"max_new_tokens": 1, "temperature": 0},
                    "return_logprob": True,
                },
            )
            value, best = answer["meta_info"]["output_token_logprobs"][0][:2]
            own = float(self._sglang([Request(ids, (int(best),))])[0][0])
        else:
            fields = {"logprobs": 1, "return_token_ids": True, "return_tokens_as_token_ids": True}
            (choice,) = self._complete([ids], fields)
            if choice.get("prompt_token_ids", list(ids)) != list(ids):
                raise _cannot(f"{self._connection.url} reads other ids than were sent")
            if not choice.get("logprobs"):
                raise _cannot(f"{self._connection.url} gives no log-probabilities")
            value = choice["logprobs"]["token_logprobs"][0]
            best = _written_token(choice)
            if way == "steps":
                own = self._steps([ids], [best, ids[0]])[0][best]
            else:
                own = float(self._echo([Request(ids, (best,))])[0][0])
        if abs(own - value) > _SAME_NATS:
            raise _cannot(
                f"{self._connection.url} scores {own:.4f} for a token that it writes with {value:.4f}"
            )

    def _check_lengths(self, requests: Sequence[Request]) -> None:
        most = self.limit if self._way == "steps" else self.limit - 1
        for place, request in enumerate(requests):
            if request.scored and request.length > most:
                raise ConfigError(
                    "scorer",
                    f"request {place} has {request.length} tokens, and the server takes {most} by way of {self._way}",
                    "start it with a longer context, or use fewer or shorter demonstrations",
                )


def _check_client() -> None:
    import_extra("openai", "scorer")
    for name in ("httpx", "httpx2"):  # a line for every call
        logging.getLogger(name).setLevel(logging.WARNING)


def _served_model(connection: Connection, served: str | None) -> tuple[str, int]:
    """Name and context length of the model to ask for."""
    try:
        models = {str(model["id"]): model for model in connection.ask("models")["data"]}
    except (KeyError, TypeError) as error:
        raise _cannot(f"{connection.url}/models has another form ({error!r})") from error
    if served is None and len(models) == 1:
        served = next(iter(models))
    if served not in models:
        raise ModelError(
            "scorer.served",
            f"{connection.url} serves {', '.join(models) or 'nothing'}, not {served!r}",
            "name one of these",
        )
    return served, int(models[served].get("max_model_len") or 10**9)


def served_identity(connection: Connection, served: str | None) -> dict[str, str]:
    """The model's name at the server, the weights that it says to hold, and its version, as far as it tells them.

    Raises:
        ModelError: it does not answer, or serves another model.
    """
    _check_client()
    name, _ = _served_model(connection, served)
    told = {str(model["id"]): model for model in connection.ask("models")["data"]}[name]
    try:
        version = str(connection.ask("/version")["version"])
    except (ModelError, KeyError, TypeError):
        version = "unknown"
    return {"served": name, "root": str(told.get("root") or ""), "version": version}


def _probe_ids(model: LazyLanguageModel) -> tuple[int, ...]:
    return model.encode("The quick brown fox jumps over the lazy dog, and then it")


def _written_token(choice: Mapping[str, Any]) -> int:
    """The id of the token that was generated."""
    if choice.get("token_ids"):
        return int(choice["token_ids"][0])
    written = str(choice["logprobs"]["tokens"][0])
    if not written.startswith("token_id:"):
        raise ModelError(
            "scorer.url", "the server does not tell the ids of what it writes", "use vLLM or SGLang"
        )
    return int(written.removeprefix("token_id:"))


def _cannot(problem: str) -> ModelError:
    return ModelError(
        "scorer.url", problem, "use a server that scores token ids, such as vLLM or SGLang, or scorer=prefix"
    )
