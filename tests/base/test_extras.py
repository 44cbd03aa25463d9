"""Optional packages are imported in one way, which names the extra where one is missing."""

import ast
import sys
import tomllib

import pytest

from metashot.base.errors import ConfigError
from metashot.base.extras import EXTRAS, import_extra, require_extra
from metashot.icl.scoring.generation import GenerateMethod

BY_OTHERS = {
    ("src/harness/language_model.py", "lm_eval"),  # imported by the package, which has looked
    ("src/harness/__main__.py", "lm_eval"),
    *((f"src/icl/scoring/{name}.py", "lm_eval") for name in ("harness", "harness_ids", "harness_metrics")),
    ("src/icl/scoring/classifier.py", "sklearn"),  # scikit-learn asks for it
    ("src/engine/scoring/engines/server_scorer.py", "openai"),  # its maker has looked
}


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_package_is_one_line_that_names_its_extra(module, monkeypatch):
    package, extra = EXTRAS[module]
    monkeypatch.setitem(sys.modules, module, None)
    said = (
        rf"^key: needs the package {package}, which is not installed \(pip install 'metashot\[{extra}\]'\)$"
    )
    with pytest.raises(ConfigError, match=said):
        import_extra(module, "key")
    with pytest.raises(ConfigError, match=said):
        require_extra(module, "key")


def test_every_extra_installs_what_it_is_named_for(repository):
    declared = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, (package, extra) in EXTRAS.items():
        assert any(one.startswith((package, f"{package}-skinny")) for one in declared[extra]), module


def test_no_module_imports_an_optional_package_without_looking_for_it(repository):
    """All of src: an import of a package of an extra stands in a function that called `import_extra` before."""
    faults = []
    for path in sorted((repository / "src").rglob("*.py")):
        tree = ast.parse(path.read_text())
        checked = {
            (scope, call.args[0].value.partition(".")[0])
            for scope in ast.walk(tree)
            if isinstance(scope, ast.FunctionDef)
            for call in ast.walk(scope)
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "import_extra"
            and isinstance(call.args[0], ast.Constant)
        }  # fmt: skip
        for scope in ast.walk(tree):
            if isinstance(scope, ast.If) and "TYPE_CHECKING" in ast.unparse(scope.test):
                scope.body = [ast.Pass()]
        inside = {
            node: scope
            for scope in ast.walk(tree)
            if isinstance(scope, ast.FunctionDef)
            for node in ast.walk(scope)
        }
        for node in ast.walk(tree):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {one.partition(".")[0] for one in names} & set(EXTRAS):
                place = path.relative_to(repository).as_posix()
                if (inside.get(node), name) not in checked and (place, name) not in BY_OTHERS:
                    faults.append(f"{place}:{node.lineno} imports {name}")
    assert faults == []


@pytest.mark.parametrize(("metric", "module"), [("rouge_l", "rouge_score"), ("exact_match", "torchmetrics")])
def test_a_metric_whose_package_is_missing_is_refused_with_the_config(metric, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"method\.metric: needs the package"):
        GenerateMethod(name="generate", metric=metric)


def test_a_package_that_is_there_and_broken_says_how(monkeypatch):
    with pytest.raises(
        ConfigError, match=r"which cannot be imported \(cannot import name 'nothing' from peft\)"
    ):
        import_extra("peft", "key", "nothing")
