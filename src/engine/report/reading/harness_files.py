"""Results of lm-evaluation-harness as cells of ours.

The harness writes `results_<time>.json` and, with `--log_samples`, `samples_<task>_<time>.jsonl` beside it. Only
samples tell which examples were right, so a task without them cannot be compared and is named. What a sample says it
scored counts; all samples together are held to the number and the figure that the results file states.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metashot.base.errors import OutputError
from metashot.base.files import read_lines, sha256_file
from metashot.base.json_text import read_json
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.metrics.classification import Metric, TaskMetric

METHOD = "lm_eval"
"""What reports call a system that the harness ran; a further filter or metric of it follows in brackets."""
GRADED = {"exact_match": Metric.EXACT_MATCH, "f1": Metric.TOKEN_F1, "rougeL": Metric.ROUGE_L}
"""The harness's names of metrics that grade single answers."""
NORMALIZED = "acc_norm"
"""The harness's name of accuracy by log-likelihood per character."""
OWN_FILE = "results_metashot.json"
"""What our own report writes for readers of the harness's files; it is no run of the harness."""

_RESULTS = re.compile(r"(?:results_.*|.*_\d{4}-\d\d-\d\dT[\d.-]+)\.json")
_FIRST_OF = ("acc", *GRADED)
_SLACK = 1e-6
_PLACES = re.compile(r"-?\d+|\[\s*-?\d+(?:,\s*-?\d+)*\s*\]")
_UNLIKE = (
    "the log-likelihoods rank otherwise than these samples say they scored (they were changed, or the task has choices "
    "in its input or a rule of its own); what the samples scored counts, and nothing is computed from the log-likelihoods."
)


@dataclass(frozen=True, slots=True)
class HarnessRun:
    """The harness's files of one folder.

    Attributes:
        cells: one for each task, filter and metric that has samples.
        problems: sentences about what was left out, and about samples that say something else than their results.
    """

    cells: tuple[FinishedCell, ...]
    problems: tuple[str, ...]


def is_harness_method(name: str) -> bool:
    """Whether a system was run by the harness."""
    return name == METHOD or name.startswith(f"{METHOD} (")


def harness_results_files(folder: Path) -> list[Path]:
    """The harness's own results files in a folder, oldest first."""
    named = [
        path for path in folder.glob("*.json") if _RESULTS.fullmatch(path.name) and path.name != OWN_FILE
    ]
    return sorted((path for path in named if _is_harness(path)), key=_stamp)


def _stamp(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _is_harness(path: Path) -> bool:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"configs", "n-shot", "config"} <= content.keys()


def read_harness_folder(folder: Path) -> HarnessRun:
    """Every run of the harness in a folder; of two runs of one task the newest counts, and that is said.

    Raises:
        OutputError: see `read_harness_run`.
    """
    cells: dict[tuple[Any, ...], FinishedCell] = {}
    problems: list[str] = []
    for path in harness_results_files(folder):
        found = read_harness_run(path)
        problems += found.problems
        for cell in found.cells:
            one = cell.result
            key = one.method, one.model, one.task, one.seed, one.k
            if key in cells and cells[key].result.fingerprint != one.fingerprint:
                problems.append(f"{folder}: task {one.task} was run again; {path.name} is used.")
            cells[key] = cell
    return HarnessRun(tuple(cells.values()), tuple(dict.fromkeys(problems)))


def read_harness_run(path: Path) -> HarnessRun:
    """Read a results file and the samples beside it.

    Raises:
        OutputError: no results file of the harness, or samples of a kind that has no right answers.
    """
    try:
        content = read_json(path)
        tasks, shots, config = dict(content["configs"]), content["n-shot"], content["config"]
        model = _model_name(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            str(path),
            f"is no results file of lm-evaluation-harness ({error})",
            "leave this folder out of `runs`",
        ) from None
    cells: list[FinishedCell] = []
    problems: list[str] = []
    for task, task_config in tasks.items():
        samples = path.with_name(f"samples_{task}_{_stamp(path)}.jsonl")
        if not samples.is_file():
            problems.append(
                f"{path}: task {task} has no samples beside it (run the harness with --log_samples); "
                "left out of every figure."
            )
            continue
        seed, k = int(config.get("fewshot_seed") or 0), int(shots.get(task) or 0)
        result = Result("lm_eval", METHOD, model, task, seed, k, "", 0.0, 0, sha256_file(samples))
        stated = (content.get("results") or {}).get(task) or {}
        result = replace(
            result,
            metrics={key: float(value) for key, value in stated.items() if "," in key and _is_number(value)},
        )
        try:
            for cell, said in _cells(samples, task_config, result):
                fault = _disagreement(cell, said, content)
                if fault:
                    problems.append(f"{samples}: {fault}; left out of every figure.")
                    continue
                cells.append(cell)
                if (
                    said[0] in ("acc", NORMALIZED)
                    and _is_ranked(task_config)
                    and not cell.predictions[0].options
                ):
                    problems.append(f"{samples}: {_UNLIKE}")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise OutputError(
                str(samples),
                f"holds samples of a kind that cannot be compared ({error!r})",
                "leave this folder out of `runs`",
            ) from None
    return HarnessRun(tuple(cells), tuple(dict.fromkeys(problems)))


def _model_name(content: Mapping[str, Any]) -> str:
    arguments: Any = content["config"].get("model_args") or {}
    if isinstance(arguments, str):
        arguments = {key: value for key, _, value in (part.partition("=") for part in arguments.split(","))}
    given = arguments.get("pretrained") if isinstance(arguments, dict) else None
    return Path(str(given or content.get("model_name") or content["config"].get("model", "model"))).name


def _cells(
    path: Path, config: Mapping[str, Any], result: Result
) -> Iterator[tuple[FinishedCell, tuple[str, str]]]:
    """A cell of each filter and metric, with their names in the results file."""
    by_filter: dict[str, list[dict[str, Any]]] = {}
    for row in read_lines(path):
        by_filter.setdefault(str(row.get("filter", "none")), []).append(row)
    if not by_filter:
        raise ValueError("no samples")
    for filter_, rows in by_filter.items():
        own = rows[0].get("metrics") or ()
        first = next((name for name in (*_FIRST_OF, *own) if _is_number(rows[0].get(name))), None)
        if first is None:  # metrics of all documents together, such as a perplexity
            key, value = next(iter((result.metrics or {}).items()), ("", 0.0))
            if not key:
                raise ValueError("no metric of single examples")
            whole = replace(result, metric=key.partition(",")[0], value=value, n=len(rows))
            yield FinishedCell(whole, ()), (whole.metric, filter_)
            return
        for name in dict.fromkeys((first, NORMALIZED)):
            if name in rows[0]:
                words = [filter_] if len(by_filter) > 1 else []
                words += [name] if name == NORMALIZED else []
                method = f"{METHOD} ({', '.join(words)})" if words else METHOD
                yield _cell(rows, name, config, replace(result, method=method)), (name, filter_)
                result = replace(result, metrics=None)  # which stand once


def _cell(
    rows: Sequence[Mapping[str, Any]], name: str, config: Mapping[str, Any], result: Result
) -> FinishedCell:
    print_ = f"{result.fingerprint}-{result.method}"
    ranked = [_Ranked.of(row, config, name) for row in rows]
    # A target is the place of the right choice, or its text, which may be a number too.
    readings = [[one.read(by_text=by_text) for one in ranked] for by_text in (False, True)]
    ranked = min(readings, key=lambda reading: _rank_otherwise(reading, rows, name))
    if _rank_otherwise(ranked, rows, name):
        ranked = [replace(one, choices=(), nll=(), sums=()) for one in ranked]
    scores = [float(row[name]) for row in rows]
    accuracy = name in ("acc", NORMALIZED)
    metric = Metric.ACCURACY if accuracy else GRADED.get(name, TaskMetric(name))
    return FinishedCell(
        replace(
            result, metric=metric.value, value=sum(scores) / len(scores), n=len(rows), fingerprint=print_
        ),
        tuple(
            one.prediction(int(row["doc_id"]), score, replace(result, fingerprint=print_))
            for one, row, score in zip(ranked, rows, scores, strict=True)
        ),
    )


def _rank_otherwise(ranked: Sequence[_Ranked], rows: Sequence[Mapping[str, Any]], name: str) -> int:
    """In how many samples the log-likelihoods give another accuracy than the sample says."""
    return sum(
        bool(one.choices) and (one.best in one.right) != (row[name] == 1)
        for one, row in zip(ranked, rows, strict=True)
    )


def _disagreement(cell: FinishedCell, said: tuple[str, str], content: Mapping[str, Any]) -> str:
    """In what the samples of a task differ from what its results file states; empty where in nothing."""
    one, (name, filter_) = cell.result, said
    places = [prediction.index for prediction in cell.predictions]
    doubled = len(places) - len(set(places))
    if doubled:
        return f"{doubled} samples of task {one.task} stand there twice"
    stated = (content.get("n-samples") or {}).get(one.task)
    n = stated.get("effective") if isinstance(stated, dict) else None
    if isinstance(n, int) and n != one.n:
        return f"holds {one.n} samples of task {one.task}, the results file states {n}"
    value: Any = ((content.get("results") or {}).get(one.task) or {}).get(f"{name},{filter_}")
    if _is_number(value) and not math.isclose(value, one.value, rel_tol=0, abs_tol=_SLACK):
        return f"the samples of task {one.task} give {name} {100 * one.value:.1f}, the results file states {100 * value:.1f}"
    return ""


def _is_ranked(config: Mapping[str, Any]) -> bool:
    return config.get("output_type") == "multiple_choice"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A sample: written choices after one input with their summed NLL, or (with no choices) an answer.

    Attributes:
        choices: their texts.
        sums: nats.
        nll: by what the metric ranks: the sums, or the sums for each character.
        target: what the harness wrote down.
        answer: the generated text.
        right: places of the right choices.
    """

    choices: tuple[str, ...]
    sums: tuple[float, ...]
    nll: tuple[float, ...]
    target: str
    answer: str
    right: tuple[int, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any], config: Mapping[str, Any], metric: str) -> _Ranked:
        target = row["target"]
        text = str(target[0] if isinstance(target, list) and target else target)
        if not _is_ranked(config):
            generated = config.get("output_type") == "generate_until"
            return cls((), (), (), text, str(row["filtered_resps"][0]) if generated else "")
        choices = _choices(row, config)
        sums = tuple(-float(answer[0]) for answer in row["filtered_resps"][: len(choices)])
        lengths = [max(1, len(choice)) if metric == NORMALIZED else 1 for choice in choices]
        return cls(choices, sums, tuple(s / n for s, n in zip(sums, lengths, strict=True)), text, "")

    def read(self, *, by_text: bool) -> _Ranked:
        """With the right choices, the target read in one of its two ways."""
        numbers = (
            [] if by_text else re.findall(r"-?\d+", self.target) if _PLACES.fullmatch(self.target) else []
        )
        n = len(self.choices)
        places = [int(number) % n for number in numbers if -n <= int(number) < n] if n else []
        if by_text and self.target in self.choices:
            places = [self.choices.index(self.target)]
        return replace(self, right=tuple(places))

    @property
    def best(self) -> int:
        return min(range(len(self.nll)), key=lambda place: (self.nll[place], place))

    def prediction(self, index: int, score: float, result: Result) -> Prediction:
        return Prediction(
            task=result.task,
            seed=result.seed,
            index=index,
            gold=self.choices[self.right[0]] if self.choices and self.right else self.target,
            prediction=self.choices[self.best] if self.choices else self.answer,
            options=self.choices,
            nll=self.nll,
            sum_nll=self.sums,
            n_tokens=(),
            n_chars=tuple(map(len, self.choices)),
            n_bytes=tuple(len(text.encode("utf-8")) for text in self.choices),
            null_sum_nll=(),
            null_n_tokens=(),
            fingerprint=result.fingerprint,
            score=score,
        )


def _choices(row: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The written choices of a sample; none where the choices stand in the input."""
    order = sorted(row["arguments"], key=lambda name: int(name.rpartition("_")[2]))
    arguments = [row["arguments"][name] for name in order]
    context = arguments[0]["arg_0"]
    if any(one["arg_0"] != context for one in arguments[1:] if one["arg_0"]):
        return ()
    delimiter = str(config.get("target_delimiter", " "))
    # Unconditional log-likelihoods of `acc_mutual_info` follow, with an empty context.
    return tuple(str(one["arg_1"]).removeprefix(delimiter) for one in arguments if one["arg_0"] == context)
