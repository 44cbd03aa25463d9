"""Small models with a tokenizer whose verbalizers are single tokens, and a toy corpus with clear topics."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPT2Config, LlamaConfig, T5Config

from metashot.data.text.sentences import SentenceRules, build_sentences
from metashot.engine.models.digests import tokenizer_digest
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.sources import TinyModel
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.metaprompt.clusters.store import ClusterStore

WORDS = "yes no maybe A B C D E F terrible bad okay good great subjective objective Yes No true false"
TOPICS = {
    "river": ["water", "boat", "fish", "bank", "flood", "stream", "bridge", "mud", "reed", "tide"],
    "bread": ["flour", "oven", "dough", "yeast", "crust", "salt", "baker", "loaf", "butter", "crumb"],
    "chess": ["king", "queen", "rook", "pawn", "knight", "board", "check", "mate", "move", "clock"],
    "storm": ["wind", "rain", "cloud", "thunder", "hail", "sky", "gust", "front", "sleet", "fog"],
    "piano": ["key", "string", "chord", "hammer", "pedal", "tune", "scale", "note", "tempo", "rest"],
    "train": [
        "rail",
        "track",
        "signal",
        "engine",
        "coach",
        "station",
        "guard",
        "whistle",
        "steam",
        "platform",
    ],
}


def build_model(architecture: str, dropout: float = 0.0) -> LanguageModel:
    tokenizer = tiny_tokenizer([f" {WORDS} ." * 40, *(" ".join(words) for words in TOPICS.values())], 700)
    size = len(tokenizer)
    config = {
        "t5": lambda: T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                               dropout_rate=dropout, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1),
        "gpt2": lambda: GPT2Config(vocab_size=size, n_positions=256, n_embd=16, n_layer=2, n_head=2,
                                   resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
                                   bos_token_id=1, eos_token_id=1),
        "llama": lambda: LlamaConfig(vocab_size=size, max_position_embeddings=256, hidden_size=16,
                                     intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                                     num_key_value_heads=1, bos_token_id=1, eos_token_id=1),
    }[architecture]()  # fmt: skip
    auto = AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4.0)
    return LanguageModel(
        model,
        tokenizer,
        TinyModel(f"tiny-{architecture}"),
        sha256(f"{architecture} {dropout}".encode()).hexdigest(),  # which fix the weights
        tokenizer_digest(tokenizer),
    )


@pytest.fixture(params=["t5", "gpt2"])
def language_model(request: pytest.FixtureRequest) -> LanguageModel:
    return build_model(request.param)


@pytest.fixture(scope="session")
def t5() -> LanguageModel:
    return build_model("t5")


@pytest.fixture(scope="session")
def gpt2() -> LanguageModel:
    return build_model("gpt2")


def topic_documents(per_topic: int = 8, sentences: int = 6) -> list[str]:
    generator = np.random.default_rng(0)
    return [
        " ".join(
            "The " + " ".join(generator.choice(words, 4, replace=False)) + f" of {topic} came."
            for _ in range(sentences)
        )
        for topic, words in TOPICS.items()
        for _ in range(per_topic)
    ]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClusterStore:
    """Six clusters, one for each topic, with the topic's one-hot vector as centroid."""
    folder: Path = tmp_path_factory.mktemp("sentences")
    sentences = build_sentences(folder, topic_documents(), SentenceRules("en", 5, 2, 400, 2))
    topics = list(TOPICS)
    labels = [
        next(i for i, t in enumerate(topics) if f"of {t} " in sentences[n]) for n in range(len(sentences))
    ]
    return ClusterStore(
        sentences, np.asarray(labels, dtype=np.int32), np.eye(len(topics), dtype=np.float32), "toy", {}
    )


@pytest.fixture
def make_model():
    """`build_model(architecture, dropout)`, for tests that need several copies."""
    return build_model
