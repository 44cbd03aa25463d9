"""What a cell's data is cut to stays in step."""

from metashot.data.task import Example, TaskData, TaskType


def test_the_first_rows_keep_the_demonstrations_of_their_own_prompts():
    def row(text):
        return Example("t", text, "a", ("a", "b"))

    data = TaskData(
        "t",
        TaskType.CLASSIFICATION,
        1,
        (row("shown"),),
        tuple(map(row, "xyz")),
        neighbours=tuple((row(n),) for n in "123"),
    )
    cut = data.first(2)
    assert [one.input for one in cut.test] == ["x", "y"]
    assert [one.input for (one,) in cut.neighbours] == ["1", "2"]
    assert data.first(None) == data
