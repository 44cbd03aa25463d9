"""How a run is called in dashboards, and which keys it shows there."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from metashot.base.components.choices import CONFIG_FOLDER
from metashot.stages import command
from metashot.stages.components import make_run_config
from metashot.stages.tracking import run_label, shown_config


@pytest.fixture
def made(tmp_path):
    """`made(*overrides)`: the run's config and the same as plain values."""
    command.register_resolvers()

    def make(*overrides):
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            words = ["debug=smoke", f"hydra.runtime.output_dir={tmp_path}", *overrides]
            composed = compose("config", words, return_hydra_config=True)
            HydraConfig.instance().set_config(composed)
            plain = {k: v for k, v in composed.items() if k != "hydra"}
            resolved = OmegaConf.to_container(OmegaConf.masked_copy(composed, list(plain)), resolve=True)
        return make_run_config(resolved), resolved

    yield make
    HydraConfig.instance().cfg = None


def test_runs_of_a_sweep_are_told_apart_by_what_was_overridden(made):
    config, _ = made("logger=none")
    words = ["method=direct", "seeds=[13]", "logger=wandb", "truncation=per_option", "name=x"]
    assert (
        run_label(config, words).name == f"direct-tiny-synthetic-k{config.k} seeds=[13] truncation=per_option"
    )


def test_a_text_is_one_tag(made):
    config, _ = made("logger=none", "tags=first", "logger.tags=[second]")
    assert run_label(config, []).tags == ("second", "first")


SHOTS = ("selection", "demonstrations", "same_demonstrations")
EVERY_RUN_SHOWS = {
    "condition", "data", "k", "method", "model", "name", "results_root", "seeds", "setting", "split", "stage", "tags",
    "truncation",
}  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "further"),
    [
        (["stage=evaluate"], {"checkpoint", "prompt", "scorer", *SHOTS}),
        (["stage=train"], {"optimizer", "prompt", "trainer"}),
        (["stage=report"], {"report", "runs"}),
        (["stage=export"], {"export", "checkpoint"}),
        (["stage=[train,evaluate]"], {"optimizer", "trainer", "checkpoint", "prompt", "scorer", *SHOTS}),
        (["stage=evaluate", "method=soft_prompt"], {"tuning"}),
        (["stage=train", "method=supmer"], {"corpus", "supmer"}),
        (["stage=probe", "method=supmer"], {"corpus", "supmer", "probe"}),
    ],
)
def test_a_dashboard_shows_the_keys_that_the_run_reads_and_no_others(made, overrides, further):
    config, composed = made("logger=none", *overrides)
    assert set(shown_config(config, composed)) == EVERY_RUN_SHOWS | further
