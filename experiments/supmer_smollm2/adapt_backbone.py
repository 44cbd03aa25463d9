"""Fine-tune the model on the meta-tasks' formats and freeze it again: a backbone that holds what a prompt can select.

    python experiments/supmer_smollm2/adapt_backbone.py --output <folder> [overrides of run.py]

The records come from the domains that meta-training trains on, never from those it holds out; the formats take turns.
LoRA on the last layers; the folder is a PEFT adapter, which every later command takes: `model.adapter=<folder>`.
"""

from __future__ import annotations

import argparse
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import save
from tqdm import tqdm

from metashot.base.components.choices import CONFIG_FOLDER
from metashot.base.files import write_atomic
from metashot.engine.models.adapters import ADAPTER_WEIGHTS
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.engine.training.config import LoraConfig, OptimizerConfig
from metashot.engine.training.low_rank import adapter_weights, with_lora, write_adapter_config
from metashot.engine.training.optimizers import Updater, build_optimizer
from metashot.metaprompt.backbone import make_backbone, target_loss
from metashot.metaprompt.batch import collate
from metashot.metaprompt.clusters.store import prepare_clusters
from metashot.metaprompt.meta.drawing.cuts import describe, measure_cuts, sample_records
from metashot.metaprompt.meta.setup import pseudo_embeddings, task_stream
from metashot.metaprompt.meta.steps.inner_loop import pad_id
from metashot.stages.command import register_resolvers
from metashot.stages.components import make_run_config
from metashot.stages.metaprompt_settings import meta_settings

SHOWN = 25
"""Steps between two lines of losses; the adapter is written then, so that a run that is cut leaves its last one."""


def configured(overrides: list[str]) -> Any:
    """The config of `run.py experiment=supmer_smollm2` with further overrides."""
    register_resolvers()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        composed = compose("config", overrides=["experiment=supmer_smollm2", *overrides])
    return make_run_config(OmegaConf.to_container(composed, resolve=True))  # pyright: ignore[reportArgumentType]


def write_adapter(model: Any, base: LanguageModel, folder: Path) -> None:
    """The trained weights and PEFT's description of them, over those of an earlier step."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ADAPTER_WEIGHTS, save(adapter_weights(model)))
    write_adapter_config(model, base, folder)


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--last-layers", type=int, default=15)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="further overrides of run.py")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    config = configured(given.overrides)
    settings = meta_settings(config.supmer)
    store, base = prepare_clusters(config.corpus, notify=print), load_model(config.model)
    stream = task_stream(settings, base, store)
    print(describe(measure_cuts(stream), settings.max_context_tokens))
    backbone = make_backbone(base, pseudo_embeddings(settings, base, store))
    lora = LoraConfig(r=given.rank, alpha=2 * given.rank, last_layers=given.last_layers)
    model = with_lora(base.model, lora)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    rules = OptimizerConfig(learning_rate=given.learning_rate, warmup_steps=10, weight_decay=0.0)
    updater = Updater([p for _, p in trained], build_optimizer(trained, rules), rules, given.steps)
    empty = torch.empty(given.batch_size, 0, backbone.width)
    losses: dict[str, list[float]] = {renderer.format.name: [] for renderer in stream.renderers}
    for step, renderer in zip(tqdm(range(given.steps), unit="step"), cycle(stream.renderers), strict=False):
        records = sample_records(
            stream, renderer, given.batch_size, held_out=False, seed=1000 * given.seed + step
        )
        order = np.random.default_rng([given.seed, step]).permutation(len(records))[: given.batch_size]
        examples = renderer.examples([records[place] for place in order], support=False)
        batch = collate(examples, pad_id=pad_id(base.tokenizer.pad_token_id), device=base.device)
        loss = target_loss(backbone.decode(backbone.encode(empty, batch), batch), batch).mean()
        loss.backward()
        updater.apply(step)
        losses[renderer.format.name].append(float(loss.detach()))
        if (step + 1) % SHOWN == 0:
            recent = " ".join(
                f"{name} {np.mean(values[-5:]):.2f}" for name, values in losses.items() if values
            )
            tqdm.write(f"step {step + 1}, loss of the last five batches in nats: {recent}")
            write_adapter(model, base, given.output)
    write_adapter(model, base, given.output)
    print(f"model.adapter={given.output}")


if __name__ == "__main__":
    main()
