"""The choices of `conf/scorer`: signatures that a config is held to; the scorers, and torch, are imported when one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect, identity_of
from metashot.base.value_kinds import Count, GivenLine, Positive, PositiveShare, PositiveWeight
from metashot.engine.generation.request import Generator
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.request import MakeScorer, Scorer

_ENGINE = "engine"
F = TypeVar("F", bound=MakeScorer)


def reads_files(engine: Callable[..., dict[str, str]]) -> Callable[[F], F]:
    """Mark a maker that takes a `LazyLanguageModel`: its engine loads the weights itself.

    Args:
        engine: takes the maker's own arguments and says which engine answers: part of every fingerprint.
    """

    def mark(make: F) -> F:
        setattr(make, _ENGINE, engine)
        return make

    return mark


def _engine(make: MakeScorer) -> Callable[..., dict[str, str]] | None:
    return getattr(make.func if isinstance(make, partial) else make, _ENGINE, None)


def scorer_identity(make: MakeScorer) -> dict[str, Any]:
    """What of a scorer decides values: its class or maker with every deciding field, and the engine behind it.

    Raises:
        ModelError: a server that has to be asked does not answer.
    """
    engine = _engine(make)
    arguments = make.keywords if isinstance(make, partial) else {}
    return {"scorer": identity_of(make), **({} if engine is None else {"engine": engine(**arguments)})}


def scorer_of(make: MakeScorer, model: LazyLanguageModel) -> Scorer:
    """The scorer for `model`: made of its loaded weights, or, by a maker under `reads_files`, of its files.

    An engine of its own (vLLM, a server) loads the weights itself, so they are not loaded here.
    """
    return make(model.load().model if _engine(make) is None else model)


def loads_itself(make: MakeScorer) -> bool:
    """Whether what is made is an engine of its own, which reads the model's files."""
    return _engine(make) is not None


def generator_of(make: MakeScorer, model: LazyLanguageModel, batch_size: int) -> Generator:
    """What generates with `model`: the engine that would score, or the loaded model itself.

    Args:
        make: the choice of `scorer`.
        model: which weights.
        batch_size: answers that the loaded model decodes together.

    Raises:
        ConfigError: an engine that only scores.
    """
    if _engine(make) is None:
        from metashot.engine.generation.prefix import PrefixGenerator

        loaded = model.load()
        return PrefixGenerator(loaded.model, loaded.tokenizer, batch_size)
    engine = scorer_of(make, model)
    if not isinstance(engine, Generator):
        raise ConfigError(
            "scorer", f"{type(engine).__name__} scores options and generates nothing", "use scorer=prefix"
        )
    return engine


Memory = Annotated[
    int | None, NoEffect("how much is computed at once: float32 scores are equal up to rounding")
]
_WAIT = NoEffect("how answers are waited for")
_ANSWERED = NoEffect("what is served there decides, by its name and version")
BatchSize = Annotated[int, NoEffect("as the memory")]


def prefix_scorer(
    model: Any, memory_mb: Memory = None, *, force: bool = False, batch_size: BatchSize = 8
) -> Scorer:
    """A `PrefixScorer`: every common prefix of prompts is computed once.

    Args:
        model: the loaded model.
        memory_mb: working memory above the model; None lets the engine choose.
        force: refuse a model that cannot share all prefixes.
        batch_size: of the plain engine, which stands in for models that this one does not know.
    """
    from metashot.engine.scoring.prefix import PrefixScorer

    return PrefixScorer(model, memory_mb, force=force, batch_size=batch_size)


def plain_scorer(model: Any, batch_size: BatchSize = 8) -> Scorer:
    """A `PlainScorer`: every prompt alone, the slow reference.

    Args:
        model: the loaded model.
        batch_size: prompts scored together, padded to the longest.
    """
    from metashot.engine.scoring.plain import PlainScorer

    return PlainScorer(model, batch_size)


def _vllm(**arguments: Any) -> dict[str, str]:
    del arguments
    from metashot.engine.scoring.engines.vllm_scorer import vllm_version

    return {"vllm": vllm_version()}


def _served(
    *, url: str = "http://localhost:8000/v1", served: str | None = None, retries: int = 4, timeout_seconds: float = 600.0,
    **arguments: Any,
) -> dict[str, str]:  # fmt: skip
    del arguments
    from metashot.engine.scoring.engines.server_scorer import Connection, served_identity

    return served_identity(Connection(url.rstrip("/"), retries, timeout_seconds), served)


@reads_files(_vllm)
def vllm_scorer(
    model: LazyLanguageModel,
    *,
    route: Literal["auto", "target_rows", "steps", "whole"] = "auto",
    tensor_parallel_size: Positive = 1,
    pipeline_parallel_size: Positive = 1,
    gpu_memory_utilization: Annotated[PositiveShare, NoEffect("how much is computed at once")] = 0.9,
    max_model_len: Positive | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Scorer:
    """A `VllmScorer`: vLLM loads the weights and scores in its own engine.

    Args:
        model: which weights.
        route: how log-probabilities are asked for; `auto` takes the first way that this engine has and that is exact.
        tensor_parallel_size: devices that share each layer.
        pipeline_parallel_size: devices that share the layers out.
        gpu_memory_utilization: share of a device's memory that vLLM takes.
        max_model_len: positions to keep room for; None takes the model's.
        arguments: further arguments of `vllm.LLM`, by name.
    """
    from metashot.engine.scoring.engines.vllm_scorer import VllmScorer

    own = {
        "tensor_parallel_size": tensor_parallel_size,
        "pipeline_parallel_size": pipeline_parallel_size,
        "gpu_memory_utilization": gpu_memory_utilization,
        "max_model_len": max_model_len,
    }
    return VllmScorer(model, route, own | dict(arguments or {}))


@reads_files(_served)
def server_scorer(
    model: LazyLanguageModel,
    *,
    url: Annotated[GivenLine, _ANSWERED] = "http://localhost:8000/v1",
    served: Annotated[GivenLine | None, _ANSWERED] = None,
    way: Literal["auto", "steps", "echo", "sglang"] = "auto",
    concurrency: Annotated[Positive, _WAIT] = 8,
    retries: Annotated[Count, _WAIT] = 4,
    timeout_seconds: Annotated[PositiveWeight, _WAIT] = 600.0,
) -> Scorer:
    """A `ServerScorer`: a server of OpenAI's completions interface holds the weights.

    Args:
        model: whose tokenizer made the ids.
        url: address of the interface.
        served: the model's name there; None takes the only one.
        way: how to ask; `auto` takes `steps` where the server has them, else `echo`, else SGLang's way.
        concurrency: calls in flight.
        retries: of a call that fails, with growing pauses.
        timeout_seconds: for one call.
    """
    from metashot.engine.scoring.engines.server_scorer import Connection, ServerScorer

    return ServerScorer(
        model, Connection(url.rstrip("/"), retries, timeout_seconds), served, way, concurrency
    )
