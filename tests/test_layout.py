"""The package is ours, the tests cannot hide it, and what it refers to is here."""

import re

import pytest
import torch
from jaxtyping import TypeCheckError

import metashot


def test_the_package_is_the_one_of_this_checkout(repository):
    assert str(repository / "src") in metashot.__file__


def test_no_test_folder_is_a_package(repository):
    assert not list((repository / "tests").rglob("__init__.py"))


def test_every_document_that_the_code_refers_to_is_in_the_repository(repository):
    lost = {
        (str(path.relative_to(repository)), name)
        for folder in ("src", "conf", "tests")
        for path in (repository / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
        for name in re.findall(
            r"\b((?:docs|facts|shared|experiments)/[\w./-]*\w\.(?:md|json))", path.read_text(encoding="utf-8")
        )
        if not (repository / name).is_file()
    }
    assert not lost


def test_a_tensor_of_the_wrong_shape_is_refused_while_tests_run():
    from metashot.metaprompt.meta.interpolation import mix_states

    states, mask = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(TypeCheckError, match="weight"):
        mix_states(states, mask, states, mask, torch.zeros(3), mix_padding=False)
