"""The worked example of `_Rows` and `_Targets.add`: one sequence with one wrong option."""

import numpy as np
import torch

from metashot.icl.learning.batches.collate import collate
from metashot.icl.learning.training_settings import Batching
from metashot.icl.learning.writing.sequences import Alternative, Question, TrainingSequence

A, B, Y, Y2, W = 10, 11, 20, 21, 30


def test_a_wrong_option_branches_off_where_the_target_begins():
    wrong = Alternative(np.array([W]), lead=0)
    sequence = TrainingSequence(np.array([A, B, Y, Y2]), (Question(2, 4, 2, (wrong,)),), task=7, index=0)
    batch = collate([sequence], Batching.PACKED, step_sequences=1.0)
    assert batch.input_ids.tolist() == [[A, B, Y, Y2, W]]
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.visible is not None
    assert batch.visible[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert batch.labels.tolist() == [Y, Y2, W]
    assert batch.columns.tolist() == [1, 2, 1]
    assert torch.equal(batch.weights, torch.tensor([0.5, 0.5, 0.0]))
    assert batch.options is not None
    assert batch.options.option.tolist() == [0, 0, 1]
    assert list(
        zip(
            batch.options.question.tolist(),
            batch.options.slot.tolist(),
            batch.options.tokens.tolist(),
            strict=True,
        )
    ) == [
        (0, 0, 2),
        (0, 1, 1),
    ]
