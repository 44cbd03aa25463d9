"""A small command of every kind, and what it needs beforehand. ROOT is its folder, SHARED the one above."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

ROOTS = ("results_root=ROOT/root", "hydra.run.dir=ROOT/out", "logger=none")
SYNTHETIC = (
    "model=tiny",
    "data=synthetic",
    "data.train_tasks=3",
    "data.target_tasks=2",
    "data.test_size=4",
    "k=2",
)
TRAINING = ("method=metaicl", "trainer.steps=6", "trainer.save_every=2", "trainer.evaluate_every=3", "trainer.pool_size=32",
            "trainer.held_out.test_examples=2", "trainer.progress=false", "trainer.batch_size=2", "trainer.micro_batch_size=2")  # fmt: skip
SUPMER = ("method=supmer", "model=tiny", "supmer=small", "supmer.formats=[scsp]", "supmer.prompt_length=2",
          "supmer.examples_per_set=2", "supmer.tasks_per_step=1", "supmer.loop.steps=6", "supmer.loop.save_every=2",
          "supmer.loop.evaluate_every=3", "supmer.test_queries=4", "supmer.loop.progress=false")  # fmt: skip
TUNING = ("method=soft_prompt", "model=tiny", "tuning=small", "tuning.tasks=[SST-2]", "tuning.data_root=SHARED/tuning", "k=2",
          "tuning.train_seeds=[10,11]", "seeds=[100]", "tuning.prompt_length=2", "tuning.train.steps=2",
          "tuning.train.evaluate_every=1", "tuning.train.batch_size=2")  # fmt: skip
PREPARE = ("stage=prepare", "data=hub", "data.root=ROOT/data", "data.recipe_path=[SHARED/recipes]", "data.raw=SHARED/recipes",
           "setting=custom", "setting.name=SHARED/recipes/mine.yaml", "prepare.k=2", "prepare.seeds=[100,13]", "prepare.workers=1",
           "prepare.cache=ROOT/downloads", "prepare.online=false")  # fmt: skip

CONVERT = (*SYNTHETIC, "model=local", "model.path=SHARED/tiny.gguf", "data.target_tasks=1", "method=direct", "seeds=[100]",
           "METASHOT_CACHE=ROOT/cache", *ROOTS)  # fmt: skip

COMMANDS = {
    "evaluate": (*SYNTHETIC, "method=direct", "seeds=[100,13]", *ROOTS),
    "train": ("stage=train", *SYNTHETIC, *TRAINING, *ROOTS),
    "meta-training": ("stage=train", *SUPMER, *ROOTS),
    "tuning": (*TUNING, *ROOTS),
    "prepare": (*PREPARE, *ROOTS),
    "conversion": tuple(word for word in CONVERT if word != "model=tiny"),
    "sweep": ("-m", *SYNTHETIC, "method=direct,channel", "seeds=[100],[13]", "results_root=ROOT/root",
              "hydra.sweep.dir=ROOT/sweep", "logger=none"),
    "report": ("stage=report", "runs=[SHARED/evaluated/out]", "report.folder=ROOT/report", "report.draws=50",
               "report.permutations=50", "report.formats=[markdown,csv,latex,html]", "results_root=ROOT/root",
               "hydra.run.dir=ROOT/out", "model=tiny"),
}  # fmt: skip
"""`NAME=value` in capitals is a variable of the environment."""
FURTHER = {
    "plan": ("stage=plan", *SYNTHETIC, "seeds=[100]", *ROOTS),
    "compare": ("stage=compare", "runs=[SHARED/evaluated/out,SHARED/evaluated/out]", "compare.permutations=50",
                "results_root=ROOT/root", "hydra.run.dir=ROOT/out", "model=tiny"),
    "doctor": ("stage=doctor", *PREPARE[1:], "data.root=SHARED/prepared/data", *ROOTS),
    "export": ("stage=export", *SYNTHETIC, "method=metaicl", "checkpoint=SHARED/trained/out", *ROOTS),
    "find_lr": ("stage=find_lr", *SYNTHETIC, *TRAINING, "find_lr.steps=10", *ROOTS),
    "probe": ("stage=probe", *SUPMER, "probe.train=16", "probe.test=16", *ROOTS),
    "generate": (*SYNTHETIC, "method=generate", "method.max_new_tokens=3", "seeds=[100]", *ROOTS),
    "train and evaluate in a multirun": ("-m", "stage=[train,evaluate]", *SYNTHETIC, "method=metaicl",
                                         "trainer.steps=4", "trainer.evaluate_every=0", "trainer.pool_size=32",
                                         "trainer.progress=false", "trainer.seed=1,2", "seeds=[100]", "logger=none",
                                         "results_root=ROOT/root", "hydra.sweep.dir=ROOT/sweep"),
}  # fmt: skip
NEEDS = {
    "report": ("evaluate", "evaluated"), "compare": ("evaluate", "evaluated"), "doctor": ("prepare", "prepared"),
    "export": ("train", "trained"),
}  # fmt: skip
"""A command that must have run before, and in which folder."""


def lay_out(folder):
    """Data that the commands read."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "engine" / "models"))
    from gguf_writer import tiny_qwen, write_gguf

    write_gguf(folder / "tiny.gguf", "qwen2", tiny_qwen("qwen2"))
    for split in ("train", "test"):
        rows = [{"text": f"a {'good' if n % 2 else 'bad'} film {n}", "label": n % 2} for n in range(12)]
        rows = [{"source": row["text"], **row} for row in rows]
        path = folder / "tuning" / "SST-2" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipes = folder / "recipes"
    recipes.mkdir()
    for task in ("one", "two"):
        (recipes / f"{task}.jsonl").write_text(
            "".join(json.dumps({"text": f"{task} text {n}", "label": n % 2}) + "\n" for n in range(20))
        )
        recipe = {
            "name": task, "about": "x", "task_type": "classification", "ontology": "x",
            "source": {"files": {"train": f"{task}.jsonl", "test": f"{task}.jsonl"}},
            "splits": {"train": "train", "test": "test"}, "fields": {"text": "text", "label": "number"},
            "kind": "labelled", "input": "{text}", "label": "label", "labels": {0: "bad", 1: "good"},
            "options": ["bad", "good"],
        }  # fmt: skip
        (recipes / f"{task}.yaml").write_text(yaml.safe_dump(recipe))
    (recipes / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "train": ["one"], "test": ["two"]}))
