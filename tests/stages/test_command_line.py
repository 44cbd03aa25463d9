"""What is made of the words of a command line before Hydra reads them."""

from metashot.stages.command_line import with_new_keys


def test_keys_of_a_swept_group_may_be_new_to_the_default_choice():
    words = ["-m", "model=hf,local", "model.path=x", "k=4,16", "data.root=y", "seeds=[1,2]"]
    assert with_new_keys(words) == [
        "-m",
        "model=hf,local",
        "++model.path=x",
        "k=4,16",
        "data.root=y",
        "seeds=[1,2]",
    ]


def test_one_choice_is_checked_by_hydra():
    words = ["model=local", "model.path=x", "model.path='a,b'"]
    assert with_new_keys(words) == words


def test_an_open_map_takes_any_key():
    assert with_new_keys(["data.task_types.mine=multi-choice"]) == ["++data.task_types.mine=multi-choice"]
