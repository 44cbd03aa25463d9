"""`stage=evaluate` of the prompt methods: few-shot tuning over tasks, data seeds and seeds, into the results store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import Tensor, nn

from engine.errors import ConfigError
from engine.files import append_lines, digest_of, write_json
from engine.loop import MetricSink
from engine.models import LanguageModel
from engine.results import FinishedCell, Prediction, Result, ResultStore, RunFolder, relabel
from metaprompt.backbone import Backbone, make_backbone
from metaprompt.meta_training import PROMPT_FILE, load_meta_learned, make_regularizer
from metaprompt.prompt_tasks import (
    PromptTask,
    TaskRenderer,
    TaskRows,
    bind_task,
    load_prompt_task,
    load_rows,
    sample_per_label,
)
from metaprompt.regularizer import GradientRegularizer, RegularizerConfig, Rescale
from metaprompt.released import load_released_regularizer
from metaprompt.released_behaviour import ReleasedBehaviour, released_behaviour
from metaprompt.soft_prompt import initial_prompt, load_prompt, save_prompt
from metaprompt.tunable import (
    FullTunable,
    LoraTunable,
    PeftPromptTunable,
    PromptTunable,
    Tunable,
    TuningMethod,
)
from metaprompt.tuning import LabelledSet, TrainRules, TunedCell, tune

_CODE_VERSION = 1
TUNING_FILE = "tuning.jsonl"
SUMMARY_FILE = "tuning_summary.json"
_RANDOM_PSI = RegularizerConfig(1920, 1, False, "relu", "normal", "matrix_l2", 24)


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """`conf/tuning/*.yaml` with `conf/method/*.yaml`; the field names are their keys.

    Attributes:
        method: name that results carry.
        tuning: what is tuned, a `TuningMethod`.
        setting: name of the task list in results.
        tasks: task names or YAML files.
        transfer: for a training task further test tasks with the same labels (domain generalization).
        data_source: `folder` or `hub`.
        data_root: folder of the task folders.
        k: training examples per label (as many again for development).
        data_seeds: seeds of the K-per-label sample.
        train_seeds: seeds of prompt start, order and dropout.
        max_tokens: context limit, soft prompt not counted.
        test_limit: test examples per task, taken from the front; 0 takes all.
        prompt_length: virtual tokens of a new prompt.
        prompt_init: `random` or `vocabulary`, for a new prompt.
        prompt_path: a checkpoint folder of meta-training, a prompt file, or None for a new prompt.
        regularizer_path: a checkpoint folder, a published `gradient_edit_*.pt`, or None for that of `prompt_path`.
        rescale: overrides psi's rescale variant, or None.
        lora_rank: rank of LoRA.
        lora_alpha: scale of LoRA.
        lora_dropout: dropout of LoRA.
        train: steps, batches, selection, optimizer.
        as_released: do all as the released code.
        switches: single oddities on or off; null follows `as_released`.
    """

    method: str
    tuning: str
    setting: str
    tasks: tuple[str, ...]
    transfer: Mapping[str, Sequence[str]]
    data_source: str
    data_root: str | None
    k: int
    data_seeds: tuple[int, ...]
    train_seeds: tuple[int, ...]
    max_tokens: int
    test_limit: int
    prompt_length: int
    prompt_init: str
    prompt_path: str | None
    regularizer_path: str | None
    rescale: str | None
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    train: TrainRules
    as_released: bool
    switches: Mapping[str, bool | None]

    def __post_init__(self) -> None:
        """Raise ConfigError for a value outside its rule or a contradiction."""
        if self.tuning not in tuple(TuningMethod):
            raise ConfigError(
                "method.tuning", f"unknown value {self.tuning!r}", f"one of {', '.join(TuningMethod)}"
            )
        if self.tuning == TuningMethod.SUPMER and not self.prompt_path:
            raise ConfigError(
                "tuning.prompt_path",
                "is not set, but supmer starts from a meta-learned prompt",
                "run stage=train first, or give a checkpoint folder or a prompt file",
            )
        if self.rescale is not None and self.rescale not in tuple(Rescale):
            raise ConfigError(
                "tuning.rescale", f"unknown value {self.rescale!r}", f"one of {', '.join(Rescale)}"
            )
        if self.k < 1 or not self.tasks or not self.data_seeds or not self.train_seeds:
            raise ConfigError(
                "tuning", "k, tasks, seeds or train_seeds is empty", "give k >= 1 and at least one of each"
            )

    def behaviour(self) -> ReleasedBehaviour:
        """The oddities that are on."""
        return released_behaviour(self.as_released, self.switches)

    def train_rules(self) -> TrainRules:
        """Training rules, with the released selection where that oddity is on."""
        return replace(self.train, select_on="test") if self.behaviour().test_selection else self.train


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A training task with its test tasks, bound to a tokenizer.

    Attributes:
        renderer: of the training task.
        rows: of the training task.
        tests: renderer and rows of each test task, by the name that results carry.
    """

    renderer: TaskRenderer
    rows: TaskRows
    tests: dict[str, tuple[TaskRenderer, TaskRows]]


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What every cell starts from: a given prompt (or None for a new one), psi, and digests of both."""

    prompt: Tensor | None
    regularizer: GradientRegularizer | None
    digest: dict[str, Any]


def evaluate_prompts(
    settings: TuneSettings,
    language_model: LanguageModel,
    output: Path,
    results_root: Path,
    *,
    notify: Callable[[str], None],
    sink: MetricSink | None = None,
) -> list[FinishedCell]:
    """Tune and test every (task, data seed, training seed) cell that the store does not hold yet.

    Writes `results.jsonl`, `predictions.jsonl`, `tuning.jsonl` (curve and chosen step of each cell), the tuned
    prompts and `tuning_summary.json` (deviations) into `output`.
    """
    tasks = [load_task(name, settings, language_model) for name in settings.tasks]
    backbone = make_backbone(language_model)
    start = starting_point(settings, language_model, backbone)
    store, folder = ResultStore(results_root), RunFolder(output)
    store.check_writable()
    plan = [(t, d, s) for t in tasks for d in settings.data_seeds for s in settings.train_seeds]
    finished: list[FinishedCell] = []
    for number, (task, data_seed, seed) in enumerate(plan, start=1):
        for cell in _cell(settings, backbone, task, start, data_seed, seed, store, output):
            folder.add(cell)
            finished.append(cell)
            notify(
                f"[{number}/{len(plan)}] {settings.method} {cell.result.task} data seed {data_seed} seed {seed}:"
                f" accuracy {100 * cell.result.value:.1f}"
            )
            if sink is not None:
                sink.log({f"accuracy/{cell.result.task}": cell.result.value}, number)
    write_json(output / SUMMARY_FILE, deviations([cell.result for cell in finished]))
    return finished


def load_task(name: str, settings: TuneSettings, language_model: LanguageModel) -> LoadedTask:
    """Load a training task and its test tasks.

    Raises:
        ConfigError: a transfer task with other labels.
    """
    task = load_prompt_task(name)
    rows = load_rows(task, settings.data_source, settings.data_root)
    renderer = _bind(task, settings, language_model)
    tests = {task.name: (renderer, rows)}
    for other_name in settings.transfer.get(name, ()):
        other = load_prompt_task(other_name)
        if other.labels != task.labels:
            raise ConfigError(
                f"tuning.transfer.{name}",
                f"{other.name} has labels {', '.join(other.labels)}, {task.name} {', '.join(task.labels)}",
                "choose a task with the same labels in the same order",
            )
        other_rows = load_rows(other, settings.data_source, settings.data_root)
        tests[f"{task.name}->{other.name}"] = (_bind(other, settings, language_model), other_rows)
    return LoadedTask(renderer, rows, tests)


def _bind(task: PromptTask, settings: TuneSettings, language_model: LanguageModel) -> TaskRenderer:
    behaviour = settings.behaviour()
    return bind_task(
        task,
        language_model.tokenizer,
        is_seq2seq=language_model.is_seq2seq,
        max_tokens=settings.max_tokens,
        released_words=behaviour.inverted_boolq,
        released_truncation=behaviour.released_truncation,
    )


def starting_point(
    settings: TuneSettings, language_model: LanguageModel, backbone: Backbone
) -> StartingPoint:
    """Load prompt and psi once for all cells.

    Raises:
        CheckpointError: a file of another kind or width.
        ConfigError: supmer without a regularizer.
    """
    prompt, regularizer, digest = None, None, dict[str, Any]()
    width = backbone.width
    if settings.prompt_path:
        path = Path(settings.prompt_path).expanduser()
        if path.is_dir():
            learned = load_meta_learned(path, width)
            prompt, regularizer = learned.prompt, learned.regularizer
            digest["meta"] = learned.digest
        else:
            prompt = load_prompt(path, width)
            digest["prompt"] = digest_of(prompt.tolist())
    if settings.regularizer_path:
        regularizer = _regularizer_of(Path(settings.regularizer_path).expanduser(), width)
    behaviour = settings.behaviour()
    if settings.tuning == TuningMethod.SOFT_PROMPT:
        regularizer = make_regularizer(width, _RANDOM_PSI, 0) if behaviour.always_regularize else None
    elif settings.tuning != TuningMethod.SUPMER:
        regularizer = None
    elif regularizer is None:
        raise ConfigError(
            "tuning.regularizer_path",
            "is not set, and tuning.prompt_path holds a prompt alone",
            "give a checkpoint folder or a gradient_edit_*.pt, or use method=soft_prompt",
        )
    if regularizer is not None:
        rescale = Rescale.MATRIX_L2 if behaviour.matrix_rescale_downstream else settings.rescale
        regularizer.rescale = Rescale(rescale or regularizer.rescale)
        regularizer = regularizer.requires_grad_(False).eval().to(language_model.device)
        digest["regularizer"] = digest_of({n: t.tolist() for n, t in regularizer.state_dict().items()})
        digest["rescale"] = regularizer.rescale.value
    return StartingPoint(prompt, regularizer, digest)


def _regularizer_of(path: Path, width: int) -> GradientRegularizer:
    return load_meta_learned(path, width).regularizer if path.is_dir() else load_released_regularizer(path)


def make_tunable(
    settings: TuneSettings, backbone: Backbone, start: StartingPoint, seed: int
) -> Tunable:
    """The thing that one cell trains."""
    method = TuningMethod(settings.tuning)
    if method is TuningMethod.FULL:
        return FullTunable(backbone)
    if method is TuningMethod.LORA:
        return LoraTunable(backbone, settings.lora_rank, settings.lora_alpha, settings.lora_dropout)
    language_model = backbone.language_model
    prompt = start.prompt
    if prompt is None:
        prompt = initial_prompt(language_model, settings.prompt_length, settings.prompt_init, seed)
    prompt = prompt.clone().to(language_model.device)
    if method is TuningMethod.PEFT_PROMPT:
        return PeftPromptTunable(backbone, prompt)
    return PromptTunable(
        backbone, nn.Parameter(prompt), start.regularizer, settings.behaviour().state_over_padding
    )


def _cell(
    settings: TuneSettings,
    backbone: Backbone,
    task: LoadedTask,
    start: StartingPoint,
    data_seed: int,
    seed: int,
    store: ResultStore,
    output: Path,
) -> list[FinishedCell]:
    """One training run with all its test tasks, read from the store where it is already there."""
    prints = {
        name: fingerprint(settings, backbone.language_model, task, name, start, data_seed, seed)
        for name in task.tests
    }
    with store.lock(next(iter(prints.values()))):
        found = [store.get(print_) for print_ in prints.values()]
        if all(cell is not None for cell in found):
            names = {
                "setting": settings.setting,
                "method": settings.method,
                "model": backbone.language_model.spec.name,
            }
            label = result_seed(settings, data_seed, seed)
            return [relabel(cell, **names, seed=label) for cell in found if cell is not None]
        tuned = _tune(settings, backbone, task, start, data_seed, seed)
        cells = [
            finished_cell(
                settings,
                backbone.language_model,
                task,
                name,
                tuned,
                result_seed(settings, data_seed, seed),
                prints[name],
            )
            for name in task.tests
        ]
        for cell in cells:
            store.put(cell)
    own = task.renderer.task.name
    row = {
        "task": own,
        "data_seed": data_seed,
        "seed": seed,
        "method": settings.method,
        "chosen_step": tuned.chosen_step,
        "curve": tuned.curve_rows(),
        "fingerprint": prints[own],
    }
    append_lines(output / TUNING_FILE, [row])
    if "prompt" in tuned.weights:
        save_prompt(output / "prompts" / f"{own}-{data_seed}-{seed}-{PROMPT_FILE}", tuned.weights["prompt"])
    return cells


def _tune(
    settings: TuneSettings,
    backbone: Backbone,
    task: LoadedTask,
    start: StartingPoint,
    data_seed: int,
    seed: int,
) -> TunedCell:
    pool = task.rows.train
    train, dev = sample_per_label([row["label"] for row in pool], settings.k, data_seed)
    tests = {
        name: _labelled(renderer, rows.test[: settings.test_limit or None])
        for name, (renderer, rows) in task.tests.items()
    }
    tunable = make_tunable(settings, backbone, start, seed)
    try:
        return tune(
            tunable,
            backbone.language_model,
            _labelled(task.renderer, [pool[i] for i in train]),
            _labelled(task.renderer, [pool[i] for i in dev]),
            tests,
            settings.train_rules(),
            seed,
        )
    finally:
        tunable.close()


def _labelled(renderer: TaskRenderer, rows: Sequence[Mapping[str, Any]]) -> LabelledSet:
    return LabelledSet(
        tuple(renderer.example(row) for row in rows),
        tuple(int(row["label"]) for row in rows),
        renderer.label_ids,
    )


def fingerprint(
    settings: TuneSettings,
    language_model: LanguageModel,
    task: LoadedTask,
    test: str,
    start: StartingPoint,
    data_seed: int,
    seed: int,
) -> str:
    """Digest of everything that decides a cell's value; names and folders do not."""
    names = ("tuning", "k", "max_tokens", "test_limit", "lora_rank", "lora_alpha", "lora_dropout")
    own = {name: getattr(settings, name) for name in names}
    if start.prompt is None:
        own |= {"prompt_length": settings.prompt_length, "prompt_init": settings.prompt_init}
    renderer, rows = task.tests[test]
    return digest_of(
        {
            "code": _CODE_VERSION,
            "settings": own,
            "train": asdict(settings.train_rules()),
            "behaviour": asdict(settings.behaviour()),
            "start": start.digest,
            "model": language_model.weights_digest,
            "tokenizer": language_model.tokenizer_digest,
            "dtype": language_model.spec.dtype,
            "task": [asdict(task.renderer.task), task.rows.digest],
            "test": [asdict(renderer.task), rows.digest],
            "data_seed": data_seed,
            "seed": seed,
        }
    )


def result_seed(settings: TuneSettings, data_seed: int, seed: int) -> int:
    """The number that stands for a run in results: the data seed, or both seeds where several are trained."""
    return data_seed if len(settings.train_seeds) == 1 else 10_000 * data_seed + seed


def finished_cell(
    settings: TuneSettings,
    language_model: LanguageModel,
    task: LoadedTask,
    test: str,
    tuned: TunedCell,
    label_seed: int,
    print_: str,
) -> FinishedCell:
    """A tuned cell as result and prediction records."""
    answers, words = tuned.tests[test], task.tests[test][0].words
    tokenizer = language_model.tokenizer
    over = settings.train.predict_over
    chosen = answers.predicted(over)
    predictions: list[Prediction] = []
    for index, label in enumerate(chosen):
        nll = tuple(float(value) for value in answers.nll[index])
        # With the whole vocabulary as options an answer may be no label word at all: then the token is shown.
        told = words[label] if label >= 0 else str(tokenizer.convert_ids_to_tokens(int(answers.top[index])))
        predictions.append(
            Prediction(
                test, label_seed, index, words[answers.gold[index]], told, words, nll, nll, (1,) * len(words),
                tuple(map(len, words)), tuple(len(word.encode()) for word in words), (), (), print_,
            )  # fmt: skip
        )
    result = Result(
        settings.setting, settings.method, language_model.spec.name, test, label_seed, settings.k, "accuracy",
        answers.accuracy(over), len(chosen), print_,
    )  # fmt: skip
    return FinishedCell(result, tuple(predictions))


def deviations(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over runs of each task, in percent (0 for a single run)."""
    tasks: dict[str, list[float]] = {}
    for result in results:
        tasks.setdefault(result.task, []).append(100 * result.value)
    return {
        task: {
            "mean": round(fmean(values), 2),
            "deviation": round(stdev(values), 2) if len(values) > 1 else 0.0,
            "runs": len(values),
        }
        for task, values in tasks.items()
    }
