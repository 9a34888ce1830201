"""The examples in docstrings give what they say, and each public name has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "condensekit").rglob("*.py"))
    if ">>> " in path.read_text()
]
PACKAGES = ("condensekit", "condensekit.replay", "condensekit.nas")
PUBLIC = [f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__]
BY_MODULE = {"condensekit.nas.Architecture": "condensekit.nas.spaces.architecture"}  # an alias has no docstring


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_a_module(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_with_an_example_that_is_run(name):
    package, _, own = name.rpartition(".")
    found = (
        importlib.import_module(BY_MODULE[name])
        if name in BY_MODULE
        else getattr(importlib.import_module(package), own)
    )
    home = found.__name__ if inspect.ismodule(found) else found.__module__
    assert doctest.DocTestParser().get_examples(found.__doc__ or "")
    assert home in WITH_EXAMPLES
