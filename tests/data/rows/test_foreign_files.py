"""Files of others, hostile or broken: one line that names file and fault, never a traceback, a hang or a crash."""

import json

import pytest
import yaml

from metashot.base.errors import CheckpointError, DataError, MetashotError, ModelError, OutputError
from metashot.base.files import read_lines
from metashot.base.json_text import is_whole, parse_json, read_json
from metashot.base.yaml_files import read_yaml
from metashot.data.recipes import load_recipe
from metashot.data.rows.jsonl import read_examples
from metashot.data.settings import load_setting
from metashot.data.sources.layout import TableLayout
from metashot.data.sources.tables import read_rows
from metashot.data.text.corpus import CorpusSource, read_documents
from metashot.engine.models.adapters import ADAPTER_CONFIG, adapter_digest
from metashot.engine.models.compatibility import BASE_FILE, check_fit
from metashot.engine.models.digests import weight_files
from metashot.engine.models.tiny import tiny_model
from metashot.engine.models.weights import WeightOptions, read_config, read_tokenizer, read_weights
from metashot.engine.report.reading.harness_files import harness_results_files, read_harness_run
from metashot.engine.sweeps.ledger import HEADER, Ledger
from metashot.engine.training.checkpoint import verify
from metashot.metaprompt.exchange import import_learned
from metashot.metaprompt.soft_prompt import load_prompt
from metashot.metaprompt.tuning.tasks import load_prompt_task, load_rows

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "1" * 10_000
HALF = '"\\ud800"'
HOSTILE = {"deep": DEEP, "long": LONG, "half": HALF, "cut": '{"a": ', "list": "[]", "bytes": "\xff"}


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1" if text == "\xff" else "utf-8"))
    return path


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (DEEP, "nested too deep"),
        (LONG, "an integer has thousands of digits"),
        ("{" + f'"a": [{HALF}]' + "}", "half a character"),
        (f'{{{HALF}: 1}}', "half a character"),
        ("\xff".encode("latin-1"), "codec can't decode"),
        ("{", "Expecting property name"),
    ],
    ids=["deep", "long", "half", "half key", "no utf-8", "cut"],
)  # fmt: skip
def test_json_is_a_value_or_a_value_error(text, fault, tmp_path):
    with pytest.raises(ValueError, match=fault):
        parse_json(text)
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=fault):
        read_json(tmp_path / "a.json")


def test_json_that_can_be_held_is_as_the_library_reads_it():
    value = {
        "a": [1, 2.5, None, True, "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")],
        "": {},
    }
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == json.loads(text)
    assert is_whole(value)
    assert not is_whole({"a": ["\ud83d"]})


def _harness(path):
    assert harness_results_files(path.parent) == []
    read_harness_run(path)


READERS = {
    "task": ("demo/demo.jsonl", read_examples),
    "rows": ("rows.jsonl", lambda path: list(read_rows(path, TableLayout(columns=("a",))))),
    "array": ("rows.json", lambda path: list(read_rows(path, TableLayout(columns=("a",))))),
    "corpus": ("text.jsonl", lambda path: list(read_documents(
        CorpusSource("own", "jsonl", str(path), None, "train", "text", "line", 0)))),
    "prompt task": ("SST-2/train.json", lambda path: load_rows(
        load_prompt_task("SST-2"), "folder", str(path.parents[1]))),
    "checkpoint": ("step-00000001/manifest.json", lambda path: verify(path.parent)),
    "harness": ("results_1.json", _harness),
    "ledger": (f"ledger/{HEADER}", lambda path: Ledger(path.parents[1])),
    "adapter": (ADAPTER_CONFIG, lambda path: adapter_digest("base", path.parent)),
    "adapter's base": (BASE_FILE, lambda path: check_fit(path.parent, weights="digest")),
    "model": ("config.json", lambda path: read_config(path.parent)),
}  # fmt: skip


@pytest.mark.parametrize("fault", HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_hostile_json_is_one_line(tmp_path, reader, fault):
    name, read = READERS[reader]
    path = written(tmp_path / name, HOSTILE[fault])
    if reader == "array" and fault in ("deep", "long", "half"):
        written(path, f'[{{"a": {HOSTILE[fault]}}}]')
    if (reader, fault) in {("array", "list"), ("rows", "half"), ("array", "half")}:
        return  # an empty list, and half characters, which preparing counts and drops
    with pytest.raises(MetashotError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value) or str(path.parent) in str(caught.value)
    str(caught.value).encode("utf-8")


def test_hostile_lines_of_a_log_are_passed_over(tmp_path):
    path = written(tmp_path / "a.jsonl", "\n".join([DEEP, LONG, '{"a": 1}', "{", "[]"]))
    assert list(read_lines(path)) == [{"a": 1}]


def test_an_index_of_shards_is_read_with_care(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    for text in (*HOSTILE.values(), '{"weight_map": 3}'):
        written(tmp_path / "other.safetensors.index.json", text)
        with pytest.raises(ModelError, match="is no index of weight files"):
            weight_files(tmp_path)


HEADERS = {
    "empty": b"",
    "cut": b"\x10\x00",
    "huge": (2**40).to_bytes(8, "little") + b"{}",
    "longer than the file": (5000).to_bytes(8, "little") + b"{}",
    "no json": (4).to_bytes(8, "little") + b"{{{{",
    "deep": (20_000).to_bytes(8, "little") + b"[" * 20_000,
    "places outside": (lambda head: len(head).to_bytes(8, "little") + head)(
        b'{"prompt":{"dtype":"F32","shape":[2,2],"data_offsets":[0,1000000]}}'
    ),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_bad_safetensors_header_is_one_line(tmp_path, fault):
    model, _ = tiny_model("gpt2", seed=0)
    model.config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(HEADERS[fault])
    (tmp_path / ADAPTER_CONFIG).write_text('{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(HEADERS[fault])
    for error, read in (
        (ModelError, lambda: read_weights(tmp_path, WeightOptions(dtype=model.dtype))),
        (CheckpointError, lambda: load_prompt(tmp_path / "model.safetensors")),
        (CheckpointError, lambda: import_learned(tmp_path)),
    ):
        with pytest.raises(error) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tokenizer_is_one_line(tmp_path, text):
    model, _ = tiny_model("gpt2", seed=0)
    model.config.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    written(tmp_path / "tokenizer.json", text)
    with pytest.raises(ModelError) as caught:
        read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in zip("abcdefghi", "bcdefghij", strict=True)
)  # fmt: skip
YAML = {
    "bomb": (BOMB, "its aliases write out to more than 1,000,000 nodes"),
    "a part of itself": ("name: &a [*a]", "an alias makes a node a part of itself"),
    "its own key": ("name: &a {b: *a}", "an alias makes a node a part of itself"),
    "deep": ("name: " + "[" * 100_000, "nests more than 100 levels"),
    "deep lists": ("- " * 100_000 + "a", "nests more than 100 levels"),
    "long": (f"name: {LONG}", "4300 digits"),
    "code": ("name: !!python/object/apply:os.system [true]", "could not determine a constructor"),
}


@pytest.mark.parametrize("fault", YAML)
def test_a_yaml_bomb_is_one_line(tmp_path, fault):
    text, message = YAML[fault]
    path = written(tmp_path / "own.yaml", text)
    for read in (
        lambda: read_yaml(path),
        lambda: load_recipe("own", path=[tmp_path]),
        lambda: load_setting(str(path)),
        lambda: load_prompt_task(str(path)),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_aliases_within_reason_are_read(tmp_path):
    path = written(tmp_path / "own.yaml", "a: &a [x, y]\nb: *a\nc: [*a, *a]\n")
    assert read_yaml(path).content == yaml.safe_load(path.read_text())


def test_a_damaged_ledger_is_an_output_error(tmp_path):
    written(tmp_path / "ledger" / HEADER, DEEP)
    with pytest.raises(OutputError, match="is not a ledger"):
        Ledger(tmp_path)
