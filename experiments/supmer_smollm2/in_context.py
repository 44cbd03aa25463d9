"""In-context learning on the prompt-tuning data: the row that a tuned prompt has to stand beside.

    python experiments/supmer_smollm2/in_context.py --data-root <folder with SST-2/train.json ...>

The same K examples per label as `method=soft_prompt` trains on are the demonstrations (in an order drawn by the
seed), the same first test rows are answered, and the answers are the pattern's words.
"""

from __future__ import annotations

import argparse

import numpy as np

from metashot import InContextClassifier
from metashot.icl.prompting.methods import named_method
from metashot.metaprompt.tuning.tasks import load_prompt_task, load_rows, sample_per_label


def main() -> None:
    """Print the accuracy of each method and seed, and its mean over seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--task", default="SST-2")
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--methods", nargs="+", default=["zero", "direct", "channel"])
    parser.add_argument("--k", type=int, default=16, help="demonstrations per label")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 13])
    parser.add_argument("--rows", type=int, default=128)
    given = parser.parse_args()
    task = load_prompt_task(given.task, 0)
    rows = load_rows(task, "folder", given.data_root)
    tested = rows.test[: given.rows]
    words = [task.labels[int(row["label"])] for row in tested]
    for name in given.methods:
        classifier = InContextClassifier.from_pretrained(given.model, method=name, dtype=given.dtype)
        found: list[float] = []
        for seed in given.seeds if named_method(name).shots(given.k) else given.seeds[:1]:
            chosen, _ = sample_per_label([row["label"] for row in rows.train], given.k, seed)
            shown = [rows.train[place] for place in np.random.default_rng(seed).permutation(chosen)]
            classifier.fit(
                [row["source"] for row in shown], [task.labels[int(row["label"])] for row in shown]
            )
            answers = classifier.predict([row["source"] for row in tested])
            found.append(100 * float(np.mean([a == w for a, w in zip(answers, words, strict=True)])))
            print(f"{name}, seed {seed}: {found[-1]:.1f} % of {len(tested)}", flush=True)
        print(f"{name}: {np.mean(found):.1f} +- {np.std(found):.1f}", flush=True)


if __name__ == "__main__":
    main()
