"""The k-shot selection equals the original's, index for index."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.kshot import CUT_SEED, KShotSplit, k_shot_split

SHARED = Path(os.environ.get("METASHOT_SHARED", Path(__file__).parents[2] / "../shared"))
PUBLISHED_60 = {  # from the released preprocessing code: 60 rows, k = 16
    100: "11 28 51 18 45 12 5 52 59 33 25 6 21 0 20 55 | 56 32 41 38 42 26 47 46 44 17 7 57 40 37 35 43",
    13: "33 4 31 56 0 14 43 30 23 6 27 29 51 47 15 53 | 45 40 17 5 3 7 55 20 41 50 49 12 8 54 28 24",
    21: "23 51 17 22 2 19 31 7 28 50 21 24 26 32 14 30 | 57 3 11 25 53 0 13 29 59 42 45 58 39 33 54 1",
    42: "0 5 36 45 13 54 33 48 12 57 46 50 31 3 52 17 | 8 6 40 4 43 19 34 58 25 56 15 27 9 30 26 16",
    87: "34 22 3 17 5 0 18 49 41 24 2 12 37 29 27 1 | 55 58 31 16 44 4 54 33 43 28 10 7 52 36 59 45",
}


@pytest.mark.parametrize("seed", PUBLISHED_60)
def test_sixty_rows_split_as_published(seed: int) -> None:
    train, dev = ([int(index) for index in part.split()] for part in PUBLISHED_60[seed].split("|"))
    assert k_shot_split(60, k=16, seed=seed) == KShotSplit(train=train, dev=dev)


@pytest.mark.parametrize("case", ["classification_60", "text_to_text_10", "trec_60_own_80_20_split"])
def test_every_split_of_the_original_is_reproduced(case: str) -> None:
    path = SHARED / "golden" / "kshot.json"
    if not path.is_file():
        pytest.skip("shared/golden is not here")
    golden = json.loads(path.read_text())["target_k16"][case]
    rows = list(range(golden["n_train_rows"]))
    if case.startswith("trec"):
        order = k_shot_split(len(rows), k=len(rows), seed=CUT_SEED).train
        rows, test = order[: int(0.8 * len(order))], order[int(0.8 * len(order)) :]
    for seed, expected in golden["by_seed"].items():
        split = k_shot_split(len(rows), k=golden["k"], seed=int(seed))
        assert [rows[index] for index in split.train] == expected["train"]
        assert [rows[index] for index in split.dev] == expected["dev"]
        if case.startswith("trec"):
            assert test == expected["test"]


@given(n=st.integers(0, 300), seed=st.integers(0, 2**32 - 1))
def test_the_shuffle_equals_the_written_out_one(n: int, seed: int) -> None:
    """Section 3's description in plain Python: mask, reject, swap from the last position down."""
    draw = np.random.RandomState(seed)
    expected = list(range(n))
    for i in range(n - 1, 0, -1):
        mask = (1 << i.bit_length()) - 1
        while (j := int(draw.randint(0, 2**32, dtype=np.uint32)) & mask) > i:
            pass
        expected[i], expected[j] = expected[j], expected[i]
    assert k_shot_split(n, k=n, seed=seed) == KShotSplit(train=expected, dev=[])


@pytest.mark.parametrize(("n", "train", "dev"), [(40, 16, 16), (20, 16, 4), (10, 10, 0), (0, 0, 0)])
def test_short_sources_give_short_parts(n: int, train: int, dev: int) -> None:
    split = k_shot_split(n, k=16, seed=13)
    assert (len(split.train), len(split.dev)) == (train, dev)


def test_bad_numbers_are_named() -> None:
    with pytest.raises(DataError, match=r"k: cannot choose k=-1 of n=5 rows"):
        k_shot_split(5, k=-1)
    with pytest.raises(DataError, match=r"seeds: seed 4294967296 is outside"):
        k_shot_split(5, seed=2**32)
