"""The benchmark of class-incremental learning: its cells, and what the tables make of their records."""

import argparse
import json
from dataclasses import asdict, replace

import pytest

from benchmarks import record
from benchmarks.continual import cells as benchmark
from benchmarks.continual.cells import BOUNDS, COLOUR, TELLING, cells, primary
from benchmarks.continual.run import recipe_options
from benchmarks.continual.tables import continual, streams
from benchmarks.speed.tables import loop
from condensekit.errors import CondensekitError
from condensekit.replay.study.memories import memory


def found(cell, finals, **row):
    """The record of a cell, as a run would leave it."""
    kind = memory(cell.memory)
    mean = sum(finals) / len(finals)
    return json.loads(
        json.dumps(
            {
                "continual": asdict(cell),
                "primary": primary(cell.regime, cell.data),
                "row": {
                    **{"memory": cell.memory, "regime": cell.regime, "images": 100, "nbytes": 8000, "note": kind.note},
                    **{"packed": kind.packed, "finals": [[value] for value in finals]},
                    **{"final_accuracy_mean": mean, "final_accuracy_std": 0.01, "average_accuracy_mean": mean},
                    **{"forgetting_mean": 0.1, "train_steps": 50.0, "memory_passes": 5.0},
                    **{"condense_s_per_experience": 1.0, "train_s": 2.0, **row},
                },
                "accuracy_by_experience": {"mean": [0.9, 0.8, 0.7, 0.6, mean], "std": [0.01] * 5},
                "peak_mib": {},
                "environment": {"device": "a machine", "torch": "2"},
            }
        )
    )


def of(data, regime, network="ConvNet-w32", ipc=10, experiences=5):
    wanted = (data, regime, network, ipc, experiences)
    mine = [c for c in cells("cpu") if (c.data, c.regime, c.network, c.ipc, c.experiences) == wanted]
    return {cell.memory: cell for cell in mine}


def from_scratch():
    finals = {
        "random": (0.50, 0.52, 0.49, 0.51),
        "random-equal-bytes": (0.50, 0.52, 0.49, 0.51),
        "packed-random": (0.60, 0.61, 0.59, 0.62),
        "herding": (0.70, 0.71, 0.72, 0.69),
        "jpeg-random": (0.55, 0.56, 0.57, 0.54),
        "dm": (0.65, 0.66, 0.63, 0.67),
        "m3d": (0.60, 0.62, 0.58, 0.61),
    }
    listed = of("fashionmnist", "from-scratch")
    return [found(listed[name], values) for name, values in finals.items()]


def test_what_is_compared_was_named_before():
    assert tuple(of("cifar10", "er", "ConvNet-w32", 10)) == (*COLOUR, *BOUNDS)
    assert tuple(of("cifar10", "er", "ResNet18-w8", 5)) == TELLING
    assert primary("from-scratch", "fashionmnist") == ("dm", "jpeg-random")
    assert primary("from-scratch", "cifar10") == ("jpeg-dm-9", "jpeg-random")
    assert primary("from-scratch", "cifar100") == ("m3d", "packed-random")
    groups: dict[tuple[str, str, str], set[str]] = {}
    for cell in [*cells("cpu"), *cells("gpu")]:
        groups.setdefault((cell.regime, cell.data, cell.group), set()).add(cell.memory)
        assert bool(cell.options) == memory(cell.memory).learnt
    for (regime, data, group), members in groups.items():
        assert {*primary(regime, data)} <= members or "-1x" in group


def test_a_table_shows_contrasts_verdicts_and_one_plot(tmp_path):
    text = "\n".join(continual(from_scratch(), tmp_path / "plots"))
    assert "- **primary contrast**: dm against jpeg-random +9.8 [" in text
    assert "- corrected by Holm: dm against random and random-equal-bytes +14.8 [" in text
    assert text.count("corrected by Holm") == 7  # two condensed memories, four kinds of real images
    assert "- dm is above every kind of random images: the lowest bound of the 95 % intervals is +" in text
    assert "- m3d is **not** above packed-random: the lowest bound of the 95 % intervals is -" in text
    assert "| m3d | 100 | 4 | 8,000 |" in text
    (plot,) = (tmp_path / "plots").iterdir()
    assert f"![Accuracy after each experience](plots/{plot.name})" in text
    assert 10_000 < plot.stat().st_size <= 100_000
    before = plot.stat().st_mtime_ns
    assert "\n".join(continual(from_scratch(), tmp_path / "plots")) == text
    assert plot.stat().st_mtime_ns == before
    more = from_scratch()
    more[0]["accuracy_by_experience"]["mean"][0] = 0.95
    list(continual(more, tmp_path / "plots"))
    assert plot.stat().st_mtime_ns > before


def test_what_was_tried_beside_does_not_replace_what_was_listed(tmp_path):
    records, dm = from_scratch(), of("fashionmnist", "from-scratch")["dm"]
    plain = "\n".join(continual(records, tmp_path))
    tried = dm.varied({"options": ("init=herding",), "orders": 4})
    assert tried.stem != dm.stem
    text = "\n".join(continual([*records, found(tried, (0.1, 0.2, 0.1, 0.1))], tmp_path))
    assert text.startswith(plain)
    added = text.removeprefix(plain)
    assert "Exploratory" in added
    assert "| init=herding |" in added
    assert "contrast**" not in added
    assert "is above" not in added
    alone = "\n".join(continual([found(tried, (0.1, 0.2, 0.1, 0.1))], tmp_path))
    assert "Exploratory" in alone
    assert "primary" not in alone


def test_equal_finals_in_one_experience_and_in_five_are_said_to_be_equal(tmp_path):
    at_once = [
        found(cell, (0.5, 0.52, 0.49, 0.51)) for cell in of("fashionmnist", "from-scratch", experiences=1).values()
    ]
    text = "\n".join(continual([*from_scratch(), *at_once], tmp_path))
    assert "random in 5 experiences less the same in one: nothing, to the last digit in all 4 orders" in text
    assert "dm in 5 experiences less the same in one: +14.8 [" in text


def test_options_found_by_a_search_make_another_cell_and_the_table_says_where(tmp_path, monkeypatch):
    before = of("cifar10", "er", "ResNet18-w8", 5)["hybrid"]
    monkeypatch.setitem(benchmark.TUNED, ("er", "cifar10", "ResNet18-w8", "hybrid"), {"lr": 0.1})
    after = of("cifar10", "er", "ResNet18-w8", 5)["hybrid"]
    assert after.stem == before.stem
    (tmp_path / f"{before.stem}.json").write_text(json.dumps(found(before, (0.1, 0.2, 0.1))))
    asked = argparse.Namespace(results=tmp_path, only=before.stem, list=True)
    record.fill([before], asked, None, None)
    with pytest.raises(CondensekitError, match=r"holds another cell .lr: 0.03 there, 0.1 here.: move the file away"):
        record.fill([after], asked, None, None)
    assert after.folder != before.folder
    text = "\n".join(continual([found(after, (0.1, 0.2, 0.1))], tmp_path))
    assert "real images per class, options found at 10 images per class; " in text
    at_ten = of("cifar10", "er", "ResNet18-w8", 10)["hybrid"]
    assert "found at" not in "\n".join(continual([found(at_ten, (0.1, 0.2, 0.1))], tmp_path))


def test_equal_memories_share_a_folder():
    cells = of("fashionmnist", "from-scratch")
    for one, other in (("random", "random-equal-bytes"), ("packed-random", "downscaled")):
        assert cells[one].folder == replace(cells[one], memory=other).folder
    assert cells["dm"].folder != cells["random"].folder


def test_the_table_of_loops():
    row = {"us_per_step": 123.46, "ratio": 1.2, "best_ratio": 1.1, "whole_ratio": 1.5, "ratios": [1.2]}
    asked = {"rounds": 5, "samples": 2000, "epochs": 10, "batch": 64, "memory": 200, "device": "cpu"}
    made = {**asked, "loops": {"plain": row}, "environment": {"device": "a machine", "torch": "2"}}
    text = "\n".join(loop([made, {"rows": []}]))
    assert "| plain | 123.5 | 1.20 | 1.10 | 1.50 |" in text
    assert "5 rounds; a machine, torch 2:" in text
    assert list(loop([])) == []


def test_the_table_of_streams_compares_with_the_better_of_avalanches_buffers():
    """Differences are paired by seed: 0.02, 0.03 and 0.01 have a narrow interval."""
    values = {
        "none": (0.1, 0.3, 0.2),
        "ClassBalancedBuffer": (0.5, 0.6, 0.7),
        "ExperienceBalancedBuffer": (0.4, 0.9, 0.8),
        "random": (0.42, 0.93, 0.81),
    }
    one = {
        "streams": {"data": "digits", "name": "a kind", "tasks": 5, "memory": 50, "epochs": 5, "lr": 0.01}
        | {"batch": 10, "seeds": [0, 1, 2], "steps": 30, "dm": "dm"},
        "images": [100, 50],
        "rows": [{"memory": name, "accuracies": found, "cpu_s": 6.0} for name, found in values.items()],
        "environment": {"device": "a machine", "torch": "2"},
    }
    *_, last = "\n".join(streams([one])).splitlines()
    assert last.startswith("| random | 72.0 ± 26.7 | +52.0 [")
    assert "| +2.0 [-0.5, +4.5] | 2.0 |" in last


def test_each_result_is_that_of_its_cell():
    listed = {cell.stem: json.loads(json.dumps(asdict(cell))) for cell in [*cells("cpu"), *cells("gpu")]}
    found = {path.stem: record.read(path) for path in record.RESULTS.glob("*.json")}
    mine = {stem: result["continual"] for stem, result in found.items() if "continual" in result}
    assert len(mine) > 100
    for stem, cell in mine.items():
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in cell.items()}
        assert benchmark.Cell(**given).stem == stem
        assert cell["changed"] or cell == listed[stem]


def test_options_go_to_those_memories_alone_that_have_them():
    cell = of("cifar10", "er")["jpeg-dm-9"]
    condensing = {"batch_real": 64, "init": "herding", "lr": "20"}
    assert recipe_options(cell) == {"encoder_network": "ConvNet-w32", **condensing}
    assert recipe_options(replace(cell, memory="herding", options=())) == {"encoder_network": "ConvNet-w32"}
