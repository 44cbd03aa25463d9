"""Search by ask and tell: resumes from its SQLite file, prunes on what jobs log."""

import ast
import sqlite3
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")

from metashot.base.errors import ConfigError  # noqa: E402
from metashot.engine.sweeps import pruning as pruning_module  # noqa: E402
from metashot.engine.sweeps import search as search_module  # noqa: E402
from metashot.engine.sweeps.pruning import TRIAL_VARIABLE, Pruned, watched  # noqa: E402
from metashot.engine.sweeps.search import Choice, Interval, Search, SearchConfig  # noqa: E402
from metashot.engine.tracking.tracker import NoTracker  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SPACE = {"x": Interval(-4.0, 4.0), "kind": Choice(("a", "b"))}


def spec(folder, **changes):
    values = dict(
        storage=f"sqlite:///{folder / 'search.db'}", study="s", direction="maximize", n_trials=12,
        sampler="tpe", seed=0, pruner="none", warmup_steps=0, metric="running_mean",
    )  # fmt: skip
    return SearchConfig(**values | changes)


def figure(values):
    return -(values["x"] ** 2) + (1 if values["kind"] == "b" else 0)


def run(search, n):
    for _ in range(n):
        (trial,) = search.ask(1)
        search.tell(trial.number, figure(trial.values))


def test_it_finds_a_better_point_than_the_first(tmp_path):
    search = Search(spec(tmp_path, n_trials=15), SPACE)
    (first,) = search.ask(1)
    search.tell(first.number, figure(first.values))
    run(search, 14)
    assert search.remaining == 0
    assert search.ask(1) == []
    values, value = search.best()
    assert value == figure(values) > figure(first.values)


def test_a_killed_search_goes_on_where_it_was(tmp_path):
    search = Search(spec(tmp_path), SPACE)
    run(search, 4)
    (cut,) = search.ask(1)
    again = Search(spec(tmp_path), SPACE)
    assert again.remaining == 8
    (retried,) = again.ask(1)
    assert retried.values == cut.values
    again.tell(retried.number, figure(retried.values))
    run(again, 7)
    assert again.remaining == 0


def test_a_resumed_random_search_draws_new_points(tmp_path):
    seen = []
    for _ in range(3):
        search = Search(spec(tmp_path, sampler="random"), SPACE)
        (trial,) = search.ask(1)
        search.tell(trial.number, figure(trial.values))
        seen.append(trial.values["x"])
    assert len(set(seen)) == 3


SAMPLERS = ("tpe", "random", "cmaes")


def undisturbed(folder, **keys):
    """The points that a search draws when nothing happens to it."""
    folder.mkdir()
    search = Search(spec(folder, **keys), SPACE)
    run(search, search.remaining)
    return search.points()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_with_more_trials_goes_on_as_if_it_had_had_them_from_the_start(tmp_path, sampler):
    """3, then 12 trials: the points of one search of 12 (the model of TPE takes over after 10)."""
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    for n_trials in (3, 12):
        search = Search(spec(tmp_path, sampler=sampler, n_trials=n_trials), SPACE)
        run(search, search.remaining)
    assert search.points() == undisturbed(tmp_path / "whole", sampler=sampler, n_trials=12)


@pytest.mark.parametrize(("sampler", "batch"), [("tpe", 3), ("random", 1), ("cmaes", 2)])
def test_a_search_that_is_killed_again_and_again_draws_the_points_of_an_undisturbed_one(
    tmp_path, sampler, batch
):
    """Killed after asking, and between the ends of the trials of a batch."""
    if sampler == "cmaes":
        pytest.importorskip("cmaes")

    def batches(folder, killed):
        folder.mkdir()
        search, rounds = Search(spec(folder, sampler=sampler, n_trials=12), SPACE), 0
        while search.remaining:
            asked = search.ask(batch)
            for place, trial in enumerate(asked):
                if killed and (rounds + place) % 2 == 1:
                    break
                search.tell(trial.number, figure(trial.values))
            rounds += 1
            if killed:
                search = Search(spec(folder, sampler=sampler, n_trials=12), SPACE)
            assert rounds < 100
        return search.points()

    assert batches(tmp_path / "killed", True) == batches(tmp_path / "whole", False)


def test_a_trial_that_was_killed_before_it_had_all_of_its_point_is_drawn_anew(tmp_path):
    whole = undisturbed(tmp_path / "whole", n_trials=3)
    search = Search(spec(tmp_path, n_trials=3), SPACE)
    run(search, 1)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'search.db'}")
    study.ask().suggest_float("x", -4.0, 4.0)
    again = Search(spec(tmp_path, n_trials=3), SPACE)
    assert again.remaining == 2
    run(again, 2)
    assert [point for point in again.points() if set(point) == set(SPACE)] == whole


def test_a_trial_that_is_run_again_reports_what_it_had_reported_once(tmp_path, monkeypatch):
    search = Search(spec(tmp_path, pruner="median"), SPACE)
    (trial,) = search.ask(1)
    monkeypatch.setenv(TRIAL_VARIABLE, trial.address.to_text())
    for _ in range(2):
        watched(NoTracker()).log({"running_mean": 0.5}, step=1)  # optuna warns of a second report


def test_failed_trials_count_but_are_never_best(tmp_path):
    search = Search(spec(tmp_path, n_trials=2), SPACE)
    (trial,) = search.ask(1)
    search.tell(trial.number, None)
    assert search.best() is None
    assert search.remaining == 1


class Ending(NoTracker):
    """Remembers how runs ended."""

    def __init__(self, ended):
        self.ended = ended

    def finish(self, status):
        self.ended.append(status)


def test_jobs_are_pruned_on_what_they_log(tmp_path, monkeypatch):
    """Three good trials, then one that is worse at every step: the median pruner stops it at step 1."""
    search, ended = Search(spec(tmp_path, pruner="median"), SPACE), []
    for level, stopped in ((0.8, False), (0.7, False), (0.9, False), (0.1, True)):
        (trial,) = search.ask(1)
        monkeypatch.setenv(TRIAL_VARIABLE, trial.address.to_text())
        tracker = watched(Ending(ended))
        tracker.log({"other": 5.0}, step=1)
        if stopped:
            with pytest.raises(Pruned, match=r"stopped at step 1: running_mean=0.1"):
                tracker.log({"running_mean": level}, step=1)
            search.tell(trial.number, None, pruned=True)
            tracker.finish("pruned")
        else:
            tracker.log({"running_mean": level}, step=1)
            tracker.finish("ok")
            search.tell(trial.number, level)
    assert search.best()[1] == 0.9
    assert ended == ["ok", "ok", "ok", "pruned"]


def test_outside_a_search_a_tracker_is_left_alone(monkeypatch):
    monkeypatch.delenv(TRIAL_VARIABLE, raising=False)
    tracker = NoTracker()
    assert watched(tracker) is tracker


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "magic"}, "hydra.sweeper.search.sampler: no sampler is called 'magic'"),
        ({"direction": "up"}, "hydra.sweeper.search.direction: no direction is called 'up'"),
        ({"storage": "sqlite:////no/such/folder/x.db"}, "hydra.sweeper.search.storage: .* cannot be opened"),
        ({"pruner": "magic"}, "hydra.sweeper.search.pruner: no pruner is called 'magic'"),
    ],
)
def test_bad_keys_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        Search(spec(tmp_path, **changes), SPACE)


def test_a_study_over_other_parameters_is_refused(tmp_path):
    run(Search(spec(tmp_path), SPACE), 1)
    with pytest.raises(ConfigError, match=r"study 's' searches \['kind', 'x'\], not \['y'\]"):
        Search(spec(tmp_path), {"y": Choice(("1", "2"))})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"x": Interval(-4.0, 5.0), "kind": Choice(("a", "b"))}, r"searches x in -4 to 4, not in -4 to 5"),
        (
            {"x": Interval(-4.0, 4.0), "kind": Choice(("a", "b", "c"))},
            r"kind in \[a, b\], not in \[a, b, c\]",
        ),
    ],
)
def test_changed_choices_or_ranges_of_a_kept_study_are_refused(tmp_path, space, message):
    run(Search(spec(tmp_path), SPACE), 1)
    with pytest.raises(ConfigError, match=rf"hydra.sweeper.search.study: .*{message} .*another study name"):
        Search(spec(tmp_path), space)


def test_a_kept_study_keeps_its_direction(tmp_path):
    run(Search(spec(tmp_path), SPACE), 1)
    with pytest.raises(ConfigError, match=r"was begun with direction maximize"):
        Search(spec(tmp_path, direction="minimize"), SPACE)


def test_a_search_over_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"hydra.sweeper.search: nothing is swept"):
        Search(spec(tmp_path), {})


def test_no_private_attribute_of_optuna_is_used():
    for module in (search_module, pruning_module):
        tree = ast.parse(Path(module.__file__).read_text())
        private = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr.startswith("_")
            and not (isinstance(node.value, ast.Name) and node.value.id == "self")
        }  # fmt: skip
        assert private == set()


def test_a_trial_that_was_changed_is_refused(tmp_path):
    run(Search(spec(tmp_path), SPACE), 3)
    with sqlite3.connect(tmp_path / "search.db") as database:
        database.execute("UPDATE trial_values SET value = 99.0 WHERE trial_id = 2")
    with pytest.raises(ConfigError, match=r"trial 1 of .* is damaged: it differs from its seal"):
        Search(spec(tmp_path), SPACE)


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "search.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        Search(spec(tmp_path), SPACE)
    assert "\n" not in str(caught.value)
