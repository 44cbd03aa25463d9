"""The environment variables that a command reads, in one table."""

from __future__ import annotations

from collections.abc import Mapping

from metashot.base.components.targets import TRUSTED_VARIABLE
from metashot.engine.sweeps.ledger import JOB_VARIABLE
from metashot.engine.sweeps.pruning import TRIAL_VARIABLE
from metashot.stages.endings import AGENT, FULL_ERROR

VARIABLES: Mapping[str, str] = {
    "METASHOT_CACHE": "Folder of converted models and downloads; `~/.cache/metashot` where it is not set.",
    TRUSTED_VARIABLE: "Further packages, with commas between them, whose code a `_target_` may name.",
    JOB_VARIABLE: "Set by a sweep for its jobs: the job's key in the ledger; not for people.",
    TRIAL_VARIABLE: "Set by a search for its jobs, which then can be pruned; not for people.",
    FULL_ERROR: "`1` shows the whole traceback of an error instead of one line.",
    "XDG_CACHE_HOME": "Folder of caches, when `METASHOT_CACHE` is not set.",
    "HOME": "The user's folder, for caches.",
    "HF_HUB_OFFLINE": "`1` keeps every command off the network; read by the hub's own library, as are `HF_HOME` and `HF_TOKEN`.",
    "HF_HUB_DISABLE_PROGRESS_BARS": "Set to `1` where errors do not go to a terminal, unless you set it.",
    "TRANSFORMERS_VERBOSITY": "Set to `error` where errors do not go to a terminal, unless you set it.",
    "RAY_USAGE_STATS_ENABLED": "Set to `0`, unless you set it: ray would report to its makers.",
    "RANK": "Set by torchrun and accelerate: this process's number. With `MASTER_ADDR` it makes a command one of several.",
    "MASTER_ADDR": "Set by torchrun and accelerate: where the processes of a launch meet.",
    "WORLD_SIZE": "Set by torchrun and accelerate: processes of the launch.",
    "LOCAL_RANK": "Set by torchrun and accelerate: this process's number on its machine, and its GPU.",
    "LOCAL_WORLD_SIZE": "Set by torchrun and accelerate: processes on this machine, which share its memory.",
    "ACCELERATE_USE_FSDP": "Set by `accelerate launch`: shard the model (docs/trust.md); only FSDP2 on GPUs is taken.",
    "ACCELERATE_USE_DEEPSPEED": "Set by `accelerate launch`; refused, as checkpoints could not be continued.",
    "FSDP_VERSION": "Set by `accelerate launch`; must be 2.",
    "WANDB_MODE": "Of `logger=wandb`, as all `WANDB_*` variables, which win over the config.",
    "WANDB_DISABLED": "`true` logs nothing.",
    "WANDB_DIR": "Folder of W&B's files; the run's own where it is not set.",
    "WANDB_TAGS": "Tags in place of the config's.",
    AGENT: "Set by `wandb agent`: a stopped job then ends by its signal, which does not count as a failure.",
    "MLFLOW_TRACKING_URI": "The server of `logger=mlflow`; a database in `results_root` where it is not set.",
    "VLLM_LOGGING_LEVEL": "Of `scorer=vllm`: set to `ERROR`, unless you set it.",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "Of `scorer=vllm` on one device: set to `0`, unless you set it.",
    "MLFLOW_DISABLE_TELEMETRY": "Set to `true`, unless you set it: mlflow would report to its makers.",
    "TRACKIO_DIR": "Folder of trackio's databases, for `trackio show`; a run sets it to its own.",
}
"""Name -> what it does."""
