"""Twelve chat models' tokenizers in small, and their templates as published, written anew.

What a family's tokenizer does to a text is kept (normalizer, pre-tokenizer, how added tokens are split off); its
vocabulary is learned from a few sentences.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "the quick brown fox jumps over the lazy dog and the answer is positive or negative",
    "good day, bad night: what a lovely film! a waste of two hours?",
    "positive negative neutral spam ham yes no Review: Sentiment: user assistant system",
    "[INST] you are a helpful assistant [/INST] it's 42 of 1999\n\nnext line\n",
] * 30
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ALTERNATES = (
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, roles must alternate') }}{%- endif %}"
)


def bytes_bpe(special: list[str]) -> Tokenizer:
    """Byte-level BPE over the words of GPT-4-like patterns (Llama 3, Qwen, DeepSeek, SmolLM3, OLMo 2)."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def pieces_bpe(special: list[str], *, blank: str) -> Tokenizer:
    """SentencePiece-like BPE with byte fallback.

    Args:
        special: control tokens, `<unk>` among them.
        blank: where a blank is put in front: of `every` part between control tokens (Llama 2, Mistral v0.1, Phi 3), of
            the `first` one (Mistral v0.3), or `never` (Gemma).
    """
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    learned.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=700, special_tokens=names, show_progress=False)
    )
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if blank == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        front = [normalizers.Prepend("▁")] if blank == "every" else []
        made.normalizer = normalizers.Sequence([*front, normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    source, target = json.loads(learned.to_str()), json.loads(made.to_str())
    target["model"]["vocab"] = source["model"]["vocab"]
    target["model"]["merges"] = source["model"]["merges"]
    target["added_tokens"] = source["added_tokens"][: len(special)]
    return Tokenizer.from_str(json.dumps(target))


@dataclass(frozen=True)
class Family:
    """A published chat model in small.

    Attributes:
        template: its chat template.
        make: its tokenizer.
        tokens: names of its special tokens, as transformers knows them.
        added: tokens that are added behind the vocabulary.
        answer: what a finished conversation has between the input `IN` and the answer `OUT`, and behind it.
    """

    template: str
    make: Callable[[], Tokenizer]
    answer: str
    tokens: dict[str, str] = field(default_factory=dict)
    added: tuple[AddedToken, ...] = ()


LLAMA2 = (
    "{%- set system = '' %}{%- set turns = messages %}{%- if messages[0].role == 'system' %}"
    "{%- set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{%- set turns = messages[1:] %}{%- endif %}"
    "{%- for message in turns %}" + ALTERNATES + "{%- if message.role == 'user' %}"
    "{{- bos_token + '[INST] ' + ((system if loop.first else '') + message.content) | trim + ' [/INST]' }}"
    "{%- else %}{{- ' ' + message.content | trim + ' ' + eos_token }}{%- endif %}{%- endfor %}"
)
LLAMA3 = (
    "{{- bos_token }}{%- set turns = messages %}{%- set system = '' %}{%- if messages[0].role == 'system' %}"
    "{%- set system = messages[0].content | trim %}{%- set turns = messages[1:] %}{%- endif %}"
    "{%- if date_string is not defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' }}"
    "{{- date_string + '\n\n' + system + '<|eot_id|>' }}{%- for message in turns %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL1 = (
    "{{- bos_token }}{%- for message in messages %}" + ALTERNATES + "{%- if message.role == 'user' %}"
    "{{- '[INST] ' + message.content + ' [/INST]' }}{%- else %}{{- message.content + eos_token }}{%- endif %}{%- endfor %}"
)
MISTRAL3 = (
    "{%- set turns = messages %}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set turns = messages[1:] %}{%- endif %}{{- bos_token }}{%- for message in turns %}" + ALTERNATES +
    "{%- if message.role == 'user' %}{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\n\n' + message.content + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + message.content + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + message.content | trim + eos_token }}{%- endif %}{%- endfor %}"
)  # fmt: skip
QWEN25 = (
    "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{%- endif %}{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
QWEN3 = (
    "{%- set last = namespace(query=-1) %}{%- for message in messages %}{%- if message.role == 'user' %}"
    "{%- set last.query = loop.index0 %}{%- endif %}{%- endfor %}{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' }}{%- set content = message.content %}"
    "{%- if message.role == 'assistant' %}{%- set thought = '' %}{%- if '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > last.query %}{{- '<think>\n' + thought + '\n</think>\n\n' }}{%- endif %}{%- endif %}"
    "{{- content + '<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
GEMMA_TURNS = (
    ALTERNATES
    + "{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' + "
    "(system if loop.first else '') + message.content | trim + '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{%- endif %}"
)
GEMMA2 = (
    "{{- bos_token }}{%- set system = '' %}{%- if messages[0].role == 'system' %}"
    "{{- raise_exception('System role not supported') }}{%- endif %}{%- for message in messages %}"
    + GEMMA_TURNS
)
GEMMA3 = (
    "{{- bos_token }}{%- set system = '' %}{%- set turns = messages %}{%- if messages[0].role == 'system' %}"
    "{%- set system = messages[0].content + '\n\n' %}{%- set turns = messages[1:] %}{%- endif %}"
    "{%- for message in turns %}" + GEMMA_TURNS
)
PHI3 = (
    "{%- for message in messages %}{{- '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- else %}{{- eos_token }}{%- endif %}"
)
DEEPSEEK_R1 = (
    "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'system' %}{{- message.content }}{%- endif %}"
    "{%- endfor %}{%- for message in messages %}{%- if message.role == 'user' %}{{- '<｜User｜>' + message.content }}"
    "{%- elif message.role == 'assistant' %}{{- '<｜Assistant｜>' + message.content.split('</think>')[-1] + eos_token }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\n' }}{%- endif %}"
)
SMOLLM3 = (
    "{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{%- endif %}"
    "{%- set mode = '/think' if enable_thinking else '/no_think' %}"
    "{%- set block = '' if enable_thinking else '<think>\n\n</think>\n' %}{%- set turns = messages %}"
    "{%- set system = 'You are a helpful AI assistant.' %}{%- if messages[0].role == 'system' %}"
    "{%- set system = messages[0].content %}{%- set turns = messages[1:] %}{%- endif %}"
    "{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' + mode }}"
    "{{- '\n\n## Custom Instructions\n\n' + system + '\n\n<|im_end|>\n' }}{%- for message in turns %}"
    "{%- if message.role == 'user' %}{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}{%- else %}"
    "{{- '<|im_start|>assistant\n' + block + message.content.lstrip('\n') + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' + block }}{%- endif %}"
)
OLMO2 = (
    "{{- bos_token }}{%- for message in messages %}{{- '<|' + message.role + '|>\n' + message.content }}"
    "{%- if message.role == 'assistant' %}{{- eos_token }}{%- if not loop.last %}{{- '\n' }}{%- endif %}"
    "{%- else %}{{- '\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"
)

SENTENCEPIECE = ["<unk>", "<s>", "</s>"]
_BEGIN_END = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
_GEMMA_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_THINK = tuple(AddedToken(name, normalized=False, special=False) for name in ("<think>", "</think>"))
_LLAMA3 = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
]  # fmt: skip
_DEEPSEEK = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
_PHI = tuple(
    AddedToken(name, rstrip=True, normalized=False, special=True)
    for name in ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
)

FAMILIES = {
    "llama2": Family(LLAMA2, lambda: pieces_bpe(SENTENCEPIECE, blank="every"), "IN [/INST] OUT </s>", _BEGIN_END),
    "llama3": Family(
        LLAMA3, lambda: bytes_bpe(_LLAMA3),
        "IN<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nOUT<|eot_id|>",
        {"bos_token": _LLAMA3[0], "eos_token": _LLAMA3[4]},
    ),
    "mistral_v0.1": Family(
        MISTRAL1, lambda: pieces_bpe(SENTENCEPIECE, blank="every"), "IN [/INST]OUT</s>", _BEGIN_END
    ),
    "mistral_v0.3": Family(
        MISTRAL3, lambda: pieces_bpe([*SENTENCEPIECE, "[INST]", "[/INST]"], blank="first"), "IN[/INST] OUT</s>",
        _BEGIN_END,
    ),
    "qwen2.5": Family(
        QWEN25, lambda: bytes_bpe(_IM), "IN<|im_end|>\n<|im_start|>assistant\nOUT<|im_end|>\n", {"eos_token": _IM[2]}
    ),
    "qwen3": Family(
        QWEN3, lambda: bytes_bpe(_IM), "IN<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nOUT<|im_end|>\n",
        {"eos_token": _IM[2]}, _THINK,
    ),
    "gemma2": Family(
        GEMMA2, lambda: pieces_bpe(_GEMMA, blank="never"),
        "IN<end_of_turn>\n<start_of_turn>model\nOUT<end_of_turn>\n", _GEMMA_TOKENS,
    ),
    "gemma3": Family(
        GEMMA3, lambda: pieces_bpe(_GEMMA, blank="never"),
        "IN<end_of_turn>\n<start_of_turn>model\nOUT<end_of_turn>\n", _GEMMA_TOKENS,
    ),
    "phi3": Family(
        PHI3, lambda: pieces_bpe(SENTENCEPIECE, blank="every"), "IN<|end|>\n<|assistant|>\nOUT<|end|>\n</s>",
        _BEGIN_END, _PHI,
    ),
    "deepseek_r1": Family(
        DEEPSEEK_R1, lambda: bytes_bpe(_DEEPSEEK), "IN<｜Assistant｜>OUT<｜end▁of▁sentence｜>",
        {"bos_token": _DEEPSEEK[0], "eos_token": _DEEPSEEK[1]}, _THINK,
    ),
    "smollm3": Family(
        SMOLLM3, lambda: bytes_bpe(_IM), "IN<|im_end|>\n<|im_start|>assistant\nOUT<|im_end|>\n",
        {"eos_token": _IM[2]}, _THINK,
    ),
    "olmo2": Family(
        OLMO2, lambda: bytes_bpe(["<|endoftext|>"]), "IN\n<|assistant|>\nOUT<|endoftext|>",
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    ),
}  # fmt: skip


@cache
def family_tokenizer(name: str) -> Any:
    """The tokenizer of a family with its template; do not change it."""
    family = FAMILIES[name]
    made = family.make()
    made.add_tokens(list(family.added))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **family.tokens)
    tokenizer.chat_template = family.template
    return tokenizer


def _turns(user: str, assistant: str, header: str) -> str:
    return (
        "{%- for message in messages %}{%- if message.role == 'user' %}{{- " + user + " }}{%- else %}{{- "
        + assistant + " }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- " + header + " }}{%- endif %}"
    )  # fmt: skip


OTHER_TEMPLATES = {
    "lines": _turns(
        "'<|user|>\n' + message.content + eos_token + '\n'",
        "'<|assistant|>\n' + message.content + eos_token + '\n'",
        "'<|assistant|>\n'",
    ),
    "words": "{{- bos_token }}"
    + _turns(
        "'USER: ' + message.content + ' '", "'ASSISTANT: ' + message.content + eos_token", "'ASSISTANT:'"
    ),
    "blank behind the header": _turns(
        "'User: ' + message.content + '\n'", "'Assistant: ' + message.content + '\n'", "'Assistant: '"
    ),
    "header without its line": "[gMASK]<sop>"
    + _turns("'<|user|>\n' + message.content", "'<|assistant|>\n' + message.content", "'<|assistant|>'"),
    "begin of sequence in letters": "<s>"
    + _turns("'[' + message.content + ']'", "message.content + '</s>'", "''"),
    "no control token": _turns(
        "'### Instruction:\n' + message.content + '\n\n'",
        "'### Response:\n' + message.content + '\n\n'",
        "'### Response:\n'",
    ),
}
"""Forms of templates that the families above have not."""
TOKENIZERS = {
    "a blank in front of every part": lambda: pieces_bpe(SENTENCEPIECE, blank="every"),
    "a blank in front of the first part": lambda: pieces_bpe(SENTENCEPIECE, blank="first"),
    "no blank in front": lambda: pieces_bpe(SENTENCEPIECE, blank="never"),
    "bytes": lambda: bytes_bpe(SENTENCEPIECE),
}


@cache
def other_tokenizer(name: str) -> Any:
    """A tokenizer of `TOKENIZERS`, whose template is to be set."""
    return PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[name](), **_BEGIN_END)
