"""lm-evaluation-harness's model class over the prefix-sharing engine.

Tokens, truncation and begin-of-sequence are those of the harness's `hf` model, which this class extends: it replaces
how token ids are scored and how answers are generated, and nothing before that.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from metashot.base.errors import ConfigError, ModelError
from metashot.engine.generation.prefix import PrefixGenerator
from metashot.engine.generation.request import GenerationRequest, Ids, Progress, Stopping
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import named_model
from metashot.engine.scoring.kept import KEPT_MB
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

_Tokens = tuple[tuple[str, str] | None, list[int], list[int]]
_SAYS_GREEDY = {"until", "max_gen_toks", "do_sample", "temperature", "num_beams"}
"""Generation arguments that can say that decoding is greedy, and where it ends; every other one is the harness's affair."""


class RefusedByHarness(ConfigError, AssertionError):
    """What the harness's own model ends with an assertion, with words."""


_Base: Any = HFLM  # whose registering decorator hides what it is from type checkers


@register_model("metashot")
class MetashotLM(_Base):
    """`hf` with shared prefixes: demonstrations, questions and options are computed once each.

    Args:
        pretrained: as for `hf`; or a name of metashot's models that needs no hub (`smollm2_135m`, `tiny`).
        memory_mb: working memory of the engine above the model; None lets it choose.
        keep_mb: MiB for prefixes kept between calls, of a model in float32; 0 keeps nothing.
        batch_size: prompts generated together, 16 where it is 1, which `hf` has by default. Scoring has no batch size: memory decides.
        given: every other argument of `hf`.
    """

    def __init__(
        self,
        pretrained: Any,
        memory_mb: int | str | None = None,
        batch_size: int | str | None = None,
        keep_mb: int | str = KEPT_MB,
        **given: Any,
    ) -> None:
        if isinstance(pretrained, str) and pretrained in EMBEDDED:
            dtype = given.pop("dtype", None)
            loaded = load_model(
                named_model(pretrained, **({"dtype": dtype} if dtype not in (None, "auto") else {}))
            )
            given |= {"tokenizer": loaded.tokenizer, "device": str(loaded.device)}
            pretrained = loaded.model
        # 1 is the harness's own default, and `hf` samples and penalizes in batches of that size.
        batch_size = 1 if batch_size is None else batch_size
        size = 16 if str(batch_size).startswith("auto") or int(batch_size) == 1 else int(batch_size)
        try:
            super().__init__(pretrained=pretrained, batch_size=batch_size, **given)
        except (
            OSError,
            ValueError,
        ) as error:  # what transformers and the harness raise of what cannot be loaded
            raise ModelError(
                "pretrained",
                f"{pretrained!r} is not loaded: {' '.join(str(error).split())[:300]}",
                f"give a model folder, a model of the hub or one of {', '.join(EMBEDDED)}, with arguments that `hf` takes",
            ) from error
        memory = None if memory_mb is None else int(memory_mb)
        self._scorer = PrefixScorer(self.model, memory, keep_mb=int(keep_mb))
        self._generator = PrefixGenerator(self.model, self.tokenizer, size, obeys_generation_config=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[_Tokens], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation in nats, and whether greedy decoding would write it.

        Raises:
            RefusedByHarness: what `hf` refuses: no token to score, none in front, or more than the model has positions.
        """
        self._check(requests)
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

    def _check(self, requests: Sequence[_Tokens]) -> None:
        """Refuse what `hf` refuses, and say once what it says of requests that it cuts."""
        cut: list[tuple[int, int]] = []
        for text, context, continuation in requests:
            if not (context and continuation) or len(continuation) > self.max_length:
                raise RefusedByHarness(
                    "loglikelihood",
                    f"a request of {len(context)} context and {len(continuation)} continuation tokens, {text!r:.200}: the "
                    f"harness wants 0 < len(context_enc) and 0 < len(continuation_enc) <= {self.max_length} (max_length)",
                    "mend the task's doc_to_text, doc_to_choice or doc_to_target",
                )
            if self.backend == "causal" and len(context) + len(continuation) > self.max_length + 1:
                cut.append((len(context), len(continuation)))
        if cut:
            context_tokens, tokens = max(cut, key=sum)
            _warn_once(
                f"Combined length of context ({context_tokens}) and continuation ({tokens}) exceeds model's maximum length "
                f"({self.max_length}). Truncating {context_tokens + tokens - self.max_length + 1} tokens from the left.",
                len(cut),
            )

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
        """Answers up to a stop string: greedy ones share their prefixes, all others are left to `hf`.

        What `hf` would refuse is left to it as well, so that it does.
        """
        groups: dict[Stopping, dict[int, Ids]] = {}
        for place, request in enumerate(requests):
            stopping = self._stopping(_arguments(request)[1])
            prompt = () if stopping is None else self._prompt(_arguments(request)[0])
            if stopping is not None and prompt:
                groups.setdefault(stopping, {})[place] = prompt
        ours = {place for group in groups.values() for place in group}
        others = [place for place in range(len(requests)) if place not in ours]
        answers = [""] * len(requests)
        if others:
            found = super().generate_until([requests[place] for place in others], disable_tqdm=disable_tqdm)
            for place, text in zip(others, found, strict=True):
                answers[place] = text
        with tqdm(
            total=len(ours),
            disable=disable_tqdm or self.rank != 0 or not ours,
            desc="Running generate_until requests",
        ) as bar:
            for stopping, prompts in groups.items():
                wanted = [GenerationRequest(ids) for ids in self._cut(prompts.values(), stopping)]
                made = self._generator.generate(wanted, stopping, on_progress=_advancing(bar))
                for place, answer in zip(prompts, made, strict=True):
                    answers[place] = answer.text
                    self.cache_hook.add_partial("generate_until", requests[place].args, answer.text)
        return answers

    def _prompt(self, text: str) -> Ids:
        return tuple(self.tok_encode(text))

    def _cut(self, prompts: Collection[Ids], stopping: Stopping) -> list[Ids]:
        """Cut on the left to what leaves room for an answer, as `hf` does."""
        room = self.max_length - (0 if self.backend == "seq2seq" else stopping.max_new_tokens)
        cut = [len(prompt) for prompt in prompts if len(prompt) > room]
        if cut:
            _warn_once(
                f"Left truncation applied. Original sequence length was {max(cut)}, truncating to last {room} tokens. "
                f"Some content will be lost.",
                len(cut),
            )
        return [prompt[-room:] for prompt in prompts]

    def _stopping(self, arguments: Any) -> Stopping | None:
        """When a greedy answer ends; None for arguments, or a model, of which `hf` makes more than that."""
        if not isinstance(arguments, dict) or getattr(self, "think_end_token", None) is not None:
            return None
        given: dict[str, Any] = dict(normalize_gen_kwargs(dict(arguments), self.max_gen_toks))
        room = self.max_length if self.backend == "causal" else given["max_gen_toks"] + 1
        if (
            not set(given) <= _SAYS_GREEDY
            or given["do_sample"]
            or given.get("num_beams") not in (None, 1)
            or not 0 < given["max_gen_toks"] < room
        ):
            return None
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stop = handle_stop_sequences(given["until"], eos=end)
        return Stopping(int(given["max_gen_toks"]), tuple(word for word in stop if word))


def _warn_once(text: str, requests: int) -> None:
    """In the harness's own words and name, where it says them for every request or batch."""
    more = f" (so for {requests} requests)" if requests > 1 else ""
    logging.getLogger(HFLM.__module__).warning("%s%s", text, more)


def _arguments(request: Instance) -> Any:
    return request.args


def _advancing(bar: Any) -> Progress:
    """Progress of one group of prompts, added to what the bar shows already."""
    start = bar.n
    return lambda done, _: bar.update(start + done - bar.n)


EMBEDDED = ("smollm2_135m", "tiny")
"""Models of metashot that load without a hub."""
