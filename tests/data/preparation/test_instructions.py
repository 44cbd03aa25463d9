"""Instruction variants: chosen, rendered and written as the original did, from a PromptSource-like folder."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from metashot.base.errors import DataError
from metashot.data.preparation.instructions import (
    Renderer,
    Template,
    choose_template,
    read_templates,
    suffix_of,
)
from metashot.data.preparation.prepare import PrepareSettings, prepare
from metashot.data.recipes import metric_of, task_type
from metashot.data.recipes.rows import Dropped
from metashot.data.rows.manifest import read_manifest
from metashot.data.settings import Setting
from metashot.data.task import TaskType


def write_templates(
    root: Path, task: str, templates: dict[str, tuple[str, str | None]], subset: str = ""
) -> None:
    folder = root / "promptsource" / "templates" / task / subset
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"dataset: {task}", "templates:"]
    for number, (name, (jinja, choices)) in enumerate(templates.items()):
        lines += [
            f"  id-{number}: !Template",
            f"    answer_choices: {yaml.dump(choices).splitlines()[0]}",
            f"    jinja: {json.dumps(jinja)}",
            "    metadata: !TemplateMetadata",
            "      original_task: true",
            f"    name: {json.dumps(name)}",
            "    reference: ''",
        ]
    (folder / "templates.yaml").write_text("\n".join(lines) + "\n")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder laid out like a PromptSource checkout, with templates of our own."""
    root = tmp_path / "ps"
    write_templates(
        root,
        "ag_news",
        {
            "which_section/now": (
                "{{text}}\nSection? ||| {{answer_choices[label]}}",
                "World ||| Sports ||| Money ||| Tech",
            ),
            "Asked first": ("Topic of: {{text}} ||| {{answer_choices[label]}}", "w ||| s ||| m ||| t"),
            "only_sports": ("{% if label == 1 %}{{text}} ||| yes{% endif %}", None),
        },
    )
    write_templates(
        root,
        "sick",
        {
            "entailed": (
                "{{sentence_A}} / {{sentence_B}}? ||| {{['entailment','neutral','contradiction'][label]}}",
                None,
            )
        },
    )
    write_templates(
        root,
        "codah",
        {
            "a_no_option": ("{{question_propmt}} ||| x", None),
            "b_multiple_choice": (
                "{{question_propmt}} ||| {{candidate_answers[correct_answer_idx]}}",
                None,
            ),
            "c_most_suitable": ("{{question_propmt}} ||| y", None),
        },
        subset="fold_0",
    )
    return root


def test_templates_are_read_sorted_and_named_with_hyphens(checkout: Path) -> None:
    for folder in (checkout, checkout / "promptsource", checkout / "promptsource" / "templates"):
        assert [one.name for one in read_templates(folder, "ag_news")] == [
            "Asked first",
            "only_sports",
            "which_section/now",
        ]
    assert suffix_of("which_section/now") == "which-section-now"
    assert suffix_of("always/sometimes never_ever?") == "always-sometimes-never-ever?"


def names(task: str, *names: str) -> str:
    return choose_template(task, [Template(name, "", None) for name in names]).name


def test_the_target_template_is_the_first_after_the_preferences() -> None:
    assert names("inst:quarel", "a", "b") == "a"
    assert names("inst:qasc", "a_no_option", "b") == "b"
    assert names("inst:ai2_arc", "a", "most_correct_1", "multiple_choice") == "multiple_choice"
    # A substring counts, as in the original.
    assert names("inst:commonsense_qa", "most_suitable", "not_multiple_choice") == "not_multiple_choice"
    pinned = "read_the_following_conversation_and_answer_the_question"
    assert names("inst:dream", "a_multiple_choice", pinned) == pinned


def test_an_unknown_suffix_is_answered_with_the_near_one(checkout: Path) -> None:
    with pytest.raises(DataError, match=r"names no template \(did you mean .only-sports."):
        choose_template("inst:ag_news:only-sport", read_templates(checkout, "ag_news"))
    with pytest.raises(DataError, match="no such template file"):
        read_templates(checkout, "piqa")
    with pytest.raises(DataError, match="holds no templates"):
        read_templates(checkout / "nowhere", "ag_news")


def pair(jinja: str, row: dict[str, Any], choices: str | None = None) -> tuple[str, str]:
    return tuple(Renderer(Template("t", jinja, choices), "inst:ag_news:t").pair(row, 0))


def test_printed_expressions_are_cut_at_2048_characters_with_five_of_leeway() -> None:
    """Jinja's truncate: up to 2053 characters stay; longer ones keep 2045, back to a blank, and get dots."""
    assert pair("{{a}} ||| {{b}}", {"a": "x" * 2053, "b": "y"}) == ("x" * 2053, "y")
    words = "word " * 500
    cut, also_cut = pair("{{a}} ||| {{a}}", {"a": words})
    assert cut == also_cut == words[:2045].rsplit(" ", 1)[0] + "..."
    assert len(pair("{{a}} ||| b", {"a": "x" * 2054})[0]) == 2048


def test_bars_inside_a_field_do_not_divide_the_text() -> None:
    assert pair("{{a}} ||| {{b}}", {"a": "x ||| y", "b": "z"}) == ("x ||| y", "z")


def test_an_empty_rendering_and_a_wrong_number_of_parts_drop_the_row() -> None:
    with pytest.raises(Dropped, match="renders to nothing"):
        pair("{% if a %}{{a}} ||| b{% endif %}", {"a": ""})
    with pytest.raises(Dropped, match="input and output"):
        pair("{{a}}", {"a": "x"})


def test_random_templates_are_seeded_and_marked() -> None:
    template = Template("t", "{{ [a, b] | choice }} ||| c", None)
    assert template.draws_at_random
    assert not Template("t", "{{answer_choices[0]}}", "choice").draws_at_random
    row = {"a": "one", "b": "two"}
    drawn = [
        [Renderer(template, "inst:x:t").pair(row, number).input for number in range(40)] for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {"one", "two"}


def test_templates_cannot_reach_python() -> None:
    with pytest.raises(Exception, match="unsafe"):
        pair("{{ a.__class__.__mro__ }} ||| b", {"a": "x"})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    tables = {
        "fancyzhx/ag_news/train.parquet": [{"text": f"news {i}", "label": i % 4} for i in range(30)],
        "RobZamp/sick/train.parquet": [
            {"sentence_A": f"a{i}", "sentence_B": "b", "label": i % 3} for i in range(40)
        ],
        "RobZamp/sick/validation.parquet": [
            {"sentence_A": f"t{i}", "sentence_B": "b", "label": 1} for i in range(5)
        ],
        "jaredfern/codah/fold_0/train.parquet": [
            {"question_propmt": f"q{i}", "candidate_answers": [" yes ", "no"], "correct_answer_idx": i % 2}
            for i in range(40)
        ],
    }
    tables["jaredfern/codah/fold_0/validation.parquet"] = tables["jaredfern/codah/fold_0/train.parquet"][:4]
    for name, rows in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), root / name)
    return root


def test_variants_are_prepared_like_tasks(tmp_path: Path, checkout: Path, raw: Path) -> None:
    train = ["inst:ag_news:Asked-first", "inst:ag_news:only-sports"]
    setting = Setting("mine", train, ["inst:sick", "inst:codah"], [])
    settings = PrepareSettings(
        root=tmp_path / "out", setting=setting, seeds=(100, 13), raw=raw, online=False, promptsource=checkout
    )
    report = prepare(settings, Console(quiet=True))
    assert [one.status for one in report.outcomes] == ["ok"] * 4, [one.reason for one in report.outcomes]

    def read(name: str) -> list[dict[str, Any]]:
        path = tmp_path / "out" / name.split("_16")[0] / name
        return [json.loads(line) for line in path.read_text().splitlines()]

    asked = read("inst:ag_news:Asked-first_16384_100_train.jsonl")
    assert len(asked) == 30
    assert all(line["options"] == [] for line in asked)
    # The same rows serve all templates of a task, in the same order; empty renderings are passed over.
    sports = [line["input"] for line in read("inst:ag_news:only-sports_16384_100_train.jsonl")]
    assert sports == [one["input"].removeprefix("Topic of: ") for one in asked if one["output"] == "s"]
    sick = read("inst:sick_16_13_test.jsonl")
    assert [line["input"] for line in sick] == [f"t{i} / b?" for i in range(5)]
    assert sick[0]["options"] == ["entailment", "neutral", "contradiction"]
    codah = read("inst:codah_16_13_train.jsonl")
    assert len(codah) == 16
    assert {line["output"] for line in codah} == {"yes", "no"}
    assert codah[0]["options"] == ["yes", "no"]
    record = read_manifest(tmp_path / "out").get("inst:ag_news:only-sports", "train")
    assert record is not None
    assert record.source["template"] == "only_sports"
    again = prepare(settings, Console(quiet=True))
    assert [one.status for one in again.outcomes] == ["skipped"] * 4


def test_without_a_checkout_the_key_is_named(tmp_path: Path) -> None:
    setting = Setting("mine", [], ["inst:sick"], [])
    report = prepare(PrepareSettings(root=tmp_path, setting=setting, online=False), Console(quiet=True))
    assert "prepare.promptsource" in report.outcomes[0].reason


def test_instruction_targets_are_scored_by_accuracy_except_sick() -> None:
    assert metric_of("inst:climate_fever") == "accuracy"
    assert metric_of("climate_fever") == "macro_f1"
    assert metric_of("inst:sick") == "macro_f1"
    assert task_type("inst:poem_sentiment") is TaskType.MULTI_CHOICE
    assert task_type("inst:ag_news:classify") is TaskType.FREE_FORM
    assert task_type("quail") is TaskType.MULTI_CHOICE
    assert task_type("nobody's task") is None
    assert metric_of("nobody's task") is None
