import pytest

import condensekit as ck
from condensekit.compute import Machine, machine
from condensekit.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "bfloat16", "features", "expected"),
    [
        ("auto", True, True, "mixed"),
        ("auto", True, False, "fp32"),
        ("auto", False, True, "fp32"),
        ("fp32", True, True, "fp32"),
        ("bf16", False, True, "bf16"),
    ],
)
def test_the_precision_of_a_condensation(monkeypatch, given, bfloat16, features, expected):
    monkeypatch.setattr(machine, "has_bfloat16", lambda: bfloat16)
    assert Machine("cpu", given).condensing(features).precision == expected
    assert Machine("cpu", "auto").resolved().precision == "fp32"  # of selections and trainings


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize(("recipe", "embeds"), [("dm batch_real=4", True), ("krr batch_real=4", False)])
def test_condense_takes_it_and_an_explicit_machine_does_not(monkeypatch, bfloat16, recipe, embeds):
    monkeypatch.setattr(machine, "has_bfloat16", lambda: bfloat16)
    train, _ = ck.load("digits")
    made = ck.condense(train, f"{recipe} encoder_network=ConvNet-w4", ipc=1, steps=1).set
    assert made.provenance["plan"]["precision"] == ("mixed" if bfloat16 and embeds else "fp32")
    explicit = ck.condense(train, f"{recipe} encoder_network=ConvNet-w4", ipc=1, steps=1, machine=Machine("cpu"))
    assert explicit.set.provenance["plan"]["precision"] == "fp32"


def test_a_wrong_precision_lists_them_all():
    with pytest.raises(ConfigError, match="auto, fp32, mixed, bf16"):
        Machine(precision="fp16")


def test_it_is_known_whether_the_processor_has_instructions_for_bfloat16():
    assert machine.has_bfloat16() in (True, False)
