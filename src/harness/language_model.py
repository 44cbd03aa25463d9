"""lm-evaluation-harness's model class over the prefix-sharing engine.

Tokens, truncation and begin-of-sequence are those of the harness's `hf` model, which this class extends: it replaces
how token ids are scored and how answers are generated, and nothing before that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from metashot.engine.generation.prefix import PrefixGenerator
from metashot.engine.generation.request import GenerationRequest, Progress, Stopping
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import named_model
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

_logger = logging.getLogger(__name__)

_Tokens = tuple[tuple[str, str] | None, list[int], list[int]]
_GREEDY_KEYS = {"do_sample": False, "temperature": 0.0, "num_beams": 1}
"""Generation arguments that say no more than that decoding is greedy."""


_Base: Any = HFLM  # whose registering decorator hides what it is from type checkers


@register_model("metashot")
class MetashotLM(_Base):
    """`hf` with shared prefixes: demonstrations, questions and options are computed once each.

    Args:
        pretrained: as for `hf`; or a name of metashot's models that needs no hub (`smollm2_135m`, `tiny`).
        memory_mb: working memory of the engine above the model; None lets it choose.
        batch_size: prompts generated together. Scoring has no batch size: memory decides.
        given: every other argument of `hf`.
    """

    def __init__(
        self,
        pretrained: Any,
        memory_mb: int | str | None = None,
        batch_size: int | str | None = 16,
        **given: Any,
    ) -> None:
        if isinstance(pretrained, str) and pretrained in EMBEDDED:
            dtype = given.pop("dtype", None)
            loaded = load_model(
                named_model(pretrained, **({"dtype": dtype} if dtype not in (None, "auto") else {}))
            )
            given |= {"tokenizer": loaded.tokenizer, "device": str(loaded.device)}
            pretrained = loaded.model
        size = (
            16 if batch_size in (None, "auto") or str(batch_size).startswith("auto") else int(str(batch_size))
        )
        if size not in (1, 16):
            _logger.info(
                "batch_size serves generation only; the engine shares prefixes in batches of its own"
            )
        super().__init__(pretrained=pretrained, batch_size=size, **given)
        self._scorer = PrefixScorer(self.model, None if memory_mb is None else int(memory_mb))
        self._generator = PrefixGenerator(self.model, self.tokenizer, size, obeys_generation_config=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[_Tokens], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation in nats, and whether greedy decoding would write it."""
        scored = [self._request(context, continuation) for _, context, continuation in requests]
        with tqdm(
            total=None,
            unit="token",
            disable=disable_tqdm or self.rank != 0,
            desc="Running loglikelihood requests",
        ) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            found = self._scorer.score_with_best(scored, advance)
        answers = [(float(row[:, 0].double().sum()), bool((row[:, 0] >= row[:, 1]).all())) for row in found]
        for (text, _, _), answer in zip(requests, answers, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answer)
        return answers

    def _request(self, context: Sequence[int], continuation: Sequence[int]) -> Request:
        """Cut on the left to what the model can read, as `hf` does; the last token is never read."""
        if self.backend == "seq2seq":
            return Request(tuple(context[-self.max_length :]), tuple(continuation[-self.max_length :]))
        kept = (*context, *continuation)[-(self.max_length + 1) :]
        place = len(kept) - len(continuation)
        return Request(tuple(kept[:place]), tuple(kept[place:]))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts in nats, over disjoint windows of the model's length."""
        windows: list[_Tokens] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            cut = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, cut):
                windows.append((None, context, continuation))
                owners.append(place)
        totals = [0.0] * len(requests)
        for place, (value, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[place] += value
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string; greedy ones share their prefixes, sampled ones are left to `hf`."""
        if not all(_is_greedy(_arguments(request)[1]) for request in requests):
            return super().generate_until(requests, disable_tqdm=disable_tqdm)
        groups: dict[Stopping, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self._stopping(_arguments(request)[1]), []).append(place)
        answers = [""] * len(requests)
        with tqdm(
            total=len(requests),
            disable=disable_tqdm or self.rank != 0,
            desc="Running generate_until requests",
        ) as bar:
            for stopping, places in groups.items():
                room = self.max_length - (0 if self.backend == "seq2seq" else stopping.max_new_tokens)
                wanted = [
                    GenerationRequest(tuple(self.tok_encode(requests[place].args[0], left_truncate_len=room)))
                    for place in places
                ]
                found = self._generator.generate(wanted, stopping, on_progress=_advancing(bar))
                for place, answer in zip(places, found, strict=True):
                    answers[place] = answer.text
                    self.cache_hook.add_partial("generate_until", requests[place].args, answer.text)
        return answers

    def _stopping(self, arguments: Mapping[str, Any]) -> Stopping:
        given: dict[str, Any] = dict(normalize_gen_kwargs(dict(arguments), self.max_gen_toks))
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stop = handle_stop_sequences(given.get("until"), eos=end)
        return Stopping(int(given["max_gen_toks"]), tuple(word for word in stop if word))


def _arguments(request: Instance) -> Any:
    return request.args


def _advancing(bar: Any) -> Progress:
    """Progress of one group of prompts, added to what the bar shows already."""
    start = bar.n
    return lambda done, _: bar.update(start + done - bar.n)


def _is_greedy(arguments: Mapping[str, Any]) -> bool:
    return all(arguments.get(key, value) in (value, None) for key, value in _GREEDY_KEYS.items())


EMBEDDED = ("smollm2_135m", "tiny")
"""Models of metashot that load without a hub."""
