"""The packages are ours, and the tests cannot hide them."""

import data
import engine
import icl
import metaprompt


def test_each_package_is_the_one_of_this_checkout(repository):
    for package in (data, engine, icl, metaprompt):
        assert str(repository / "src") in package.__file__


def test_no_test_folder_is_a_package(repository):
    assert not list((repository / "tests").rglob("__init__.py"))
