"""The package imports quickly, offline, and without what only some of its parts need."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import condensekit

HEAVY = ("avalanche", "nni", "wandb", "matplotlib", "pytorch_lightning")
BLOCKED = f"""
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("network used")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ImportError(name + " is absent")

sys.meta_path.insert(0, Absent())
"""


def run(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    loaded = run("import sys, condensekit; print(*sys.modules)").split()
    assert not {name.partition(".")[0] for name in loaded} & {*HEAVY, "torch", "numpy", "click"}


@pytest.mark.parametrize("first", ["", "import condensekit.driver, condensekit.training.evaluation\n"])
def test_every_public_name_works_offline_without_extras(first):
    code = (
        BLOCKED
        + first
        + (
            "import condensekit as c, types\n"
            "values = {name: getattr(c, name) for name in c.__all__}\n"
            "assert [n for n, v in values.items() if isinstance(v, types.ModuleType)] == ['recipes']\n"
            "train, test = c.load('digits')\n"
            f"assert not set({HEAVY}) & set(sys.modules)\n"
            "print(len(values), len(train) + len(test))"
        )
    )
    count, digits = run(code).split()
    assert int(count) <= 30
    assert digits == "1797"


def test_command_line_help_is_light():
    code = BLOCKED + (
        "from condensekit.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    assert run(code).split()[-2:] == ["0", "False"]


def test_the_everyday_path_needs_no_extras():
    code = BLOCKED + (
        "import condensekit as ck\n"
        "train, test = ck.load('digits')\n"
        "made = ck.condense(train, 'dm encoder_network=ConvNet-w8 batch_real=4', ipc=1, steps=1)\n"
        "print(ck.evaluate(made, test, train=train, network='ConvNet-w4', networks=1))\n"
        f"assert not set({HEAVY}) & set(sys.modules)\n"
    )
    assert "| random " in run(code)


def test_the_library_writes_nothing_on_import(tmp_path):
    run(f"import os; os.chdir({str(tmp_path)!r})\nimport condensekit.driver, condensekit.training.evaluation")
    assert not list(tmp_path.iterdir())


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'condens'"):
        condensekit.condens  # noqa: B018


def test_dir_lists_the_public_names():
    assert set(condensekit.__all__) <= set(dir(condensekit))


def test_the_version_has_one_source():
    told = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "version" not in told["project"]
    assert told["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "condensekit.__version__"}
    assert condensekit.__version__ == "0.2.0"
