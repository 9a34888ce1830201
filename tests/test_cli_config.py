"""``--config FILE.toml``: options of a command from a file."""

import json
import sys

import pytest

from condensekit.cli.kinds import listed
from condensekit.runs.files import read_json

TINY = """
steps = 2
[condense]
data = "digits"
ipc = 1
batch_real = 8
encoder-network = "ConvNet-w8-d1"
set = ["momentum=0.4"]
augment = ["color", "crop"]
minutes-unused = 1
[evaluate]
networks = 1
network = ["ConvNet-w8-d1"]
against = "none"
""".replace("minutes-unused = 1\n", "")


@pytest.fixture
def file(tmp_path):
    """Write a file of options."""

    def write(text=TINY):
        path = tmp_path / "options.toml"
        path.write_text(text)
        return path

    return write


def test_a_file_gives_options_and_the_command_line_overrides_it(cli, file, tmp_path):
    out = tmp_path / "run"
    code, printed, err = cli("condense", "--config", file(), "--steps", 3, "--set", "momentum=0.3", "--out", out)
    assert code == 0, err
    assert "finished 3 steps" in printed
    config = read_json(out / "config.json")
    assert config["name"] == "dm momentum=0.3 batch_real=8 encoder_network=ConvNet-d1-w8 augment=color,crop"
    env = read_json(out / "env.json")
    assert env["command"]["options"]["ipc"] == "1"
    assert "--config" not in env["argv"]
    code, _, err = cli(*env["argv"][1:-1], tmp_path / "again")
    assert code == 0, err
    assert read_json(tmp_path / "again/config.json")["method"] == config["method"]
    code, _, err = cli("condense", "--resume", "--out", out)
    assert code == 0, err
    code, printed, err = cli("evaluate", out, "--config", file(TINY.replace("steps = 2", "")), "--json")
    assert code == 0, err
    assert json.loads(printed)["rows"][0]["networks"] == 1


def test_all_that_is_wrong_is_listed(cli, file, tmp_path):
    text = (
        'ipc = "10"\niterations = 5\nper_class = 3\nseed = true\nnested = 1\naugment = ["color", 3]\nlr = "fast"\n'
        "trust-local-copy = true\nresume = true\ndata = 3\n[condence]\n[condense]\nimage_size = 3.5\nimage-size = 4\n"
    )
    code, out, err = cli("condense", "--config", file(text), "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    for part in (
        "ipc takes a whole number, got '10'",
        "unknown option 'iterations' of condense. Did you mean 'steps'?",
        "unknown option 'per-class' of condense. Did you mean 'ipc'?",
        "seed takes a whole number, got True",
        "nested takes true or false, got 1",
        "augment takes a list of texts, got ['color', 3]",
        "lr takes a number, got 'fast'",
        "give --trust-local-copy on the command line",
        "give --resume on the command line",
        "data takes a text in quotes, got 3",
        "unknown command [condence]. Did you mean 'condense'?",
        "image-size is given 2 times",
    ):
        assert part in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ipc = ", "is no TOML: Invalid value"),
        ("[" * 5000, "is no TOML"),
        ("ipc = 0", "Invalid value for '--ipc': 0 is not in the range: at least 1 and at most 100,000"),
        ("ipc = 1\nlr = inf", "lr must be positive"),
        ("ipc = 99999999999999999999", "takes a whole number of 64 bits, got '99999999999999999999'"),
        ("ipc = 1\nworkers = 2\ndevice = 'gpu'", "Did you mean 'cuda'"),
        ("ipc = 1\nsplits = 'no'", "splits takes true or false, got 'no'"),
        ("ipc = [1]", "ipc takes a whole number, got [1]"),
        ("ipc = 1979-05-27", "ipc takes a whole number"),
        ("ipc.x = 3", "unknown command [ipc]"),
    ],
)
def test_bad_files(cli, file, tmp_path, text, says):
    code, _, err = cli("condense", "--config", file(text), "--data", "digits", "--steps", 1, "--out", tmp_path / "run")
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_read(cli, tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff")
    for name, says in (("none", "No such file"), (".", "Is a directory"), ("bytes", "is no TOML"), ("", "it is empty")):
        path = name and tmp_path / name
        code, _, err = cli("condense", "--config", path, "--out", tmp_path / "run")
        assert (code, says in err) == (2, True), err
    code, _, err = cli("condense", "--config", "/dev/zero", "--out", tmp_path / "run")
    assert (code, "is larger than a file of options" in err) == (2, True)


@pytest.mark.parametrize(
    "text", ['method = "brought:Method"', 'set = ["init=brought:Method"]', 'init = "brought:Method"']
)
def test_a_file_names_no_code(cli, file, tmp_path, monkeypatch, text):
    """A file of options may come from somebody else, with a module beside it; see the cases of foreign code."""
    (tmp_path / "brought.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    words = ("condense", "--config", file(text), "--data", "digits", "--ipc", 1, "--steps", 1, "--out", "run")
    code, _, err = cli(*words)
    sys.modules.pop("brought", None)
    assert (code, "is not built in: give --" in err) == (2, True), err
    assert not (tmp_path / "ran").exists()


def test_names_with_commas_stay_names(cli, file, tmp_path):
    names = ["dm augment=color,crop", "random"]
    text = f'data = "digits"\nipc = 1\nmemory = {json.dumps(names)}\n[replay]\nregime = ["err"]\n'
    code, _, err = cli("replay", "--config", file(text), "--out", tmp_path / "run")
    assert (code, "unknown regime 'err'" in err, "memory" in err) == (2, True, False), err
    assert listed("'dm augment=color,crop',random") == names
