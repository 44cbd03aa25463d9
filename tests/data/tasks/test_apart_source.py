"""No test row sees itself among its demonstrations, whatever source the cell comes from."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest

from metashot.data.rows.apart import row_key
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.apart_source import ApartSource
from metashot.data.tasks.modules import DataModule, DemoData, SyntheticData
from metashot.stages.run_config import RunConfig
from metashot.stages.task_source import choose_tasks

YES, NO = Example("t", "yes?", "y", ("y", "n")), Example("t", "no?", "n", ("y", "n"))
ROWS = [Example("t", f"row {n}", "yn"[n % 2], ("y", "n")) for n in range(6)]


@dataclass(frozen=True)
class Fixed:
    """A source of one cell and its pool."""

    data: TaskData
    drawn: tuple[Example, ...]
    name = "fixed"

    def tasks(self) -> list[str]:
        return ["t"]

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        return self.data

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        return list(self.drawn)


def cell(test: list[Example], shown: list[Example]) -> TaskData:
    return TaskData("t", 100, TaskType.CLASSIFICATION, tuple(shown), tuple(test))


def test_a_row_gets_the_next_of_the_draw_in_its_own_place() -> None:
    data = cell([ROWS[1], YES, Example("t", " ROW  0", "y", ("y", "n"))], ROWS[:3])
    apart = ApartSource(Fixed(data, tuple(ROWS))).load("t", k=3, seed=100)
    assert apart.neighbours == (
        (ROWS[0], ROWS[2], ROWS[3]),
        tuple(ROWS[:3]),
        (ROWS[1], ROWS[2], ROWS[3]),
    )
    assert apart.shots == 3
    (note,) = apart.notes
    assert (
        "2 of 3 test rows stand among the 3 demonstrations of seed 100: each is left out of its own" in note
    )


def test_where_the_draw_has_no_more_rows_the_prompt_has_fewer_and_it_is_said() -> None:
    apart = ApartSource(Fixed(cell([ROWS[0]], ROWS[:2]), tuple(ROWS[:2]))).load("t", k=2, seed=100)
    assert apart.neighbours == ((ROWS[1],),)
    assert apart.notes[0].endswith("1 of them with fewer than 2")


def test_a_cell_that_shows_no_test_row_is_left_as_it_is() -> None:
    data = cell([YES, NO], ROWS[:2])
    assert ApartSource(Fixed(data, ())).load("t", k=2, seed=100) is data


@pytest.mark.parametrize("data", [DemoData(), SyntheticData()], ids=["demo", "synthetic"])
def test_every_source_of_the_command_line_is_behind_the_rule(data: DataModule) -> None:
    source = choose_tasks(
        cast(
            RunConfig,
            SimpleNamespace(data=data, setting=None, demonstrations="drawn", same_demonstrations=False),
        )
    ).source
    assert isinstance(source, ApartSource)
    for task in source.tasks()[:3]:
        found = source.load(task, k=4, seed=100)
        key = row_key(found.task_type)
        for place, example in enumerate(found.test):
            shown = found.neighbours[place] if found.neighbours else found.demonstrations
            assert key(example) not in {key(one) for one in shown}
