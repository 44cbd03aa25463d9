"""Small pools, models and settings that the meta-training tests share."""

from __future__ import annotations

from typing import Any

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from metashot.data.task import Example
from metashot.data.tasks.synthetic import SyntheticSource
from metashot.engine.models.loading import LanguageModel, load_model
from metashot.engine.models.sources import TinyModel
from metashot.engine.training.loop import LoopConfig
from metashot.engine.training.optimizers import OptimizerConfig
from metashot.engine.training.ranks import world_size
from metashot.icl.learning.training_settings import EpisodeConfig, MetaTrainSettings
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import LengthLimits, Objective

SOURCE = SyntheticSource(train_tasks=6, target_tasks=4, test_size=4)


def tiny(architecture: str = "gpt2") -> LanguageModel:
    return load_model(TinyModel("tiny", architecture, device="cpu"))


def pools(size: int = 8) -> list[list[Example]]:
    return [SOURCE.pool(task, size=size) for task in SOURCE.training_tasks()]


def settings(**changes: Any) -> MetaTrainSettings:
    objective = changes.pop("objective", Objective.DIRECT)
    demonstrations = changes.pop("demonstrations", True)
    loop = {"steps": 6, "save_every": 0, "log_every": 3, "progress": False, **changes.pop("loop", {})}
    episodes = {
        "pool_size": 8,
        "batch_size": 4,
        "micro_batch_size": 2,
        "bucket_batches": 3,
        "limits": LengthLimits(64, 256),
        **changes.pop("episodes", {}),
    }
    optimizer = {"learning_rate": 1e-3, **changes.pop("optimizer", {})}
    return MetaTrainSettings(
        method=Method("metaicl", objective, demonstrations, trained=True),
        k=2,
        loop=LoopConfig(**loop),
        episodes=EpisodeConfig(**episodes),
        optimizer=OptimizerConfig(**optimizer),
        **changes,
    )


def sharding(accelerator: Any, module: Any, optimizer: Any) -> Any:
    """What `Accelerator.prepare` does under FSDP2: shard each layer and the rest, hand the shards to the optimizer."""
    del accelerator
    mesh = init_device_mesh("cpu", (world_size(),))
    old = dict(module.named_parameters())
    assert module._no_split_modules
    for layer in [one for one in module.modules() if type(one).__name__ in module._no_split_modules]:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    new = {id(old[name]): parameter for name, parameter in module.named_parameters()}
    for group in optimizer.param_groups:
        group["params"] = [new[id(parameter)] for parameter in group["params"]]
    return module, optimizer
