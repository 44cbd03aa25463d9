"""The published MetaICL checkpoints: names, download, and import of `model.pt` into our format.

Source: the released README (docs/methods.md, published checkpoints; GPT-2 Large state dicts, with or without a DDP prefix).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metashot.base.errors import CheckpointError, ConfigError
from metashot.base.files import sha256_file
from metashot.data.settings import setting_names
from metashot.engine.training.checkpoint import CheckpointStore, distinct_tensors

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

METHODS = ("metaicl", "channel-metaicl", "multitask-zero", "channel-multitask-zero")
RELEASED_FILE = "model.pt"
DEFAULT_SETTING = "hr_to_lr"
HEAD_WIDTH = 64
"""A state dict does not say how many heads there are: those of the published GPT-2 are so wide."""
_PREFIXES = ("module.", "model.")


@dataclass(frozen=True, slots=True)
class ReleasedName:
    """A published checkpoint.

    Attributes:
        method: one of `METHODS`.
        setting: alias of its setting.
    """

    method: str
    setting: str

    @property
    def remote_path(self) -> str:
        """Where it lies in the authors' storage."""
        return f"{self.method}/{self.setting}/model.pt"


def parse_name(name: str) -> ReleasedName:
    """`metaicl`, `channel-metaicl/qa_to_qa`, `multitask-zero-instruction` and so on.

    Raises:
        ConfigError: no checkpoint of that name was published.
    """
    method, slash, setting = name.partition("/")
    for ending in ("-instruction", "-inst"):
        if not slash and method.endswith(ending):
            method, setting = method.removesuffix(ending), "hr_to_lr_inst_all"
    setting = setting or DEFAULT_SETTING
    settings = [known for known in setting_names() if "diverse" not in known]
    if method not in METHODS or setting not in settings:
        raise ConfigError(
            "model.path",
            f"no published checkpoint is called {name!r}",
            f"<method> or <method>/<setting> with a method of {', '.join(METHODS)}",
        )
    return ReleasedName(method, setting)


def load_released_checkpoint(path: str | Path) -> GPT2LMHeadModel:
    """A published `model.pt` as a model in eval mode; nothing but tensors is unpickled.

    Sizes are read off the tensors (heads are 64 wide in every GPT-2), so that any GPT-2 size loads.

    Raises:
        CheckpointError: missing, unreadable, holding more than tensors, or no GPT-2 state dict.
    """
    from transformers import GPT2LMHeadModel

    source = Path(path).expanduser()
    state = _without_prefix(read_state_dict(source))
    model = GPT2LMHeadModel(_config_of(state, source))
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"}
    # Old transformers versions stored the causal masks and their fill value as buffers.
    strangers = [name for name in unexpected if not name.endswith((".attn.bias", ".attn.masked_bias"))]
    if set(missing) - tied or strangers:
        shown = sorted({*(set(missing) - tied), *strangers})[:3]
        raise CheckpointError(
            str(source), f"is no GPT-2 state dict (at odds: {', '.join(shown)})", "check the file"
        )
    model.tie_weights()
    return model.eval()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.pt` file, read with `weights_only`.

    Raises:
        CheckpointError: missing, unreadable, or holding anything but tensors.
    """
    import torch

    if not path.is_file():
        raise CheckpointError(str(path), "no such file", "give the path of a model.pt")
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            str(path),
            f"cannot be read as tensors only: {reason}",
            "get the file again from a source you trust",
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(str(path), "holds something other than named tensors", "give a state dict")
    return loaded


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if "transformer.wte.weight" not in state and "wte.weight" in state:
        state = {f"transformer.{name}": tensor for name, tensor in state.items() if name != "lm_head.weight"}
    return state


def _config_of(state: dict[str, Tensor], source: Path) -> GPT2Config:
    from transformers import GPT2Config

    try:
        vocabulary, width = state["transformer.wte.weight"].shape
        positions = state["transformer.wpe.weight"].shape[0]
    except (KeyError, ValueError):
        raise CheckpointError(str(source), "holds no GPT-2 embeddings", "give a MetaICL model.pt") from None
    layers = sum(name.endswith(".attn.c_attn.weight") for name in state)
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // HEAD_WIDTH),
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
    )


def import_released(path: str | Path, name: str, tokenizer: PreTrainedTokenizerBase, root: Path) -> Path:
    """Write a published `model.pt` as a checkpoint folder of ours; `model=local model.path=<it>` loads it.

    Args:
        path: the file.
        name: its published name, which tells method and setting.
        tokenizer: GPT-2's.
        root: folder for the checkpoint.

    Returns:
        The checkpoint folder; its manifest carries the method.
    """
    published = parse_name(name)
    model = load_released_checkpoint(path)

    def export(folder: Path) -> None:
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    store = CheckpointStore(
        root,
        identity={"source": f"released {published.remote_path}", "sha256": sha256_file(Path(path))},
        method=method_of(published),
    )
    return store.save(0, distinct_tensors(model.state_dict()), {}, export=export)


def method_of(published: ReleasedName) -> dict[str, Any]:
    """The manifest's method of a published checkpoint."""
    demonstrations = published.method.endswith("metaicl")
    return {
        "name": published.method.replace("-", "_"),
        "objective": "channel" if published.method.startswith("channel") else "direct",
        "demonstrations": demonstrations,
        "k": 16 if demonstrations else 0,
        "layout": "newline",
        "calibration": "none",
        "normalization": "token_mean",
        "trained": True,
    }


def download_released(name: str, repository: str, cache: Path, sha256: str | None = None) -> Path:
    """Fetch a published checkpoint with progress, through huggingface_hub, from a mirror that keeps its layout.

    The authors published on a file-sharing service that answers no program, so the mirror is the user's to name.

    Args:
        name: published name.
        repository: hub repository that holds `<method>/<setting>/model.pt`.
        cache: folder for the download.
        sha256: expected hash, checked when given.

    Raises:
        ConfigError: unknown name, or the file cannot be fetched.
        CheckpointError: the hash differs; the file is removed.
    """
    published = parse_name(name)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ConfigError(
            "model.path", "needs the package huggingface-hub", "pip install 'metashot[hub]'"
        ) from None
    try:
        path = Path(hf_hub_download(repository, published.remote_path, local_dir=cache))
    except Exception as error:
        raise ConfigError(
            "model.path",
            f"cannot fetch {published.remote_path} from {repository!r}: {type(error).__name__}",
            "check name and network, or give the path of a local model.pt",
        ) from error
    if sha256 is not None and sha256_file(path) != sha256:
        path.unlink()
        raise CheckpointError(str(path), "its sha256 differs from the expected one", "fetch it again")
    return path
