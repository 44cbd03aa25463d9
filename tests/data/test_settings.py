"""The ten settings are exactly the published ones."""

import json
import os
from pathlib import Path

import pytest

from metashot.base.errors import DataError
from metashot.data.settings import diversity_names, load_setting, published_overlap, setting_names

SHARED = Path(os.environ.get("METASHOT_SHARED", Path(__file__).parents[2] / "../shared"))
SIZES = {  # MetaICL paper, Tables 4 and 7, and the released config files
    "class_to_class": (43, 20, 4),
    "hr_to_lr": (61, 26, 4),
    "hr_to_lr_inst": (32, 12, 4),
    "hr_to_lr_inst_all": (267, 12, 4),
    "hr_to_lr_noinst": (32, 12, 4),
    "non_class_to_class": (37, 20, 4),
    "non_nli_to_nli": (55, 8, 1),
    "non_paraphrase_to_paraphrase": (59, 4, 1),
    "non_qa_to_qa": (33, 22, 1),
    "qa_to_qa": (37, 22, 1),
}


def test_the_ten_settings_have_their_published_sizes() -> None:
    assert setting_names() == sorted(SIZES)
    for name, sizes in SIZES.items():
        setting = load_setting(name)
        assert setting.name == name
        assert (len(setting.train), len(setting.test), len(setting.unseen_domain_test)) == sizes


def test_every_list_equals_the_released_config() -> None:
    path = SHARED / "facts" / "settings.json"
    if not path.is_file():
        pytest.skip("shared/facts is not here")
    for name, lists in json.loads(path.read_text()).items():
        setting = load_setting(name)
        assert setting.train == lists["train"]
        assert setting.test == lists["test"]
        assert setting.unseen_domain_test == lists["unseen_domain_test"]


def test_diversity_lists_train_on_thirteen_tasks_and_share_the_targets() -> None:
    for name in diversity_names():
        assert len(load_setting(name).train) == 13
        assert load_setting(name).test == load_setting("hr_to_lr").test


def test_sick_is_the_only_published_overlap() -> None:
    overlaps = {name: published_overlap(load_setting(name)) for name in setting_names()}
    assert {name: tasks for name, tasks in overlaps.items() if tasks} == {"non_nli_to_nli": ["sick"]}


def test_a_misspelt_setting_is_answered_with_the_near_one() -> None:
    with pytest.raises(DataError, match=r'no setting is called "hr_to_rl" \(did you mean .hr_to_lr.'):
        load_setting("hr_to_rl")


def test_a_setting_of_your_own_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: [a, b]\ntest: [c]\n")
    assert load_setting(str(file)).train == ["a", "b"]
    assert load_setting(str(file)).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [a]\ntests: [c]\n", r'mine.yaml:2: unknown key "tests" \(did you mean .test.'),
        ("train: a\n", r"mine.yaml:1: train must be a list of task names"),
        ("train: [a, a]\n", r'mine.yaml:1: train names "a" twice'),
        ("test: [a]\nunseen_domain_test: [b]\n", r'mine.yaml:2: "b" is not a target'),
        ("train: [a]\ntrain: [b]\n", r'mine.yaml:2: key "train" stands twice \(first on line 1\)'),
        ("train: [a\n", r"mine.yaml:2: not valid YAML"),
        ("- a\n", r"mine.yaml: holds no mapping"),
    ],
)
def test_a_faulty_setting_file_is_answered_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        load_setting(str(file))
