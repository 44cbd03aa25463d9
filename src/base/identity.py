"""What decides a stored value: of any component one JSON value, made of its class, its fields and its source.

Everything that stores anything digests `identity_of` of the components that made it, so that no list of deciding keys
stands anywhere: a field decides, unless its declaration says that it does not and why::

    batch_size: Annotated[Positive, NoEffect("the scores are equal up to rounding")] = 8

Code of the user's own is part of the identity: the text of the module that defines a class or function, and of the
modules of theirs that it imports. Code of this package is not, since a comment of ours must not throw a user's cells
away; it is versioned by hand (`SCORING_VERSION` of `icl.scoring.cell_data` and the like, docs/trust.md). Only functions
that are values themselves, as the formula of a scoring rule is, count with their own text.
"""

from __future__ import annotations

import ast
import copyreg
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cached_property, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

from metashot.base.components.targets import LIBRARIES, trusted_packages
from metashot.base.errors import ConfigError
from metashot.base.files import sha256_once
from metashot.base.json_text import digest_of

T = TypeVar("T")
_OURS = __name__.partition(".")[0]
_STANDS_FOR = "stands_for"


@dataclass(frozen=True, slots=True)
class NoEffect:
    """Mark of a field or parameter that changes no stored value: `Annotated[int, NoEffect("why")]`.

    Attributes:
        why: the reason, for readers of the declaration.
    """

    why: str


@dataclass(frozen=True, slots=True)
class ByContent:
    """Mark of a text field that may name a file or folder: `Annotated[str, ByContent()]`. What stands there decides.

    A `Path` needs no mark. A text that names nothing that exists decides by itself.
    """


def identity_of(component: Any) -> Any:
    """What of a component decides values, as a JSON value that no hash seed, machine or path of code is part of.

    Args:
        component: a dataclass object, a plain value or a container of them, an enum member, a class or function, a
            `partial`, a path (its content), an array, or any object whose state Python can read.

    Raises:
        ConfigError: an object without readable state, such as an open file.
    """
    return _identity(component, ())


def deciding_fields(component: Any) -> dict[str, Any]:
    """The identities of a dataclass object's fields by name, without those that have no effect."""
    return _fields(component, ())


def stands_for(name: str) -> Callable[[T], T]:
    """Let identities call a function by the class whose objects it makes."""

    def mark(function: T) -> T:
        vars(function)[_STANDS_FOR] = name
        return function

    return mark


def marked(target: Any, mark: type = NoEffect) -> dict[str, Any]:
    """The fields of a class, or parameters of a function, that carry a mark, which a subclass need not repeat."""
    return dict(_marked(target, mark))


def without_marks(kind: Any) -> Any:
    """An annotation without the marks of this module."""
    notes = getattr(kind, "__metadata__", ())
    kept = [note for note in notes if not isinstance(note, NoEffect | ByContent)]
    if len(kept) == len(notes):
        return kind
    plain = get_args(kind)[0]
    for note in kept:
        plain = Annotated[plain, note]
    return plain


@lru_cache(maxsize=2048)
def _marked(target: Any, mark: type) -> tuple[tuple[str, Any], ...]:
    sources: list[Any] = [target]
    if inspect.isclass(target):
        sources = [*reversed(target.__mro__)]
        sources += [
            kind.__init__ for kind in target.__mro__ if "__init__" in vars(kind) and not is_dataclass(kind)
        ]
    found: dict[str, Any] = {}
    for source in sources:
        for name, kind in _hints(source).items():
            for one in getattr(kind, "__metadata__", ()):
                if isinstance(one, mark):
                    found[name] = one
    return tuple(found.items())


def _hints(source: Any) -> dict[str, Any]:
    try:
        return get_type_hints(source, include_extras=True)
    except (
        NameError,
        TypeError,
        AttributeError,
    ):  # names for type checkers only, or none at all: everything decides
        return {}


def _identity(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Enum):
        return _identity(value.value, above)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, PurePath):
        return _path(Path(value))
    if id(value) in above:
        return {"again": len(above) - above.index(id(value))}
    above = (*above, id(value))
    if isinstance(value, list | tuple):
        return [_identity(item, above) for item in cast(tuple[Any, ...], value)]
    if isinstance(value, Mapping):
        pairs = [[_identity(key, above), _identity(item, above)] for key, item in cast(Any, value).items()]
        return {"map": pairs}  # in its order, which a rule may go by
    if isinstance(value, set | frozenset):
        return {"set": sorted((_identity(item, above) for item in cast(Any, value)), key=digest_of)}
    if isinstance(value, bytes | bytearray):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, partial):
        return _call(cast("partial[Any]", value), above)
    if isinstance(value, type):
        return _class(cast("type[Any]", value))
    if isinstance(value, FunctionType):
        return _function(value, above)
    if isinstance(value, MethodType):
        return {"method": value.__name__, "of": _identity(value.__self__, above)}
    if isinstance(value, BuiltinFunctionType):
        return {"function": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, ModuleType):
        return {"module": value.__name__, **_source(value.__name__)}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return {"array": str(value.dtype), "values": _identity(value.tolist(), above)}
    if _has_fields(value):
        return {**_class(type(value)), "fields": _fields(value, above)}
    return _reduced(value, above)


def _has_fields(value: Any) -> bool:
    return is_dataclass(value) or hasattr(type(value), "model_fields")


def _fields(value: Any, above: tuple[int, ...]) -> dict[str, Any]:
    kind = type(value)
    names = [one.name for one in fields(value)] if is_dataclass(value) else list(kind.model_fields)
    own = [name for name in getattr(value, "__dict__", {}) if not name.startswith("__") and name not in names]
    names += [name for name in own if not isinstance(getattr(kind, name, None), cached_property)]
    silent, by_content = marked(kind), marked(kind, ByContent)
    found = {name: getattr(value, name) for name in names if name not in silent}
    return {
        name: _identity(_named_files(item) if name in by_content else item, above)
        for name, item in found.items()
    }


def _named_files(value: Any) -> Any:
    """The value with paths for the texts in it that name what exists."""
    if isinstance(value, str):
        path = Path(value).expanduser()
        return path if path.exists() else value
    if isinstance(value, list | tuple):
        return [_named_files(item) for item in cast(tuple[Any, ...], value)]
    return value


def _path(path: Path) -> Any:
    """A file by its content, a folder by the names and contents of its files, and what does not exist by its name."""
    path = path.expanduser()
    if path.is_file():
        return {"file": sha256_once(path)}
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {
            "folder": digest_of([[file.relative_to(path).as_posix(), sha256_once(file)] for file in files])
        }
    return str(path)


def _call(call: partial[Any], above: tuple[int, ...]) -> Any:
    """What is called, and its arguments with the defaults of those that are not given."""
    target: Any = call.func
    if name := getattr(target, _STANDS_FOR, None):
        given, whose = dict(call.keywords), {"class": name}
    else:
        given, whose = {**_defaults(target), **call.keywords}, _identity(target, above)
    silent = marked(target)
    arguments = {key: _identity(item, above) for key, item in given.items() if key not in silent}
    return {"call": whose, "given": _identity(call.args, above), "arguments": arguments}


def _defaults(target: Any) -> dict[str, Any]:
    """Of our code and the user's; what a library does without an argument is its own affair."""
    module = str(getattr(target, "__module__", ""))
    if not (_is_own(module) or _is_ours(module)):
        return {}
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
    return {name: one.default for name, one in parameters.items() if one.default is not one.empty}


def _class(kind: type[Any]) -> dict[str, Any]:
    """Its name, and the source of the bases that are the user's own."""
    modules = {base.__module__ for base in kind.__mro__ if _is_own(base.__module__)}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **_source(*modules, of=kind)}


def _function(function: FunctionType, above: tuple[int, ...]) -> dict[str, Any]:
    """Its name, its text, and the values that it carries: defaults and what it closes over."""
    module = str(function.__module__)
    known = {"function": f"{module}.{function.__qualname__}"}
    text = _source(module, of=function) if _is_own(module) else _texts_of(function)
    values = [
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
        *_closed_over(function),
    ]
    # Two lambdas of one line have one name and one text.
    words = list(_words_of(function.__code__)) if "<lambda>" in function.__qualname__ else []
    return {**known, **text, "words": words, "values": [_identity(one, above) for one in values]}


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents


def _words_of(code: Any) -> Iterator[str]:
    yield from code.co_names
    yield from (repr(one) for one in code.co_consts if isinstance(one, bool | int | float | str))


def _texts_of(function: FunctionType) -> dict[str, str]:
    """The text of a function of ours and of those of its module that it names; other libraries have versions."""
    if not _is_ours(str(function.__module__)):
        return {}
    texts: dict[str, str] = {}
    waiting = [function]
    while waiting:
        one = waiting.pop()
        if one.__qualname__ in texts or one.__module__ != function.__module__:
            continue
        texts[one.__qualname__] = _own_text(one)
        named = (one.__globals__.get(name) for name in one.__code__.co_names)
        waiting += [other for other in named if isinstance(other, FunctionType)]
    return {"source": digest_of(texts)}


def _own_text(part: Any) -> str:
    """The text of a class or function, or what its code consists of where no file holds it."""
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        functions = vars(part).values() if inspect.isclass(part) else [part]
        codes = [one.__code__ for one in functions if isinstance(one, FunctionType)]
        return repr([(one.co_code.hex(), *_words_of(one)) for one in codes])


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _OURS


def _is_own(module: str) -> bool:
    """Whether a module is the user's: neither ours nor of a library that a config may name, nor Python's."""
    root = module.partition(".")[0]
    return root not in LIBRARIES and root not in sys.stdlib_module_names and root != "builtins"


def _source(*modules: str, of: Any = None) -> dict[str, str]:
    """Digest of the texts of the user's modules among these, with those of theirs that they import."""
    texts: dict[str, str] = {}
    waiting = [name for name in modules if _is_own(name)]
    if not waiting:
        return {}
    while waiting:
        name = waiting.pop()
        if name in texts:
            continue
        text = _text_of_module(name)
        texts[name] = (
            text if text is not None else (_own_text(of) if name in modules and of is not None else "")
        )
        waiting += [other for other in _imported(texts[name], _package_of(name)) if _is_followed(other)]
    return {"source": digest_of(texts)}


def _package_of(module: str) -> str:
    found = sys.modules.get(module)
    return str(getattr(found, "__package__", None) or "")


def _text_of_module(name: str) -> str | None:
    path = _file_of(name)
    return None if path is None else path.read_text("utf-8", errors="replace")


def _file_of(name: str) -> Path | None:
    """The Python file of a module, which is never imported for this; None for those without."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
        return _python_file(Path(origin)) if origin else None
    root, *inner = name.split(".")
    origin, folders = _places(root)
    if not inner:
        return _python_file(Path(origin)) if origin else None
    candidates = [Path(folder, *inner) for folder in folders]
    files = [file for one in candidates for file in (one.with_name(f"{one.name}.py"), one / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def _python_file(path: Path) -> Path | None:
    return path if path.suffix == ".py" and path.is_file() else None


@lru_cache(maxsize=256)
def _places(root: str) -> tuple[str | None, tuple[str, ...]]:
    """File and folders of a top-level module or package."""
    try:
        spec = find_spec(root)
    except (ImportError, ValueError):  # such as `__main__`
        return getattr(sys.modules.get(root), "__file__", None), ()
    return (None, ()) if spec is None else (spec.origin, tuple(spec.submodule_search_locations or ()))


@lru_cache(maxsize=256)
def _imported(text: str, package: str) -> tuple[str, ...]:
    """Dotted names of what a module's text imports, anywhere in it."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ()
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name: None for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import name`: the name may be a module of the package.
            found |= dict.fromkeys([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return tuple(name for name in found if name)


_INSTALLED = {"site-packages", "dist-packages"}
"""Folders of installed libraries."""


def _is_followed(name: str) -> bool:
    """Whether an imported module is the user's own: of a package that they trust, or of no installed one."""
    root = name.partition(".")[0]
    if not _is_own(name) or _file_of(name) is None:
        return False
    origin, folders = _places(root)
    places = [Path(place) for place in (origin, *folders) if place]
    installed = any(_INSTALLED & set(place.parts) for place in places)
    return root in trusted_packages() or not installed


def _reduced(value: Any, above: tuple[int, ...]) -> Any:
    """Any other object: what Python would need to make it again, read and not run."""
    kind = type(value)
    try:
        reduce = copyreg.dispatch_table.get(kind)
        made: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{kind.__module__}.{kind.__qualname__}",
            f"has no state that would tell it from another one ({error})",
            "hold plain values in the component, or mark the field as NoEffect where it decides nothing",
        ) from None
    if isinstance(made, str):
        return {"name": f"{kind.__module__}.{made}"}
    _, arguments, *rest = made
    silent = marked(kind)
    state: list[Any] = [part for part in arguments if part is not kind]
    for part in rest:
        # Objects with slots have a pair of states; lists and mappings give their items one by one.
        halves = part if isinstance(part, tuple) else (part,)
        for half in cast(tuple[Any, ...], halves):
            if isinstance(half, Mapping):
                half = {key: item for key, item in cast(Any, half).items() if key not in silent}
            state.append(list(cast(Any, half)) if isinstance(half, Iterator) else half)
    return {**_class(kind), "state": [_identity(part, above) for part in state if part is not None]}
