"""A checkpoint is evaluated with the tokens that it was trained on."""

import pytest

from metashot.icl.prompting.boundary import Boundary
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt
from metashot.icl.scoring import trained_method

TEMPLATE = TemplatePrompt()


@pytest.mark.parametrize(
    ("trained", "given", "bos", "boundary"),
    [
        (None, TEMPLATE, "auto", Boundary.JOINT),
        ({"prompt": TEMPLATE.trained_as()}, TEMPLATE, False, Boundary.SEPARATE),
        ({"prompt": TEMPLATE.trained_as(), "bos": True}, TemplatePrompt(bos=False), False, Boundary.SEPARATE),
        ({"bos": True}, MetaiclPrompt(), True, Boundary.SEPARATE),
        ({}, MetaiclPrompt(boundary=Boundary.JOINT), False, Boundary.JOINT),
    ],
)
def test_begin_of_sequence_and_boundary_follow_the_checkpoint(monkeypatch, trained, given, bos, boundary):
    monkeypatch.setattr(trained_method, "trained_method", lambda folder: trained)
    followed = trained_method.follow_checkpoint("folder", given)
    assert (followed.bos, followed.boundary) == (bos, boundary)
