"""Flips and cuts of every kind of stored file: detected, recovered, or without effect on any number; never silent."""

import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

sys.path.insert(0, str(Path(__file__).parent))
from metashot.base.errors import MetashotError
from metashot.base.files import write_lines
from metashot.data.rows.manifest import Manifest, RoleRecord
from metashot.data.tasks.source import JsonlSource
from metashot.data.text.sentences import SentenceRules
from metashot.engine.cells.store import ResultStore
from metashot.engine.models import gguf
from metashot.engine.models.exports import exporting
from metashot.engine.models.gguf_files import gguf_on_disk
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import LocalModel, named_model
from metashot.engine.report.reading.folders import read_folder
from metashot.engine.sweeps.ledger import Job, Ledger
from metashot.engine.training.checkpoint import CheckpointStore, read_checkpoint
from metashot.metaprompt.clusters.clustering import ClusterConfig
from metashot.metaprompt.clusters.embedding import EncoderConfig
from metashot.metaprompt.clusters.store import CorpusConfig, prepare_clusters
from metashot.metaprompt.exchange import export_learned, import_learned
from metashot.metaprompt.meta.setup import make_regularizer
from metashot.metaprompt.meta.steps.regularizer import RegularizerConfig
from metashot.metaprompt.soft_prompt import load_prompt, save_prompt

FLIPS = CUTS = 100
JOBS = [Job((f"k={k}",), {"k": k}) for k in range(4)]


def _prepared(folder):
    rows = [
        f'{{"task": "m", "input": "text {n}", "output": "{"ab"[n % 2]}", "options": ["a", "b"]}}'
        for n in range(8)
    ]
    files = {
        name: write_lines(folder / "m" / name, part)
        for name, part in (("m_4_100_train.jsonl", rows[:4]), ("m_4_100_test.jsonl", rows[4:]))
    }
    Manifest(folder).put("m", "test", RoleRecord("print", False, {}, 4, (100,), {}, {}, files))


def _checkpoint(folder):
    CheckpointStore(folder, {"lr": 0.1}, {"name": "m"}).save(
        1, {"w": torch.arange(64.0).view(8, 8)}, {"moment": torch.ones(8), "cursor": {"step": 1}}, metric=0.5
    )


def _ledger(folder):
    ledger = Ledger(folder)
    ledger.plan(JOBS)
    for job, figure in zip(JOBS, (10.5, 20.25, 30.0, 41.75), strict=True):
        ledger.start(job.key, folder)
        ledger.finish(job.key, figure)


def _read_ledger(folder):
    ledger = Ledger(folder)
    return [(one.overrides, one.state, one.figure) for one in map(ledger.read, (job.key for job in JOBS))]


def _read_checkpoint(folder):
    read = read_checkpoint(folder / "step-00000001")
    return read.step, read.weights["w"].tolist(), read.state["moment"].tolist(), read.state["cursor"]


def _search(folder):
    from metashot.engine.sweeps.search import Interval, Search, SearchConfig

    spec = SearchConfig(f"sqlite:///{folder / 'search.db'}", "s", "maximize", 9, "random", 0, "none", 0, "m")
    return Search(spec, {"x": Interval(-4.0, 4.0)})


def _filled_search(folder):
    search = _search(folder)
    for trial in search.ask(6):
        search.tell(trial.number, -(trial.values["x"] ** 2))


def _read_search(folder):
    search = _search(folder)
    return search.best(), search.points(), search.remaining


CORPUS = {
    "encoder": ("toy", 8, 10, "cpu"),
    "clusters": (3, 2, 20, 2, 0, 50, 2),
    "rules": ("en", 5, 2, 100, 2),
}


def _clusters(folder):
    """Sentences, vectors and clusters; `_read_clusters` makes them again where they are damaged."""
    text = "\n\n".join(
        f"{letter}pple {n} is red. {letter}ll {n} are green." for n in range(6) for letter in "ABC"
    )
    (folder.parent / "corpus").mkdir(exist_ok=True)
    (folder.parent / "corpus" / "text.txt").write_text(text)
    _read_clusters(folder)


def _read_clusters(folder):
    def embed(sentences):
        return np.asarray([[float(s[0] == letter) for letter in "ABC"] for s in sentences], dtype=np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASHOT_CACHE", str(folder))
        corpus = CorpusConfig(
            "toy", "text", str(folder.parent / "corpus"), None, "train", "text", "paragraph", 0,
            sentences=SentenceRules(*CORPUS["rules"]), encoder=EncoderConfig(*CORPUS["encoder"]),
            clusters=ClusterConfig(*CORPUS["clusters"]),
        )  # fmt: skip
        store = prepare_clusters(corpus, notify=lambda line: None, make_encoder=lambda _: embed)
    text = [store.sentences[index] for index in range(len(store.sentences))]
    places = [store.sentences.document_of(index) for index in range(len(text))]
    return text, places, store.assignment.tolist(), store.centroids.tolist(), store.report, store.digest


def _tuned_prompt(folder):
    save_prompt(folder / "prompt.safetensors", torch.arange(64.0).view(4, 16))


def _exported_prompt(folder):
    model = LazyLanguageModel(named_model("tiny")).load()
    shape = RegularizerConfig(4, 1, True, "none", "near_identity", "row_l2", 8)
    width = model.model.get_input_embeddings().embedding_dim
    export_learned(folder / "export", model, torch.ones(4, width), make_regularizer(width, shape, 1), {})


def _read_exported_prompt(folder):
    learned = import_learned(folder / "export")
    return learned.prompt.tolist(), {name: t.tolist() for name, t in learned.regularizer.state_dict().items()}


def _exported_model(folder):
    made = LazyLanguageModel(named_model("tiny")).load()
    with exporting(folder / "export") as export:
        made.model.save_pretrained(export)
        made.tokenizer.save_pretrained(export)
        (export / "README.md").write_text("A card.")


def _exported_adapter(folder):
    model = LazyLanguageModel(named_model("tiny")).load().model
    model.save_pretrained(folder.parent / "base")
    named_model("tiny").read_tokenizer().save_pretrained(folder.parent / "base")
    torch.manual_seed(0)
    update = get_peft_model(
        model, LoraConfig(r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    )
    with exporting(folder / "export") as export:
        update.save_pretrained(export)


def _state(spec):
    """As an evaluation does: what the model is, then its weights and ids."""
    model = LazyLanguageModel(spec)
    identity = model.identity
    state = {name: tensor.tolist() for name, tensor in model.load().model.state_dict().items()}
    return identity, state, model.encode("the quick reader")


KINDS = {
    "clusters": (_clusters, _read_clusters),
    "tuned prompt": (_tuned_prompt, lambda folder: load_prompt(folder / "prompt.safetensors").tolist()),
    "exported prompt": (_exported_prompt, _read_exported_prompt),
    "exported model": (_exported_model, lambda folder: _state(LocalModel("m", str(folder / "export")))),
    "exported adapter": (
        _exported_adapter,
        lambda folder: _state(LocalModel("m", str(folder.parent / "base"), adapter=str(folder / "export"))),
    ),
    "prepared data": (_prepared, lambda folder: JsonlSource(folder).load("m", k=4, seed=100)),
    "checkpoint": (_checkpoint, _read_checkpoint),
    "sweep ledger": (_ledger, _read_ledger),
    "search database": (_filled_search, _read_search),
}


def damaged(draw, content, number):
    if number % 2:
        return content[: draw.randrange(len(content))]
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_is_silent(tmp_path, kind):
    make, read = KINDS[kind]
    if kind == "search database":
        pytest.importorskip("optuna")
    (tmp_path / "whole").mkdir()
    make(tmp_path / "whole")
    expected = read(tmp_path / "whole")
    files = [
        path.relative_to(tmp_path / "whole")
        for path in sorted((tmp_path / "whole").rglob("*"))
        if path.is_file()
    ]
    files = [
        path
        for path in files
        if not path.name.endswith(".lock") and (tmp_path / "whole" / path).stat().st_size
    ]
    draw, detected, without_effect = random.Random(0), 0, 0
    for number in range(FLIPS + CUTS):
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / files[number // 2 % len(files)]
        path.write_bytes(damaged(draw, path.read_bytes(), number))
        try:
            found = read(folder)
        except MetashotError:
            detected += 1
        else:
            assert found == expected, (path.name, number)
            without_effect += 1  # or made again
        shutil.rmtree(folder)
    print(f"{kind}: {detected} detected, {without_effect} without effect, 0 silent")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_damaged_conversion_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"weights")
    source = gguf_on_disk(tmp_path / "model.gguf")

    def convert(file, folder):
        for name in ("model.safetensors", "tokenizer.json", "config.json"):
            (folder / name).write_bytes(f"content of {name}".encode() * 20)

    monkeypatch.setattr(gguf, "_write_converted", convert)
    folder = gguf.convert_gguf(source)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    draw = random.Random(0)
    for number in range(FLIPS + CUTS):
        path = folder / sorted(whole)[number // 2 % len(whole)]
        path.write_bytes(damaged(draw, whole[path.name], number))
        gguf.convert_gguf(source)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    print(f"conversion: {FLIPS + CUTS} recovered, 0 silent")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_damaged_run_is_put_back_or_left_out(program, holds, tmp_path):
    """Stored cells and the files of a run: the same command restores them, the report leaves the folder or rows out."""
    from commands import COMMANDS, lay_out

    lay_out(program.folder)
    assert program(COMMANDS["evaluate"], "whole") == 0, program.said("whole")
    whole = program.folder / "whole"
    expected = holds(whole)
    store = ResultStore(whole / "root")
    cells = {path.stem: store.get(path.stem) for path in (whole / "root" / "cells").rglob("*.jsonl")}
    rows = _rows(whole / "out")
    assert all(cells.values())
    assert len(rows) == len(cells) == 4
    draw, seen = random.Random(0), {"missing": 0, "equal": 0, "left out": 0}
    for number in range(FLIPS + CUTS):
        path = sorted((whole / "root" / "cells").rglob("*.jsonl"))[number % 4]
        content = path.read_bytes()
        path.write_bytes(damaged(draw, content, number))
        found = store.get(path.stem)
        assert found is None or found == cells[path.stem]
        seen["missing" if found is None else "equal"] += 1
        path.write_bytes(content)
    for number in range(FLIPS + CUTS):
        path = whole / "out" / ("results.jsonl", "predictions.jsonl", "run.json")[number // 2 % 3]
        content = path.read_bytes()
        path.write_bytes(damaged(draw, content, number))
        found = _rows(whole / "out")
        assert found.items() <= rows.items()
        seen["equal" if found == rows else "left out"] += 1
        path.write_bytes(content)
    for name in ("results.jsonl", "predictions.jsonl"):
        (whole / "out" / name).write_bytes(damaged(draw, (whole / "out" / name).read_bytes(), 1))
    assert program(COMMANDS["evaluate"], "whole") == 0, program.said("whole")
    assert holds(whole) == expected
    print(f"cells and run files: {seen}, 0 silent")


def _rows(folder):
    """What a report would take: value and scores by task and seed."""
    try:
        (read,) = read_folder(folder)
    except MetashotError:
        return {}
    scores = {}
    for row in read.predictions.iter_rows(named=True):
        scores.setdefault((row["task"], row["seed"]), []).append((row["index"], row["nll"]))
    return {
        (row["task"], row["seed"]): (row["value"], row["n"], scores[row["task"], row["seed"]])
        for row in read.results.iter_rows(named=True)
    }
