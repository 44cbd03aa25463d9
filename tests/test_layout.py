"""The package is ours, the tests cannot hide it, and what it refers to is here."""

import ast
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
    from metashot.metaprompt.meta.steps.interpolation import mix_states

    states, mask = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(TypeCheckError, match="weight"):
        mix_states(states, mask, states, mask, torch.zeros(3), mix_padding=False)


def test_private_parts_of_other_libraries_are_touched_only_where_the_place_says_why(repository):
    """Such a line, or one of the six above it, has a comment that begins with `Private:`.

    What has a leading underscore is ours where `self` or `cls` has it, or where the package defines the name.
    """
    trees = {path: ast.parse(path.read_text("utf-8")) for path in (repository / "src").rglob("*.py")}
    own = {
        name
        for tree in trees.values()
        for node in ast.walk(tree)
        for name in (
            [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        ) + ([node.attr] if isinstance(node, ast.Attribute) and _is_self(node.value) else [])
    }  # fmt: skip
    unexplained = [
        f"{path.relative_to(repository)}:{line}: {name}"
        for path, tree in trees.items()
        for line, name in _private_names(tree)
        if name not in own
        and not any("# Private:" in text for text in path.read_text("utf-8").splitlines()[line - 7 : line])
    ]
    assert unexplained == []


def test_nothing_of_hydra_is_taken_from_its_internals(repository):
    for path in (repository / "src").rglob("*.py"):
        assert "hydra._internal" not in path.read_text("utf-8"), path


def _is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _private_names(tree):
    """(line, name) of each attribute that begins with one underscore, written out or asked for by `getattr`."""
    for node in ast.walk(tree):
        name = ""
        if isinstance(node, ast.Attribute) and not _is_self(node.value):
            name = node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            asked = node.args[1]
            if node.func.id in ("getattr", "setattr", "hasattr", "delattr") and isinstance(
                asked, ast.Constant
            ):
                name = str(asked.value)
        if (
            name.startswith("_")
            and not name.startswith("__")
            and name not in ("_exit", "_is_protocol", "_fields")
        ):
            yield node.lineno, name
