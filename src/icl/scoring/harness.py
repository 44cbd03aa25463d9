"""The family of harness tasks: the task writes its prompts and measures its answers, the engine scores them.

For each document the task is asked for its requests (lm-eval's `fewshot_context` and `construct_requests`) after the
demonstrations that this run chose; the engine answers them, on the token ids of the harness's own model; and the
task's filters, `process_results` and aggregations make its metrics of the answers. Several tasks may be members of a
group, whose aggregation is the harness's too.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from itertools import chain, takewhile
from pathlib import Path
from statistics import fmean
from typing import Any

from lm_eval.api.metrics import mean
from lm_eval.api.samplers import ContextSampler

from metashot.base.errors import ConfigError, DataError, MetashotError
from metashot.base.files import sha256_once, write_json
from metashot.base.json_text import digest_of
from metashot.base.terminal import counted
from metashot.data.task import TaskData
from metashot.data.tasks.harness_tasks import Document, HarnessSource, HarnessTask
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.family import CellKey, Meter, Work
from metashot.engine.cells.prompts import CellPrompt
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.metrics.classification import AnyMetric, Metric, TaskMetric
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.makers import loads_itself, scorer_of
from metashot.engine.scoring.request import (
    BestScorer,
    CheckedScorer,
    MakeScorer,
    Request,
    Scorer,
    SharingScorer,
    targets_only,
)
from metashot.icl.scoring.cell import Cell
from metashot.icl.scoring.cell_data import shared_identity
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.harness_ids import HarnessIds
from metashot.icl.scoring.harness_metrics import Measured, measure
from metashot.icl.scoring.in_context import InContextCells

METRICS_FILE = "lm_eval_metrics.json"
"""Every metric of tasks and groups, by seed, under the harness's names."""
GENERATES, ROLLS = "generate_until", "loglikelihood_rolling"
_FIRST = {"sum": (), "characters": ("acc_norm",), "bytes": ("acc_bytes",)}
"""Metrics that go before `acc`, by how options are normalized."""
_LENGTHS: Mapping[str, Callable[[str], int]] = {"acc_norm": len, "acc_bytes": lambda text: len(text.encode())}
_GENERATED = {"exact_match": Metric.EXACT_MATCH, "f1": Metric.TOKEN_F1, "rougeL": Metric.ROUGE_L}
_Sampler: Any = ContextSampler


class _Chosen(_Sampler):
    """A sampler that gives what was chosen, document by document."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        super().__init__([])
        self._rows, self.asked = iter(rows), 0

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **_: Any) -> list[Any]:
        """The next document's demonstrations."""
        self.asked += 1
        return [one.content for one in next(self._rows)]


class HarnessCells(InContextCells):
    """Cells of tasks that write their own prompts.

    Args:
        settings: what to evaluate.
        source: chooses the documents.
        model: loaded when the first rows have to be computed.
        make_scorer: the scoring engine for the loaded model.
        tasks: the harness's tasks, behind `source`.
    """

    def __init__(
        self,
        settings: EvaluateSettings,
        source: TaskSource,
        model: LazyLanguageModel,
        make_scorer: MakeScorer,
        tasks: HarnessSource,
    ) -> None:
        super().__init__(settings, source, model)
        self._make_scorer = self.make_scorer = make_scorer
        self._tasks = tasks
        self._asked: tuple[CellKey | None, list[list[Any]]] = None, []

    def work(self) -> Sequence[Work]:
        """A work for each cell.

        Raises:
            DataError, ConfigError: bad data, or a selection that changes what demonstrations show.
        """
        shared = {
            **shared_identity(self.settings, self.rules, self.model, self.make_scorer),
            "lm_eval": version("lm_eval"),
            "bos": self.settings.prompt.bos,
        }
        shots = self.settings.method.shots(self.settings.k)
        for name in self.settings.tasks:
            task = self._tasks.task(name)
            measures = _measures(task)
            for seed in self.settings.seeds:
                data = self.source.load(name, k=shots, seed=seed, split=self.settings.split)
                rows = self._ask(task, data)
                told = [[one.request_type, one.arguments, one.doc] for one in chain.from_iterable(rows)]
                golds = [[one.output, *one.references] for one in data.test]
                decides = {"task": name, "measures": measures, "requests": _plain(told), "golds": golds}
                fingerprint = digest_of({**shared, **decides})
                key = CellKey(name, seed, fingerprint, len(data.test))
                self._data[key], self._asked = data, (key, rows)
        return [Work((key,), key.n) for key in self._data]

    def build(self, data: TaskData) -> Cell:
        """The ids of the task's requests: the first layer has those of each document, one after the other."""
        key = next(key for key, one in self._data.items() if one is data)
        requests: dict[Request, int] = {}
        index: list[tuple[int, ...]] = []
        texts: list[tuple[str, ...]] = []
        lost: list[int] = []
        for row in self._rows(key):
            parts = self._ids_of(key.task, row)
            index.append(tuple(requests.setdefault(one, len(requests)) for part in parts for one in part))
            texts.append(tuple(str(row[place].args[-1]) for place, part in enumerate(parts) for _ in part))
            lost.append(max(self._lost(row, parts), default=0))
        shown = tuple((data.shots,) * len(row) for row in index)
        return Cell(tuple(requests), (tuple(index),), (tuple(texts),), (shown,), 0, 0, shown, tuple(lost))

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[Any]:
        """For each row and request the answers that its task counts.

        Returns:
            [rows][requests][repeats]: (nats, whether greedy decoding would write it), nats alone for whole texts, or
            what was generated.

        Raises:
            ModelError: NaN logits, or scores that are not those of a request alone.
            ConfigError: a scorer that cannot answer them.
        """
        instances = [self._rows(work.cells[0])[row] for row in rows]
        generated = iter(self._generated([one for row in instances for one in row if _generates(one)], meter))
        found = self._scored(
            work, [row for row, asked in zip(rows, instances, strict=True) if not _generates(asked[0])], meter
        )
        cell, answers = self.cell(work), []
        for row, asked in zip(rows, instances, strict=True):
            places = iter(cell.index[0][row])
            answers.append(
                [
                    next(generated) if _generates(one) else [_answer(one, part, found)] * (one.repeats or 1)
                    for one, part in ((one, self._places(work, one, places)) for one in asked)
                ]
            )
        return answers

    def finish(self, work: Work, answers: Sequence[Any]) -> Sequence[FinishedCell]:
        """Let the task measure the answers."""
        key, data = work.cells[0], self.data(work)
        task, rows = self._tasks.task(key.task), self._rows(work.cells[0])
        for asked, row in zip(rows, answers, strict=True):
            for one, found in zip(asked, row, strict=True):
                one.resps = [tuple(each) if isinstance(each, list) else each for each in found]
                one.filtered_resps = {}
        with _said(key.task, "cannot be measured"):
            measured = measure(task.task, rows, self._order)
        metric = _metric_of(measured.first[0], task)
        predictions = [self._prediction(work, index, measured) for index in range(len(rows))]
        if metric is Metric.ACCURACY and _told_by_text(predictions, data):
            predictions = [replace(one, score=None) for one in predictions]
        result = replace(self.result(work, metric, measured.value), metrics=measured.metrics)
        return [FinishedCell(result, tuple(predictions))]

    def prompt(self, key: CellKey, result: Result) -> CellPrompt:
        """What all contexts of the cell begin with, and what the documents ask."""
        data = self._data[key]
        inputs = tuple(one.input for one in data.test)
        if data.neighbours:
            return CellPrompt(key.task, key.seed, None, inputs)
        contexts = [str(row[0].args[0]) for row in self._rows(key) if row[0].request_type != ROLLS]
        border = self._tasks.task(key.task).config.fewshot_delimiter
        begin = _common_start(contexts) if len(contexts) > 1 else ""
        end = begin.rfind(border)
        return CellPrompt(
            key.task, key.seed, begin[: end + len(border)] if end >= 0 and border else "", inputs
        )

    def texts(self, work: Work, row: int) -> list[tuple[str, str]]:
        """(context, continuation) of each request of a row, as the task wrote them."""
        asked = self._rows(work.cells[0])[row]
        return [(str(one.args[0]), "" if len(one.args) < 2 else str(one.args[1])) for one in asked]

    def result(self, work: Work, metric: AnyMetric, value: float) -> Result:
        """The line of a cell; how many demonstrations a prompt holds is not known where it was cut."""
        result = super().result(work, metric, value)
        return replace(result, shown_mean=None, shown_least=None) if result.cut_inputs else result

    def notes(self, results: Sequence[Result]) -> Sequence[str]:
        """What there is to say of the data, of prompts that were cut, and of tasks that the harness asks without demonstrations."""
        notes = [note for data in self._data.values() for note in data.notes]
        for one in results:
            if one.cut_inputs:
                notes.append(
                    f"task {one.task!r}: the prompts of {one.cut_inputs} of {one.n} documents are longer than the model reads "
                    "and were cut on the left, as the harness cuts them"
                )
            if self.settings.method.shots(self.settings.k) and not one.k:
                notes.append(
                    f"task {one.task!r}: its config says num_fewshot: 0, which the harness keeps to; k=0"
                )
        return list(dict.fromkeys(notes))

    def close(self, cells: Sequence[FinishedCell], output: Path) -> Sequence[str]:
        """Every metric of tasks and groups, in a file and as lines; a group is what the harness makes of its members."""
        by_seed: dict[int, dict[str, Any]] = {}
        for cell in cells:
            one = cell.result
            by_seed.setdefault(one.seed, {})[one.task] = {**(one.metrics or {}), "sample_len": one.n}
        written: dict[str, Any] = {}
        for seed, results in by_seed.items():
            groups = {name: _group(group, results) for name, group in self._tasks.groups.items()}
            written[str(seed)] = {"results": results, "groups": {k: v for k, v in groups.items() if v}}
        write_json(output / METRICS_FILE, {"lm_eval": version("lm_eval"), "seeds": written})
        lines = [*_lines(written, "results", ""), *_lines(written, "groups", " (group)")]
        return [f"metrics of the harness's tasks, means over seeds ({METRICS_FILE}):", *lines]

    @cached_property
    def _ids(self) -> HarnessIds:
        bos = self.settings.prompt.bos
        sizes = self.model.spec.read_config()
        return HarnessIds(
            self.model.tokenizer,
            self.rules.context_length,
            bos if isinstance(bos, bool) else None,
            seq2seq=bool(sizes.is_encoder_decoder),
        )

    @cached_property
    def _scorer(self) -> Scorer:
        """Made when the first rows are scored."""
        return scorer_of(self._make_scorer, self.model)

    @cached_property
    def _writer(self) -> Any:
        """Generates as `--model metashot` does."""
        from metashot.harness import MetashotLM

        make: Any = MetashotLM
        if loads_itself(self._make_scorer):
            raise ConfigError("scorer", "does not answer generate_until tasks", "use scorer=prefix")
        loaded = self.model.load()
        size = getattr(self.settings.method, "batch_size", 16)
        with _quiet():
            return make(
                pretrained=loaded.model,
                tokenizer=loaded.tokenizer,
                device=str(loaded.device),
                batch_size=size,
            )

    @property
    def _order(self) -> Sequence[str]:
        """Names of metrics that go first."""
        return (*_FIRST.get(self.settings.method.normalization.name, ()), "acc", "exact_match")

    def _rows(self, key: CellKey) -> list[list[Any]]:
        """The requests of each document of a cell, written once while it is in work; the task holds them too."""
        if self._asked[0] != key:
            self._asked = key, self._ask(self._tasks.task(key.task), self._data[key])
        return self._asked[1]

    def _ask(self, task: HarnessTask, data: TaskData) -> list[list[Any]]:
        """lm-eval's `Instance`s of each document, in order."""
        shown = data.neighbours or (data.demonstrations,) * len(data.test)
        for one in {id(one): one for one in chain(data.test, *shown)}.values():
            if not isinstance(one, Document) or one != task.document(one.content):
                raise ConfigError(
                    "selection",
                    f"changes what is shown, and task {task.name!r} writes that itself",
                    "leave labels, label_noise and shown alone, or use prompt=metaicl",
                )
        places = {id(content): place for place, content in enumerate(task.documents)}
        own, k = task.task, data.shots
        sampler, chosen = getattr(own, "sampler", None), _Chosen(shown)
        with _said(task.name, "cannot write its prompts"), _quiet():
            own.sampler = chosen
            own.set_config("num_fewshot", k)
            samples = {places[id(one.content)] for one in data.test if isinstance(one, Document)}
            whole = len(samples) == len(task.documents)
            try:
                own.build_all_requests(samples=None if whole else samples)
            finally:
                own.sampler = sampler
            if k and not chosen.asked:
                self._tasks.let_draw(task)
                own.build_all_requests(samples=None if whole else samples)
        rows: list[list[Any]] = [[] for _ in data.test]
        for one in own.instances:
            rows[one.doc_id].append(one)
        for place, row in enumerate(rows):
            row.sort(key=lambda one: one.idx)
            if not row:
                raise DataError(
                    f"{task.name}, document {place}", "has no choices", "leave the task out of data.tasks"
                )
        return rows

    def _ids_of(self, task: str, row: Sequence[Any]) -> list[list[Request]]:
        """The engine's requests of each of the task's."""
        kind = row[0].request_type
        with _said(task, "cannot be scored"):
            found: Any = getattr(self._ids, kind)(row, disable_tqdm=True)
        return found if kind == ROLLS else [[one] for one in found]

    def _lost(self, row: Sequence[Any], parts: Sequence[Sequence[Request]]) -> Iterator[int]:
        """Tokens that each request lost on the left."""
        for one, part in zip(row, parts, strict=True):
            kept = part[0]
            if (
                one.request_type == "loglikelihood"
                and kept.length >= self._ids.length
                and self._ids.backend == "causal"
            ):
                yield max(0, len(self._ids.tok_encode(str(one.args[0]) + str(one.args[1]))) - kept.length)

    @staticmethod
    def _places(work: Work, one: Any, places: Iterator[int]) -> list[int]:
        del work
        return list(places) if one.request_type == ROLLS else [next(places)]

    def _scored(self, work: Work, rows: Sequence[int], meter: Meter) -> dict[int, tuple[float, bool]]:
        """(nats, greedy) of each place of the cell's requests that these rows need."""
        if not rows:
            return {}
        cell, scorer = self.cell(work), self._scorer
        places = cell.places(rows)
        requests = tuple(cell.requests[place] for place in places)
        if hasattr(scorer, "score_with_best"):
            best: BestScorer = scorer  # pyright: ignore[reportAssignmentType]
            both = best.score_with_best(requests, on_progress=meter.at)
            scores, greedy = targets_only(both), [bool((one[:, 0] >= one[:, 1]).all()) for one in both]
        else:
            self._check_not_greedy(work.cells[0].task)
            scores = scorer.score(requests, on_progress=meter.at)
            greedy = [False] * len(scores)
        if isinstance(scorer, CheckedScorer):
            meter.cost.checked(scorer.check(requests, scores))
        meter.cost.tokens_naive += cell.tokens_of(rows)
        if isinstance(scorer, SharingScorer):
            meter.cost.route, meter.cost.route_reason = scorer.route, scorer.reason
            meter.cost.tokens_computed += scorer.tokens_computed(requests)
        else:
            meter.cost.route = "plain"
            meter.cost.tokens_computed += sum(request.length for request in requests)
        sums = [float(one.double().sum()) for one in scores]
        return dict(zip(places, zip(sums, greedy, strict=True), strict=True))

    def _check_not_greedy(self, name: str) -> None:
        """Refuse a task that asks whether greedy decoding would write a continuation, for scorers that cannot say."""
        task = self._tasks.task(name)
        config = task.config
        metrics = set(task.task.aggregation())
        asks = (config.output_type == "loglikelihood" and "acc" in metrics) or "exact_match" in metrics
        if config.output_type != ROLLS and (asks or config.process_results is not None):
            raise ConfigError(
                "scorer",
                f"cannot say what greedy decoding writes, which task {name!r} asks",
                "use scorer=prefix",
            )

    def _generated(self, instances: Sequence[Any], meter: Meter) -> list[list[str]]:
        """[requests][repeats] texts."""
        if not instances:
            return []
        repeats = [one.repeats or 1 for one in instances]
        asked = [one for one, n in zip(instances, repeats, strict=True) for _ in range(n)]
        with _said(instances[0].task_name, "cannot be answered"), _quiet():
            texts = iter(self._writer.generate_until(asked, disable_tqdm=True))
        meter.at(1, 1)
        return [[str(next(texts)) for _ in range(n)] for n in repeats]

    def _prediction(self, work: Work, index: int, measured: Measured) -> Prediction:
        key, example = work.cells[0], self.data(work).test[index]
        row, cell = self._rows(key)[index], self.cell(work)
        kind = row[0].request_type
        tokens = [cell.requests[place].scored for place in cell.index[0][index]]
        answers = [one.resps[0] for one in row]
        common: dict[str, Any] = {
            "task": key.task, "seed": key.seed, "index": index, "gold": example.output,
            "fingerprint": key.fingerprint, "score": measured.scores[index],
        }  # fmt: skip
        if kind != "loglikelihood":
            rolls = kind == ROLLS
            return Prediction(
                **common, prediction="" if rolls else str(measured.filtered[index]), options=(), nll=(),
                sum_nll=(-float(answers[0]),) if rolls else (), n_tokens=(sum(tokens),) if rolls else (),
                n_chars=(), n_bytes=(), null_sum_nll=(), null_n_tokens=(),
                texts=() if rolls else tuple(map(str, row[0].resps)),
            )  # fmt: skip
        sums = tuple(-float(answer[0]) for answer in answers)
        own = example.options if len(example.options) in (len(row), len(row) // 2) else ()
        options = own or tuple(str(one.args[1]) for one in row)
        n = len(options)
        length = _LENGTHS.get(measured.first[0])
        nll = tuple(
            one / max(1, length(text)) if length else one for one, text in zip(sums, options, strict=False)
        )
        best = options[min(range(n), key=nll.__getitem__)]
        if n == 1:
            best = options[0] if answers[0][1] else ""
        return Prediction(
            **common, prediction=best, options=options, nll=nll, sum_nll=sums[:n], n_tokens=tuple(tokens[:n]),
            n_chars=tuple(map(len, options)), n_bytes=tuple(len(text.encode()) for text in options),
            null_sum_nll=tuple(sums[at : at + n] for at in range(n, len(sums), n)),
            null_n_tokens=tuple(tuple(tokens[at : at + n]) for at in range(n, len(sums), n)),
        )  # fmt: skip


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(character for character, _ in alike)


def _metric_of(name: str, task: HarnessTask) -> AnyMetric:
    if name == "acc":
        return Metric.ACCURACY
    generated = task.config.output_type == GENERATES and task.task.aggregation().get(name, mean) is mean
    return _GENERATED.get(name, TaskMetric(name)) if generated else TaskMetric(name)


def _told_by_text(predictions: Sequence[Prediction], data: TaskData) -> bool:
    """Whether texts alone say which answers are right: no choice stands twice, and one is right."""
    return all(
        len(set(one.options)) == len(one.options)
        and one.score == (one.gold == one.prediction)
        and not example.references
        for one, example in zip(predictions, data.test, strict=True)
    )


def _measures(task: HarnessTask) -> Any:
    """What of a task, besides its requests, decides its metrics: names and options, and the code beside its YAML."""
    config = task.config.to_dict()
    names = ("metric_list", "filter_list", "process_results", "output_type", "repeats", "num_fewshot")
    written = str((task.config.metadata or {}).get("config_source", ""))
    code = sorted(Path(written).parent.glob("*.py")) if written.endswith((".yaml", ".yml")) else []
    return _plain([{name: config.get(name) for name in names}, [sha256_once(path) for path in code]])


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_told))


def _told(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (TypeError, OSError):
        return str(value)


def _generates(instance: Any) -> bool:
    return instance.request_type == GENERATES


def _answer(instance: Any, places: Sequence[int], found: Mapping[int, tuple[float, bool]]) -> Any:
    if instance.request_type == ROLLS:
        return sum(found[place][0] for place in places)
    return list(found[places[0]])


def _group(group: Any, results: Mapping[str, Any]) -> dict[str, Any]:
    """A group's own metrics; none where it states no aggregation."""
    with _quiet():
        found = group.aggregate(results)
    return {key: value for key, value in found.items() if "," in key and isinstance(value, int | float)}


def _lines(written: Mapping[str, Any], part: str, kind: str) -> Iterator[str]:
    """A line for each task or group: its metrics, as means over seeds."""
    for name in dict.fromkeys(name for one in written.values() for name in one[part]):
        rows = [one[part][name] for one in written.values()]
        named = [key for key in rows[0] if "," in key and "_stderr," not in key]
        said = [f"{key.removesuffix(',none')} {fmean(row[key] for row in rows):.4f}" for key in named if all(row.get(key) is not None for row in rows)]  # fmt: skip
        yield f"  {name}{kind}: {', '.join(said) or counted(0, 'number')}"


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the harness's bars and its account of what it does; warnings stay."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _said(task: str, what: str) -> Generator[None]:
    """What a task's own code raises, as one line."""
    try:
        yield
    except MetashotError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(
            task, f"{what}: {type(error).__name__}: {text}", "look at its YAML file and code, or leave it out"
        ) from error
