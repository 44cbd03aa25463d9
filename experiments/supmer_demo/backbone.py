"""The small frozen language model of the demonstration: GPT-2's shape, trained here, written as a model folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from world import (
    ANSWERS,
    ATTRIBUTES,
    GROUPS,
    INDEX,
    PREFIX_LENGTH,
    WORDS,
    Attribute,
    answer_ids,
    ask,
    description,
    prefixes,
    training_questions,
)

from metashot.engine.models.sentence_encoder import EMBEDDED_MODEL, load_sentence_encoder

_COMPONENTS = 10
"""Principal components of the word vectors: with more, words of one group grow less alike than the noise."""


@dataclass(frozen=True, slots=True)
class BackboneSize:
    """Size and training of the backbone.

    Attributes:
        width: hidden size; each attribute's words start in one half of it.
        layers: transformer blocks.
        heads: attention heads.
        first_steps: most steps on told yes/no questions about pairs only; a start that has not learned them is given up.
        first_loss: nats over 100 steps at which that is learned, and all kinds are asked.
        steps: steps on all kinds of questions, during which the rate falls.
        batch: questions of a step.
        learning_rate: peak of AdamW's rate.
        prefix_noise: deviation of the noise on each entry of the prefix's vectors, which have entries of some 0.1:
            what a prefix tells then changes smoothly with it. Without noise, meta-training stayed at guessing from
            several backbones.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    first_steps: int = 1000
    first_loss: float = 0.02
    steps: int = 1200
    batch: int = 128
    learning_rate: float = 3e-3
    prefix_noise: float = 0.1


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, in lower case; spaces and full stops vanish."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="the"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[ .]+"), behavior="removed")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=WORDS[0])


def word_vectors(width: int) -> Tensor:
    """Start of the input embeddings, [words, width]: the leading principal components of MiniLM's vectors.

    Subject words lie in the first half of the space, tone words in the other, each half turned at random; all
    other words get small random vectors.
    """
    encode = load_sentence_encoder(EMBEDDED_MODEL, device="cpu")
    half, generator = width // 2, torch.Generator().manual_seed(0)
    table = 0.03 * torch.randn(len(WORDS), width, generator=generator)
    for place, attribute in enumerate(ATTRIBUTES):
        words = [word for group in GROUPS[attribute].values() for word in group.split()]
        vectors = torch.from_numpy(encode(words))
        left, scale, _ = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
        turn = torch.linalg.qr(torch.randn(half, half, generator=generator)).Q
        found = (left[:, :_COMPONENTS] * scale[:_COMPONENTS]) @ turn[:_COMPONENTS]
        table[[INDEX[word] for word in words], place * half : (place + 1) * half] += 0.1 * found / found.std()
    return table


def new_model(size: BackboneSize, vectors: Tensor, seed: int) -> GPT2LMHeadModel:
    """Random weights of `seed`; queries start equal to keys, so that equal vectors attend to each other.

    Source of that start: Trockman and Kolter, Mimetic Initialization of Self-Attention Layers, 2023.
    """
    width = size.width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(WORDS), n_positions=128, n_embd=width, n_layer=size.layers, n_head=size.heads,
                n_inner=2 * width, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.08,
                tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            )
        )  # fmt: skip
        with torch.no_grad():
            transformer: Any = model.transformer
            for block in transformer.h:
                weight = block.attn.c_attn.weight
                weight[:, :width] = weight[:, width : 2 * width] = torch.eye(width)
                weight[:, 2 * width :] = torch.randn(width, width) / width**0.5
                block.attn.c_proj.weight.copy_(0.5 * torch.randn(width, width) / width**0.5)
            transformer.wpe.weight.normal_(0, 0.03)
            transformer.wte.weight.copy_(vectors)
    return model


def train_backbone(
    size: BackboneSize, word_table: Tensor, habit: Attribute, seed: int, notify: Callable[[str], None]
) -> GPT2LMHeadModel | None:
    """Teach a new model to answer questions; what is asked stands in the prefix, nine times of ten in the end.

    Questions about pairs come first and last until they are learned: when that happens differs by hundreds of steps
    between seeds, and a model that meets all kinds before stays at what the habit answers. A second head, thrown away afterwards, must read off the same state what would be right for either attribute:
    without it a model learns to compare by one attribute and stays there. One start in seven or so stays there even
    so: None then.
    """
    model = new_model(size, word_table, seed).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        both = torch.nn.Linear(size.width, 4)
    weights = [*model.parameters(), *both.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=size.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    generator, losses, started = (
        np.random.default_rng([seed, 0]),
        list[tuple[float, float]](),
        time.process_time(),
    )
    noises = torch.Generator().manual_seed(seed)
    simple, left, step = True, size.steps, 0
    while left:
        if simple and _learned(losses, size.first_loss):
            simple = False
        elif simple and step == size.first_steps:
            return None
        left, step = left - (not simple), step + 1
        for group in optimizer.param_groups:
            group["lr"] = size.learning_rate * min(1.0, step / 30, max(0.02, 1.5 * left / size.steps))
        batch = training_questions(size.batch, habit, generator, simple=simple)
        vectors = model.transformer.wte(torch.from_numpy(batch.words))
        noise = size.prefix_noise * torch.randn(size.batch, PREFIX_LENGTH, size.width, generator=noises)
        vectors = torch.cat([vectors[:, :PREFIX_LENGTH] + noise, vectors[:, PREFIX_LENGTH:]], dim=1)
        hidden = model.transformer(inputs_embeds=vectors, use_cache=False).last_hidden_state
        loss = functional.cross_entropy(model.lm_head(hidden[:, -1]), torch.from_numpy(batch.answers))
        read = both(hidden[:, -1])[:, :2] if batch.form == "yes_no" else both(hidden[:, -1])[:, 2:]
        aside = functional.binary_cross_entropy_with_logits(read, torch.from_numpy(batch.truths.T).float())
        optimizer.zero_grad()
        (loss + aside).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append((float(loss.detach()), float(aside.detach())))
        if step % 100 == 0:
            spent, mean = time.process_time() - started, np.mean(losses[-100:], axis=0).round(3)
            asked = "pairs" if simple else "all kinds"
            notify(f"start {seed}, step {step}, {asked}, losses {mean} nats, {spent:.0f} CPU s")
    return model.eval()


def _learned(losses: list[tuple[float, float]], below: float) -> bool:
    return len(losses) >= 100 and float(np.mean(losses[-100:], axis=0)[0]) < below


def abilities(model: GPT2LMHeadModel, count: int = 500) -> dict[str, float]:
    """Accuracy on new questions of each kind, with a prefix that tells what is asked and without."""
    generator = np.random.default_rng(5)
    found: dict[str, float] = {}
    for main in ATTRIBUTES:
        for asked in ATTRIBUTES:
            for form, words in ANSWERS.items():
                for kind in ("told", "differ, told", "not told"):
                    differ = kind == "differ, told"
                    same = generator.integers(2, size=(2, count))
                    truth = (same[0] if asked == main else same[1]) ^ differ
                    told = () if kind == "not told" else description(asked, form, differ=differ)
                    prefix = prefixes([told] * count, generator)
                    rows = np.concatenate([prefix, ask(form, main, same[0], same[1], generator)], axis=1)
                    with torch.no_grad():
                        logits = model(torch.from_numpy(rows)).logits[:, -1, [INDEX[word] for word in words]]
                    chosen = np.array([INDEX[word] for word in words])[logits.argmax(dim=1).numpy()]
                    right = float((chosen == answer_ids((form,) * count, truth)).mean())
                    found[f"{asked} of {main} phrases, {form}, {kind}"] = right
    return found
