"""The package is ours, and the tests cannot hide it."""

import metashot


def test_the_package_is_the_one_of_this_checkout(repository):
    assert str(repository / "src") in metashot.__file__


def test_no_test_folder_is_a_package(repository):
    assert not list((repository / "tests").rglob("__init__.py"))
