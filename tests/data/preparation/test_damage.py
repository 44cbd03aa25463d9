"""No flipped byte of a prepared folder is read: files are held to the manifest, the manifest to its seal."""

import random

import pytest

from metashot.base.errors import DataError
from metashot.base.files import write_lines
from metashot.data.rows.manifest import MANIFEST_NAME, Manifest, RoleRecord, read_manifest
from metashot.data.tasks.source import JsonlSource


@pytest.fixture
def prepared(tmp_path):
    """One task with its training and test file, and their manifest."""
    rows = [
        f'{{"task": "mood", "input": "text {i}", "output": "{"good" if i % 2 else "bad"}", "options": ["good", "bad"]}}'
        for i in range(8)
    ]
    files = {
        name: write_lines(tmp_path / "mood" / name, part)
        for name, part in (("mood_4_100_train.jsonl", rows[:4]), ("mood_4_100_test.jsonl", rows[4:]))
    }
    record = RoleRecord("print", False, {}, 4, (100,), {}, {}, files)
    Manifest(tmp_path).put("mood", "test", record)
    return tmp_path


def load(root):
    return JsonlSource(root).load("mood", k=4, seed=100)


def test_no_flip_or_cut_is_read(prepared):
    whole = load(prepared)
    draw = random.Random(0)
    for path in (
        prepared / MANIFEST_NAME,
        prepared / "mood/mood_4_100_train.jsonl",
        prepared / "mood/mood_4_100_test.jsonl",
    ):
        content = path.read_bytes()
        for number in range(60):
            place = draw.randrange(len(content))
            flipped = (
                content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
            )
            path.write_bytes(flipped if number % 2 else content[:place])
            try:
                found = load(prepared)
            except DataError:
                continue
            assert found == whole, (path.name, number, place)
        path.write_bytes(content)
    assert load(prepared) == whole


def test_an_edited_file_is_named_with_the_way_out(prepared):
    path = prepared / "mood" / "mood_4_100_test.jsonl"
    path.write_text(path.read_text().replace("text 5", "text five"))
    with pytest.raises(
        DataError, match=r"mood_4_100_test.jsonl: is not as it was prepared.*run stage=prepare"
    ):
        load(prepared)


def test_a_manifest_of_an_earlier_version_is_read(prepared):
    path = prepared / MANIFEST_NAME
    lines = [line for line in path.read_text().splitlines() if '"seal"' not in line]
    text = "\n".join(lines).replace('"version": 2', '"version": 1').rstrip()
    path.write_text(text.removesuffix("}").rstrip().removesuffix(",") + "}")
    assert set(read_manifest(prepared).tasks) == {"mood"}
    load(prepared)
