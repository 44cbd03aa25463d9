"""Meta-training end to end on tiny models: exact resume, refusals, precision, LoRA, and a folder that loads."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from metashot.base.components.choices import named
from metashot.base.errors import CheckpointError, ConfigError, DataError, ModelError
from metashot.data.tasks.demo import DemoSource
from metashot.data.tasks.synthetic import SyntheticSource
from metashot.engine.models.activations import fuse_gelu
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import LocalModel, TinyModel, TrainedAdapter
from metashot.engine.training.checkpoint import checkpoint_folders, read_checkpoint, verify
from metashot.engine.training.config import LoraConfig, TrainableConfig
from metashot.engine.training.learner import DivergedError
from metashot.engine.training.signals import Interrupted
from metashot.icl.learning.batches.collate import Batching
from metashot.icl.learning.held_out import HeldOutConfig
from metashot.icl.learning.meta_learner import MetaLearner
from metashot.icl.learning.meta_training import chosen_tasks, load_pools, train
from metashot.icl.learning.training_settings import EpisodeConfig, pools_digest
from metashot.icl.prompting.prompt import Objective

_spec = importlib.util.spec_from_file_location("kit", Path(__file__).with_name("training_helpers.py"))
assert _spec is not None
assert _spec.loader is not None
kit: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kit)

_path = Path(__file__).parents[3] / "experiments" / "metaicl_demo" / "scratch.py"
_scratch_spec = importlib.util.spec_from_file_location("scratch", _path)
assert _scratch_spec is not None
assert _scratch_spec.loader is not None
scratch: Any = importlib.util.module_from_spec(_scratch_spec)
sys.modules["scratch"] = scratch  # dataclasses look their module up
_scratch_spec.loader.exec_module(scratch)

TRAIN, TARGETS = kit.SOURCE.training_tasks(), kit.SOURCE.testing_tasks()


def run(output: Path, architecture: str = "gpt2", **changes: Any) -> Any:
    return train(kit.settings(**changes), kit.tiny(architecture), kit.SOURCE, TRAIN, TARGETS, output)


def final_files(outcome: Any) -> dict[str, Any]:
    return verify(outcome.checkpoint)["files"]


def stopping_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = MetaLearner.train_step

    def train_step(self: MetaLearner, number: int) -> Any:
        report = original(self, number)
        if number + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return report

    monkeypatch.setattr(MetaLearner, "train_step", train_step)


# 48 pool examples and 4 a step: an epoch ends after step 12, so all of 1..39 lie in its middle but 12, 24 and 36.
LONG: dict[str, Any] = {"loop": {"steps": 40, "evaluate_every": 15}}
HELD_OUT = HeldOutConfig(k=2, test_examples=2)


def check_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, expected: Any, **changes: Any
) -> None:
    with monkeypatch.context() as patch:
        stopping_at(patch, step)
        with pytest.raises(Interrupted, match=f"SIGTERM after step {step} "):
            run(tmp_path, held_out=HELD_OUT, **changes)
    assert final_files(run(tmp_path, held_out=HELD_OUT, **changes)) == expected


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return final_files(run(tmp_path_factory.mktemp("whole"), held_out=HELD_OUT, **LONG))


@pytest.mark.parametrize("step", [1, 12, 29])
def test_resume_with_dropout_accumulation_and_mid_epoch_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Any], step: int
) -> None:
    check_resume(tmp_path, monkeypatch, step, uninterrupted, **LONG)


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 40))
def test_resume_at_every_step_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Any], step: int
) -> None:
    check_resume(tmp_path, monkeypatch, step, uninterrupted, **LONG)


@pytest.mark.parametrize(
    "changes",
    [
        {"trainable": TrainableConfig(precision="bfloat16")},
        {"trainable": TrainableConfig(lora=LoraConfig(dropout=0.1))},
        {"optimizer": {"algorithm": named("optimizer", "adam8bit").algorithm}},
        {"optimizer": {"algorithm": named("optimizer", "adafactor").algorithm}},
        {"episodes": {"batching": Batching.PACKED}},
        {"objective": Objective.CHANNEL, "demonstrations": False},
    ],
    ids=["bfloat16", "lora", "adam8bit", "adafactor", "packed", "channel_zero"],
)
def test_every_way_of_training_resumes_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    whole = final_files(run(tmp_path / "whole", held_out=HELD_OUT, **changes))
    check_resume(tmp_path / "stopped", monkeypatch, 4, whole, **changes)


def test_training_lowers_the_loss_on_a_repeated_pool(tmp_path: Path) -> None:
    class Losses:
        seen: list[float] = []  # noqa: RUF012

        def log(self, metrics: Any, step: int) -> None:
            self.seen.append(metrics["train/loss"])

    sink = Losses()
    settings = kit.settings(loop={"steps": 60, "log_every": 10}, optimizer={"learning_rate": 1e-2})
    train(settings, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path, sink)
    assert sink.seen[-1] < 0.6 * sink.seen[0]


@pytest.mark.parametrize(
    ("architecture", "lora"),
    [
        ("gpt2", None),
        ("gpt2", LoraConfig()),
        ("gpt2", LoraConfig(target_modules=("c_attn", "lm_head"))),
        ("gpt2", LoraConfig(target_modules=("c_attn", "wte"))),
        ("gemma2", LoraConfig(target_modules=("lm_head",))),
        ("gemma2", LoraConfig(target_modules=("embed_tokens",))),
        ("llama", LoraConfig(last_layers=1)),
    ],
)
def test_a_checkpoint_loads_with_the_trained_logits(
    tmp_path: Path, architecture: str, lora: LoraConfig | None
) -> None:
    """Also where the updated head is tied to the input embeddings, which the update must leave alone."""
    language_model = kit.tiny(architecture)
    texts = " ".join(example.input for example in kit.pools()[0][:4])
    ids = torch.tensor([language_model.tokenizer(texts).input_ids])
    with torch.no_grad():
        before = language_model.model(ids).logits
    settings = kit.settings(trainable=TrainableConfig(lora=lora), optimizer={"learning_rate": 0.03})
    outcome = train(settings, language_model, kit.SOURCE, TRAIN, TARGETS, tmp_path)
    assert outcome.checkpoint is not None
    spec = TinyModel("tiny", architecture, device="cpu").with_weights(outcome.checkpoint)
    assert isinstance(spec, LocalModel if lora is None else TrainedAdapter)
    loaded = load_model(spec)
    fuse_gelu(loaded.model)  # as the trained model has it; the written-out form rounds otherwise
    assert loaded.tokenizer("yes no").input_ids == language_model.tokenizer("yes no").input_ids
    language_model.model.eval()
    with torch.no_grad():
        here, there = language_model.model(ids).logits, loaded.model(ids).logits
    assert (here - before).abs().max() > 0.01
    torch.testing.assert_close(there, here, atol=0 if lora is None else 2e-4, rtol=0)


def test_a_low_rank_checkpoint_holds_the_update_alone_and_is_refused_on_another_base(tmp_path: Path) -> None:
    settings = kit.settings(trainable=TrainableConfig(lora=LoraConfig(r=2)))
    outcome = train(settings, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path)
    assert outcome.checkpoint is not None
    stored = load_file(outcome.checkpoint / "adapter_model.safetensors")
    assert stored
    assert all("lora_" in name for name in stored)
    assert not (outcome.checkpoint / "model.safetensors").exists()
    other = TinyModel("tiny", "gpt2", seed=1, device="cpu").with_weights(outcome.checkpoint)
    with pytest.raises(ModelError, match=r"is an adapter of 'tiny' with weights \w+, not of weights"):
        load_model(other)


def test_low_rank_updates_train_on_a_frozen_bfloat16_base(tmp_path: Path) -> None:
    base = load_model(TinyModel("tiny", "llama", device="cpu", dtype="bfloat16"))
    settings = kit.settings(trainable=TrainableConfig(lora=LoraConfig(r=2)))
    outcome = train(settings, base, kit.SOURCE, TRAIN, TARGETS, tmp_path)
    assert outcome.checkpoint is not None
    stored = load_file(outcome.checkpoint / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert any(bool(tensor.any()) for name, tensor in stored.items() if "lora_B" in name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # bitsandbytes and PEFT tell what 4 bits on a CPU are
def test_low_rank_updates_train_and_resume_on_a_base_of_four_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QLoRA, with bitsandbytes' kernels for the CPU."""
    whole = kit.tiny("llama")
    whole.model.save_pretrained(tmp_path / "base")
    whole.tokenizer.save_pretrained(tmp_path / "base")

    def trained(name: str) -> Any:
        base = load_model(LocalModel("base", str(tmp_path / "base"), quantization="int4", device="cpu"))
        assert "Linear4bit" in {type(module).__name__ for module in base.model.modules()}
        settings = kit.settings(
            loop={"steps": 30},
            trainable=TrainableConfig(lora=LoraConfig(r=4)),
            optimizer={"learning_rate": 1e-2},
        )
        return train(settings, base, kit.SOURCE, TRAIN, TARGETS, tmp_path / name, sink)

    class Losses:
        seen: list[float] = []  # noqa: RUF012

        def log(self, metrics: Any, step: int) -> None:
            self.seen.append(metrics["train/loss"])

    sink = Losses()
    outcome = trained("run")
    assert sink.seen[-1] < 0.9 * sink.seen[0]
    stored = load_file(outcome.checkpoint / "adapter_model.safetensors")
    assert all("lora_" in name and tensor.dtype == torch.float32 for name, tensor in stored.items())
    with monkeypatch.context() as patch:
        stopping_at(patch, 11)
        with pytest.raises(Interrupted):
            trained("stopped")
    assert final_files(trained("stopped")) == final_files(outcome)


def test_layers_that_a_model_does_not_have_are_named(tmp_path: Path) -> None:
    settings = kit.settings(trainable=TrainableConfig(lora=LoraConfig(target_modules=("q_projection",))))
    with pytest.raises(ConfigError, match=r"trainer.lora.target_modules: .*q_projection"):
        train(settings, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path)


def test_gradient_checkpointing_changes_no_weight(tmp_path: Path) -> None:
    ends = [
        read_checkpoint(
            run(tmp_path / str(flag), trainable=TrainableConfig(gradient_checkpointing=flag)).checkpoint
        )
        for flag in (False, True)
    ]
    for name, tensor in ends[0].weights.items():
        torch.testing.assert_close(ends[1].weights[name], tensor, atol=1e-6, rtol=1e-5)


def test_accumulation_changes_no_weight_without_dropout(tmp_path: Path) -> None:
    ends = []
    for size in (1, 4):
        model = kit.tiny("llama")
        settings = kit.settings(episodes={"micro_batch_size": size})
        ends.append(
            read_checkpoint(
                train(settings, model, kit.SOURCE, TRAIN, TARGETS, tmp_path / str(size)).checkpoint
            )
        )
    for name, tensor in ends[0].weights.items():
        torch.testing.assert_close(ends[1].weights[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path)
    settings = kit.settings()
    other = load_model(TinyModel("tiny", "gpt2", device="cpu", seed=3))
    with pytest.raises(CheckpointError, match=r"model\.weights is '[0-9a-f]+' there"):
        train(settings, other, kit.SOURCE, TRAIN, TARGETS, tmp_path)


def test_a_changed_config_is_refused_by_its_keys(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(CheckpointError, match=r"optimizer\.learning_rate is 0\.001 there, 0\.002 here"):
        run(tmp_path, optimizer={"learning_rate": 2e-3})


def test_a_nan_loss_names_step_and_episodes(tmp_path: Path) -> None:
    model = kit.tiny()
    with torch.no_grad():
        model.model.get_output_embeddings().weight.fill_(float("nan"))  # pyright: ignore
    with pytest.raises(DivergedError):
        train(kit.settings(), model, kit.SOURCE, TRAIN, TARGETS, tmp_path)
    text = (tmp_path / "checkpoints" / "diverged.json").read_text()
    assert '"step": 0' in text
    assert '"task": "synthetic-' in text


def test_a_pool_smaller_than_k_plus_one_is_named(tmp_path: Path) -> None:
    settings = replace(kit.settings(), k=8)
    with pytest.raises(
        DataError, match=r"synthetic-\w+-0000: its training pool has 8 examples, k=8 needs at least 9"
    ):
        train(settings, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainable": TrainableConfig(precision="float16")}, "float16 training needs a GPU"),
        ({"trainable": TrainableConfig(precision="fp8")}, "trainer.precision: input should be .*, got 'fp8'"),
        ({"optimizer": {"algorithm": named("optimizer", "paged_adam8bit").algorithm}}, "needs a CUDA GPU"),
        ({"episodes": {"micro_batch_size": 0}}, "micro_batch_size: 0 is not positive"),
        ({"episodes": {"pool_fraction": 0.0}}, "is not in"),
        ({"episodes": {"training_tasks": 7}}, "7 of 6 tasks"),
    ],
)
def test_settings_that_cannot_be_fulfilled_are_named(tmp_path: Path, changes: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, **changes)


def test_packing_is_refused_where_a_mask_cannot_keep_sequences_apart(tmp_path: Path) -> None:
    folder = scratch.write_scratch_model(
        tmp_path / "lfm2", ["a"], scratch.ScratchSize("lfm2", layers=2, width=16, heads=2), 0
    )
    model = load_model(LocalModel("small", str(folder), device="cpu"))
    settings = kit.settings(episodes={"batching": Batching.PACKED})
    with pytest.raises(ConfigError, match="see each other in Lfm2ForCausalLM"):
        train(settings, model, kit.SOURCE, TRAIN, TARGETS, tmp_path)


def test_a_method_that_needs_no_training_is_refused(tmp_path: Path) -> None:
    settings = kit.settings()
    raw = replace(settings, method=replace(settings.method, name="direct", trained=False))
    with pytest.raises(ConfigError, match="'direct' needs no training"):
        train(raw, kit.tiny(), kit.SOURCE, TRAIN, TARGETS, tmp_path)


def test_the_manifest_says_what_was_trained(tmp_path: Path) -> None:
    outcome = run(tmp_path, objective=Objective.CHANNEL)
    method = verify(outcome.checkpoint)["method"]
    assert (method["objective"], method["k"], method["layout"]) == ("channel", 2, "newline")
    assert len(checkpoint_folders(tmp_path / "checkpoints")) == 1


def test_fewer_training_tasks_are_drawn_by_number() -> None:
    assert chosen_tasks(TRAIN, 3, 1) == chosen_tasks(TRAIN, 3, 1)
    assert {tuple(chosen_tasks(TRAIN, 3, draw)) for draw in range(9)} != {tuple(chosen_tasks(TRAIN, 3, 1))}
    assert chosen_tasks(TRAIN, None, 1) == TRAIN


def test_generated_tasks_stand_beside_the_others_and_leave_them_as_they_were() -> None:
    episodes = EpisodeConfig(pool_size=8, pool_fraction=0.5, generated_tasks=3)
    pools = load_pools(DemoSource(), ["demo-spam", "demo-emotion"], episodes)
    alone = load_pools(DemoSource(), ["demo-spam", "demo-emotion"], replace(episodes, generated_tasks=0))
    generated = SyntheticSource(train_tasks=3).training_tasks()
    assert list(pools) == ["demo-spam", "demo-emotion", *generated]
    assert {task: pools[task] for task in alone} == alone
    for task in generated:
        assert len(pools[task]) == 4  # half of eight
        assert all(example.task == task and example.output in example.options for example in pools[task])


def test_generated_tasks_beside_the_same_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.generated_tasks.*'synthetic-.*data.train_tasks"):
        load_pools(kit.SOURCE, TRAIN, EpisodeConfig(pool_size=8, generated_tasks=1))


def test_one_changed_training_text_changes_the_digest() -> None:
    pools = {task: kit.SOURCE.pool(task, size=4) for task in TRAIN}
    before = pools_digest(pools)
    pools[TRAIN[0]][0] = replace(pools[TRAIN[0]][0], input="another")
    assert pools_digest(pools) != before


def test_a_task_that_is_watched_as_held_out_is_not_trained_on(tmp_path: Path) -> None:
    watched = HeldOutConfig(tasks=(TRAIN[0],), k=2)
    with pytest.raises(ConfigError, match=rf"trainer.held_out.tasks: '{TRAIN[0]}' is trained on too"):
        run(tmp_path, held_out=watched)
    run(tmp_path, held_out=replace(watched, from_pool=True), loop={"steps": 1})


def test_quantized_weights_are_trained_by_an_update_alone(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    kit.tiny("llama").model.save_pretrained(tmp_path / "llama")
    kit.tiny("llama").tokenizer.save_pretrained(tmp_path / "llama")
    model = LocalModel("llama", str(tmp_path / "llama"), device="cpu", quantization="int4")
    with pytest.raises(ConfigError, match=r"model.quantization: quantized weights cannot be trained"):
        train(kit.settings(), load_model(model), kit.SOURCE, TRAIN, TARGETS, tmp_path / "whole")
    lora = kit.settings(trainable=TrainableConfig(lora=LoraConfig(r=2)), loop={"steps": 1})
    assert train(lora, load_model(model), kit.SOURCE, TRAIN, TARGETS, tmp_path / "update").step == 1


def test_how_many_weights_are_trained_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run(tmp_path / "whole", loop={"steps": 1})
        run(tmp_path / "update", loop={"steps": 1}, trainable=TrainableConfig(lora=LoraConfig(r=1)))
    total = sum(one.numel() for one in kit.tiny().model.parameters())
    whole, update = (line for line in caplog.messages if line.startswith("trained: "))
    assert whole == f"trained: {total:,} of {total:,} weights (100.0 %)"
    # GPT-2's four matrices a layer, in two layers of width 48: r x (in + out) each.
    added = 2 * ((48 + 144) + (48 + 48) + (48 + 192) + (192 + 48))
    assert update.startswith(f"trained: {added:,} of {total + added:,} weights")


def test_rows_past_longropes_original_length_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for original, told in ((64, True), (256, False)):
        model = kit.tiny("llama")
        model.model.config.rope_parameters = {
            "rope_type": "longrope", "original_max_position_embeddings": original, "rope_theta": 1e4,
            "short_factor": [1.0] * 6, "long_factor": [2.0] * 6,
        }  # fmt: skip
        caplog.clear()
        with caplog.at_level("WARNING"):
            train(
                kit.settings(loop={"steps": 1}), model, kit.SOURCE, TRAIN, TARGETS, tmp_path / str(original)
            )
        assert any("longrope's long factors" in line for line in caplog.messages) is told
