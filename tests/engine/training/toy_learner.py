"""A learner with every kind of state: dropout, two optimizers, accumulation, a running statistic."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import torch

from metashot.engine.training.config import OptimizerConfig, adamw
from metashot.engine.training.learner import StepReport, ensure_finite
from metashot.engine.training.optimizers import Updater, build_optimizer
from metashot.engine.training.randomness import seed_everything

ALGORITHMS = {
    "adamw": adamw(),
    "adam8bit": bitsandbytes.optim.AdamW8bit,
    "adafactor": torch.optim.Adafactor,
}


class ToyLearner:
    device = torch.device("cpu")

    def __init__(
        self, steps: int, optimizer: str = "adamw", nan_at: int | None = None, explodes_at: int | None = None
    ) -> None:
        seed_everything(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.Dropout(0.2), torch.nn.Tanh(), torch.nn.Linear(16, 1)
        )
        self.prompt = torch.nn.Parameter(torch.randn(3, 6))
        self.average = 0.0
        self.nan_at, self.explodes_at = nan_at, explodes_at
        fast = OptimizerConfig(learning_rate=0.01, warmup_steps=2, algorithm=ALGORITHMS[optimizer])
        slow = OptimizerConfig(learning_rate=0.003, schedule="constant")
        network = list(self.network.parameters())
        self.updaters = {
            "network": Updater(network, build_optimizer(self.network.named_parameters(), fast), fast, steps),
            "prompt": Updater([self.prompt], build_optimizer([("prompt", self.prompt)], slow), slow, steps),
        }

    def train_step(self, step: int, detour: int = 0) -> StepReport:
        total = 0.0
        for micro in range(2):
            generator = torch.Generator().manual_seed(1000 * (step + 1000 * detour) + micro)
            inputs = torch.randn(4, 6, generator=generator) + self.prompt.mean(0)
            noise = random.random() + float(np.random.rand())  # noqa: NPY002 - the global states are under test
            target = inputs.sum(1, keepdim=True).detach() + 0.01 * noise
            loss = torch.nn.functional.mse_loss(self.network(inputs), target) / 2
            value = float("nan") if step == self.nan_at and not detour else loss.item()
            ensure_finite(value, {"micro": micro, "tasks": ["toy"]})
            (1e30 * loss if step == self.explodes_at and not detour else loss).backward()
            total += value
        self.average = 0.5 * self.average + 0.5 * total
        metrics = {
            name: report["grad_norm"] for name, u in self.updaters.items() if (report := u.apply(step))
        }
        return StepReport(total, sequences=8, target_tokens=8, metrics=metrics)

    def evaluate(self, step: int) -> dict[str, float]:
        return {"accuracy": -abs(step - 10) / 10, "draw": float(torch.rand(()))}

    def weights(self) -> dict[str, torch.Tensor]:
        return {**self.network.state_dict(), "prompt": self.prompt.data}

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self.prompt.data.copy_(weights["prompt"])
        self.network.load_state_dict({key: value for key, value in weights.items() if key != "prompt"})

    def state(self) -> Any:
        states = {name: updater.optimizer.state_dict() for name, updater in self.updaters.items()}
        return {"optimizers": states, "average": self.average}

    def load_state(self, state: Any) -> None:
        self.average = state["average"]
        for name, updater in self.updaters.items():
            updater.optimizer.load_state_dict(state["optimizers"][name])
            updater.optimizer.zero_grad(set_to_none=True)

    def export(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"kind": "toy"}))
