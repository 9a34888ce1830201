"""Code of your own: the definitions that objects use, outside installed packages, each with a checksum.

A definition is a statement of a module that gives or changes a name: a class, a function, a constant. Comments, layout
and documentation strings do not count.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import linecache
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from condensekit.errors import ConfigError

LOADED: ContextVar[dict[str, str] | None] = ContextVar("loaded", default=None)
"""Code of the objects that the present command imported by ``module:object``; None outside a command."""
MAX_NAMED = 3  # largest number of changed definitions in an error
_INSTALLED = {"site-packages", "dist-packages"}
_PLACES = [Path(__file__).resolve().parents[1], *(Path(sysconfig.get_path(n)).resolve() for n in ("stdlib", "purelib"))]
_Statement = tuple[ast.stmt, frozenset[str]]  # with the names that it gives or changes


def code_of(*values: Any) -> dict[str, str]:
    """Checksums of all definitions that values use, by ``module.name``.

    The classes and functions of which the values are made are followed into all modules that are not installed: base
    classes, functions, constants. A module that is imported as a whole counts as a whole. Code without a file, such as
    that of a notebook, is not followed.
    """
    found: dict[str, str] = {}
    for used in _parts(values, set()):
        if module := sys.modules.get(used.__module__ or ""):
            name = used.__qualname__.partition(".")[0]
            _follow(module, name if name.isidentifier() else _giving(module, used), found)
    return dict(sorted(found.items()))


def refuse_edited(
    what: str, found: Mapping[str, str], here: Mapping[str, str], way_out: str = "undo the edit, or use another folder"
) -> None:
    """Raise ConfigError if code differs from the code that made results.

    Args:
        what: The beginning of the error, which describes the existing results.
        found: The code that made them, see :func:`code_of`; empty: unknown.
        here: The present code.
        way_out: The end of the error.
    """
    names = [name for name in sorted({*found, *here}) if found.get(name) != here.get(name)] if found else []
    if names:
        states = ["is new" if n not in found else "is gone" if n not in here else "differs" for n in names]
        changed = [f"{name} {state}" for name, state in zip(names, states, strict=True)]
        more = f", and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        listed = ", ".join(changed[:MAX_NAMED]) + more
        raise ConfigError(f"{what}, by code that was edited or replaced since ({listed}): {way_out}")


def _parts(value: Any, met: set[int]) -> Iterator[Any]:
    """All classes and functions of which a value is made."""
    if id(value) in met or value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return
    met.add(id(value))
    inner: Any = ()
    if isinstance(value, type):
        yield from value.__mro__
    elif isinstance(value, types.FunctionType):
        yield value
        inner = [value.__defaults__, value.__kwdefaults__, vars(value), *map(_content, value.__closure__ or ())]
    elif isinstance(value, functools.partial):
        inner = value.func, value.args, value.keywords
    elif isinstance(value, types.MethodType):
        inner = value.__self__, value.__func__
    elif isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = value
    elif not isinstance(value, types.ModuleType):
        inner = type(value), getattr(value, "__dict__", None)
    for one in inner:
        yield from _parts(one, met)


def _content(cell: types.CellType) -> Any:
    with contextlib.suppress(ValueError):  # an empty cell
        return cell.cell_contents


def _giving(module: types.ModuleType, function: Any) -> str:
    """A name that the statement of a lambda gives; empty: none."""
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", 0)
    inside = (names for node, names in _statements(module) if node.lineno <= line <= (node.end_lineno or 0))
    return min(next(inside, ()), default="")


def _own(module: types.ModuleType) -> bool:
    """Whether a module is neither installed nor built in."""
    file = getattr(module, "__file__", None)
    folders = Path(str(file)).resolve().parents
    return bool(file) and not any(folder in _PLACES or folder.name in _INSTALLED for folder in folders)


def _follow(module: types.ModuleType | None, name: str, found: dict[str, str]) -> None:
    """Add the definitions of a name in a module, and all that they use; of the name ``*``: of the whole module."""
    if module is None or f"{module.__name__}.{name}" in found or not _own(module):
        return
    statements = _statements(module)
    nodes = [node for node, names in statements if name in names or name == "*"]
    if not nodes:  # a name of Python, or of a module from which all names are imported
        stars = [one for node, _ in statements for one in _imports(node) if one[2] == "*"]
        for _, base, _, level in stars:
            _import(module, base, name, level, found)
        return
    found[f"{module.__name__}.{name}"] = _sum(nodes, name)
    calls = [node for node, names in statements if not names]
    if calls and module.__name__ != "__main__":  # the calls of a program are its work
        found[f"{module.__name__}.()"] = _sum(calls, "")
    for node in nodes:
        for given, base, inner, level in _imports(node):
            if name in (given, "*") or not isinstance(node, (ast.Import, ast.ImportFrom)):
                _import(module, base, inner, level, found)
        for leaf in ast.walk(node) if name != "*" else ():
            if isinstance(leaf, ast.Name):
                _follow(module, leaf.id, found)


def _imports(node: ast.stmt) -> Iterator[tuple[str, str, str | None, int]]:
    """Imports in a statement: the given name, the module, the name in it (None: all of it), the level of the folder."""
    for leaf in ast.walk(node):
        if isinstance(leaf, ast.Import):
            for alias in leaf.names:
                yield alias.asname or alias.name.partition(".")[0], alias.name, None, 0
        elif isinstance(leaf, ast.ImportFrom):
            for alias in leaf.names:
                yield alias.asname or alias.name, leaf.module or "", alias.name, leaf.level


def _import(module: types.ModuleType, base: str, inner: str | None, level: int, found: dict[str, str]) -> None:
    """Follow an import of a module; only modules that are loaded have been used."""
    with contextlib.suppress(ImportError):  # a relative import outside a package
        name = importlib.util.resolve_name("." * level + base, module.__package__ or "")
        if inner is not None:
            _follow(sys.modules.get(name), inner, found)
            name = f"{name}.{inner}"
        parts = name.split(".") if inner is None or name in sys.modules else []
        for end in range(1 if inner is None else len(parts), len(parts) + 1):
            _follow(sys.modules.get(".".join(parts[:end])), "*", found)


def _statements(module: types.ModuleType) -> tuple[_Statement, ...]:
    file = str(module.__file__)
    linecache.checkcache(file)
    return _parsed("".join(linecache.getlines(file)))


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[_Statement, ...]:
    """The statements of a module without documentation strings, and without the part that runs it as a program."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # edited since it was imported
        return ()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body[:1] = [] if isinstance(node, ast.Module) else [ast.Pass()]
    return tuple((node, frozenset(_names(node))) for node in tree.body if not _runs(node))


def _runs(node: ast.stmt) -> bool:
    """Whether a statement is ``if __name__ == "__main__":``."""
    return isinstance(node, ast.If) and ast.unparse(node.test).replace("'", '"') == '__name__ == "__main__"'


def _names(node: ast.stmt) -> Iterator[str]:
    """The names that a statement gives, or of which it changes an attribute or an entry."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name
        return
    for leaf in ast.walk(node):
        if isinstance(leaf, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield leaf.name
        elif isinstance(leaf, (ast.Name, ast.Attribute, ast.Subscript)) and not isinstance(leaf.ctx, ast.Load):
            base: ast.expr = leaf
            while isinstance(base, (ast.Attribute, ast.Subscript)):
                base = base.value
            if isinstance(base, ast.Name):
                yield base.id
    yield from (given for given, *_ in _imports(node))


def _sum(nodes: list[ast.stmt], name: str) -> str:
    """Checksum of the statements that give a name; of an import only that of this name counts."""
    texts: list[str] = []
    for node in nodes:
        imported = [one for one in _imports(node) if one[0] == name]
        whole = not isinstance(node, (ast.Import, ast.ImportFrom)) or not imported
        texts += [ast.unparse(node)] if whole else map(str, imported)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
