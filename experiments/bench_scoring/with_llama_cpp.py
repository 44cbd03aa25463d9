"""llama.cpp as a scorer: the engine's own trie, each token once, marked with all the sequences that pass through it.

Needs `llama-cpp-python`, compiled on the machine that measures. Its weights are those of the torch model in the
precision asked for, written to a GGUF file.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from torch import Tensor

from metashot.engine.models.gguf_files import GgufFile
from metashot.engine.scoring.request import Request
from metashot.engine.scoring.trie import Ints, TokenTrie, build_trie

SEQUENCES = 128
"""Leaves of the trie that are in the cache at a time; llama.cpp takes 256 sequences."""
CELLS = 8192
"""Tokens that the cache holds: the rows of a group and the path to it."""
_KINDS = {"float32": gguf.GGMLQuantizationType.F32, "bfloat16": gguf.GGMLQuantizationType.BF16}


class LlamaCppScorer:
    """Scores requests with llama.cpp.

    The leaves of the trie are its sequences. They are computed in groups; what a later group shares with an earlier
    one stays in the cache below sequence 0 and is handed on to the sequences of that group.

    Args:
        path: a GGUF file; it is not read any more afterwards.
        threads: of llama.cpp.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p())
        sources = llama_cpp.llama_model_default_params()
        sources.use_mmap = False
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), sources)
        rules = llama_cpp.llama_context_default_params()
        rules.n_ctx = rules.n_batch = CELLS
        rules.n_seq_max = SEQUENCES + 1
        rules.n_threads = rules.n_threads_batch = threads
        rules.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(model, rules)
        if not model or not self._context:
            raise SystemExit(f"llama.cpp does not load {path}")
        self._words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._batch = llama_cpp.llama_batch_init(CELLS, 0, SEQUENCES + 1)

    def score(self, requests: Sequence[Request]) -> list[Tensor]:
        """Log-probabilities of the target tokens, in nats, as `PrefixScorer.score`."""
        trie = build_trie(requests)
        found = torch.empty(len(trie.pair_rows))
        memory = llama_cpp.llama_get_memory(self._context)
        llama_cpp.llama_memory_clear(memory, True)
        leaves = np.flatnonzero(trie.ends == np.arange(trie.rows) + 1)
        order = np.argsort(trie.pair_rows, kind="stable")
        read = trie.pair_rows[order]
        start = 0
        for first in range(0, len(leaves), SEQUENCES):
            group = leaves[first : first + SEQUENCES]
            stop = int(group[-1]) + 1
            for sequence, leaf in enumerate(group, start=1):
                shared = _computed_depth(trie, int(leaf), start)
                llama_cpp.llama_memory_seq_cp(memory, 0, sequence, 0, shared)
            low, high = np.searchsorted(read, [start, stop])
            self._decode(trie, np.arange(start, stop), group, read[low:high])
            self._read(trie, order[low:high], start, found)
            if stop < trie.rows:
                kept = int(trie.depths[stop])
                llama_cpp.llama_memory_seq_rm(memory, 0, -1, -1)
                llama_cpp.llama_memory_seq_cp(memory, len(group), 0, 0, kept)
            for sequence in range(1, len(group) + 1):
                llama_cpp.llama_memory_seq_rm(memory, sequence, -1, -1)
            start = stop
        return list(found.split(np.diff(trie.offsets).tolist()))

    def _decode(self, trie: TokenTrie, rows: Ints, group: Ints, read: Ints) -> None:
        """Run the rows `rows` (a range) through the model; `read` are the rows whose logits are wanted."""
        batch, wanted = self._batch, np.isin(rows, read)
        if len(rows) > CELLS:
            raise SystemExit(f"{len(rows)} rows in {CELLS} cells: make SEQUENCES smaller")
        low = np.searchsorted(group, rows) + 1
        high = np.searchsorted(group, trie.ends[rows]) + 1
        batch.n_tokens = len(rows)
        for place, row in enumerate(rows):
            batch.token[place], batch.pos[place] = int(trie.tokens[row]), int(trie.depths[row])
            batch.n_seq_id[place] = int(high[place] - low[place])
            for index, sequence in enumerate(range(int(low[place]), int(high[place]))):
                batch.seq_id[place][index] = sequence
            batch.logits[place] = int(wanted[place])
        status = llama_cpp.llama_decode(self._context, batch)
        if status:
            raise SystemExit(f"llama_decode: status {status}")

    def _read(self, trie: TokenTrie, pairs: Ints, start: int, found: Tensor) -> None:
        """Log-probabilities of pairs whose rows were in the batch that began at row `start`."""
        rows, places = np.unique(trie.pair_rows[pairs] - start, return_inverse=True)
        for index, row in enumerate(rows):
            pointer = llama_cpp.llama_get_logits_ith(self._context, int(row))
            logits = torch.from_numpy(np.ctypeslib.as_array(pointer, shape=(self._words,)))
            own = pairs[places == index]
            found[own] = logits[trie.pair_tokens[own]] - logits.logsumexp(dim=0)


def _computed_depth(trie: TokenTrie, leaf: int, start: int) -> int:
    """How many ancestors of a leaf are rows before `start`."""
    row = leaf
    while row >= start:
        row = int(trie.parents[row])
    return int(trie.depths[row]) + 1 if row >= 0 else 0


@llama_cpp.llama_log_callback  # pyright: ignore[reportUntypedFunctionDecorator]
def _SILENT(level: int, text: bytes, data: Any) -> None:
    del level, text, data


def write_gpt2(model: Any, dtype: str, path: Path) -> None:
    """A torch GPT-2 as a GGUF file without a vocabulary."""
    config = model.config
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, tensor in model.transformer.state_dict().items():
        stored = names.get_name(f"transformer.{name}", try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        transposed = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        _add(writer, stored, (tensor.T if transposed else tensor).float().contiguous().numpy(), dtype)
    _finish(writer)


def write_unquantized(source: GgufFile, dtype: str, path: Path) -> None:
    """A GGUF file with all of another's metadata, and its matrices in `dtype`."""
    with tempfile.TemporaryDirectory() as folder:
        reader = gguf.GGUFReader(source.joined_in(Path(folder)))
        writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
        for field in reader.fields.values():
            if field.name == "general.architecture" or field.name.startswith("GGUF."):
                continue
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
        for tensor in reader.tensors:
            _add(writer, tensor.name, dequantize(tensor.data, tensor.tensor_type), dtype)
        _finish(writer)


def _add(writer: Any, name: str, values: Any, dtype: str) -> None:
    kind = _KINDS[dtype] if values.ndim > 1 else gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, quantize(values.astype(np.float32), kind), raw_dtype=kind)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
