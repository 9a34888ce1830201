r"""Names in files and data cannot control a terminal, nor a notebook's page.

CWE-150: git (CVE-2024-52005), pip, ls and others printed escape sequences of names that they did not choose. Here a
class is named ``\x1b[2Jowned``, with a bell, a carriage return and a change of direction.
"""

import dataclasses
import shlex

import numpy as np
import pytest
from PIL import Image

import condensekit as ck
from condensekit import tables
from condensekit.errors import CondensekitError, ConfigError, printable
from condensekit.html.tables import table
from condensekit.runs.files import read_json
from condensekit.sets.condensed import CondensedSet
from tests.cases.reliability.lines import outcome

NAME = "\x1b[2Jowned\a\r\x9b\u202e"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two classes of twelve 8x8 images; its own name and that of a class control a terminal."""
    folder = tmp_path_factory.mktemp("data") / f"photos{NAME}"
    rng = np.random.default_rng(0)
    for name in (NAME, "<script>alert(1)</script>".replace("/", "")):
        (folder / name).mkdir(parents=True)
        for place in range(12):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / name / f"{place}.png")
    return folder


def check(ended, *codes):
    code, out, err = ended
    assert code in codes, err
    for text in (out, err):
        assert all(line.isprintable() for line in text.split("\n")), repr(text)
    return out, err


LINES = [
    "condense --data {data} --encoder-network ConvNet-w8-d1 --ipc 1 --steps 1 --batch-real 4 --out {out}",
    "condense --data {data} --ipc 99 --steps 1 --out {out}",  # the class is too small: the error names it
    "select --data {data} --selection kmeans --ipc 1 --out {out}",
    "code {run} --ipc 1 --out {out}",
    "code {run} --ipc 30 --out {out}",
    "evaluate {run} --networks 1 --network ConvNet-w8-d1 --against none",
    "replay --data {data} --experiences 2 --ipc 1 --memory random --orders 1 --network ConvNet-w8-d1 --train-epochs 1 "
    "--out {out}",
    "replay --data {data} --experiences 2 --ipc 99 --memory random --orders 1 --network ConvNet-w8-d1 --out {out}",
    "search --data {data} --space convnet-small --rankers params --trials 2 --engine sequential --out {out}",
    "search --data {data} --space convnet-small --rankers dm --ipc 99 --trials 2 --engine sequential --out {out}",
    "export {run} --to {out}",
    "inspect {run}",
    "inspect {run}/no",
    "select --data {data}/no --ipc 1 --out {out}",
]


@pytest.mark.parametrize("line", LINES)
def test_no_command_prints_what_controls_a_terminal(cli, photos, tmp_path, line):
    run = tmp_path / f"run{NAME}"
    words = [
        word.format(data=photos, run=run, out=tmp_path / f"out{NAME}") if "{" in word else word
        for word in shlex.split(line)
    ]
    if "{run}" in line:
        check(cli("select", "--data", photos, "--ipc", 2, "--out", run), 0)
    check(cli(*words), 0, 2)


@pytest.mark.parametrize(
    "words",
    [["--\x1b[2J"], ["\x1b[2J"], ["inspect", "--\x1b[2J"], ["inspect", "x", "\udcff"], ["select", "--ipc", "\a"]],
)
def test_errors_of_the_command_line_itself(words):
    ended = outcome(words)
    check((ended.code, "", ended.err), 2)


def test_what_a_set_says_of_itself(cli, photos, tmp_path):
    run = tmp_path / "run"
    check(cli("select", "--data", photos, "--ipc", 1, "--out", run), 0)
    made = CondensedSet.load(run / "set.safetensors")
    told = {
        **made.provenance,
        "selection": f"{NAME}<script>",
        "config": {"name": f"{NAME}<script>", "lr": "1\nfinished"},
    }
    dataclasses.replace(made, provenance=told).save(run / "set.safetensors", overwrite=True)
    out, _ = check(cli("inspect", run), 0)
    assert "1\\nfinished" in out
    loaded = CondensedSet.load(run / "set.safetensors")
    assert repr(loaded).isprintable()
    assert "<script>" not in loaded._repr_html_()
    found = ck.evaluate(loaded, ck.load(photos)[1], against=None, network="ConvNet-w8-d1", networks=1)
    assert all(line.isprintable() for line in str(found).split("\n"))
    assert "<script>" not in found._repr_html_()
    assert "\x1b" not in found._repr_html_()


def test_errors_of_the_library_and_tables():
    assert str(ConfigError(NAME)).isprintable()
    assert str(CondensekitError(f"a\n{NAME}")).isprintable()
    assert tables.markdown(["a"], [[f"{NAME}\n|"]]).count("\n") == 2
    assert "\x1b" not in table(["a"], [[NAME]], NAME)
    assert printable("Größe 名前 é 😀") == "Größe 名前 é 😀"


def test_the_record_keeps_the_name(cli, photos, tmp_path):
    """What is read by programs is exact."""
    check(cli("select", "--data", photos, "--ipc", 1, "--out", tmp_path / "run"), 0)
    assert read_json(tmp_path / "run" / "config.json")["data"]["name"] == str(photos)
    assert NAME in CondensedSet.load(tmp_path / "run" / "set.safetensors").spec.class_names.values()
