import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch

from condensekit.compute import Compute, Machine, Spent
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.progress import Progress, Stage
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import KMeans, Random
from condensekit.selection.embeddings import Pixels
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.stats import paired_interval
from condensekit.testing import shapes
from condensekit.training.augment import Augmentation
from condensekit.training.evaluation import Candidate, Evaluation, _wide, evaluate
from condensekit.training.lessons import outputs, targets_for
from condensekit.training.train import TrainProtocol, class_indices

TINY = TrainProtocol("tiny", epochs=4, full_epochs=2, batch=16, lr=0.05, augmentation=None)
NETS = (ConvNet(width=8),)
TEST = shapes(15)


@pytest.fixture
def compute():
    with Compute(Machine("cpu", chunk=8, workers=2)) as compute:
        yield compute


@pytest.fixture
def sets(compute):
    return tuple(selected_set(TEST, Random(), 2, Draw(seed), compute) for seed in range(3))


@pytest.fixture
def kmeans(compute):
    return tuple(selected_set(TEST, KMeans(Pixels()), 2, Draw(seed), compute) for seed in range(3))


def run(candidates, compute, test=TEST, **options):
    options = {"networks": 2, "network": NETS, "protocol": TINY, **options}
    return evaluate(candidates, test, compute=compute, **options)


def test_rows_hold_what_the_statistics_say(compute, sets, kmeans):
    result = run([Candidate("random", sets), Candidate("kmeans", kmeans)], compute)
    random, ours = result.rows
    assert (ours.set, ours.network, ours.ipc, ours.unit) == ("kmeans", "ConvNet-w8", 2, "set")
    assert (ours.sets, ours.networks, ours.n) == (3, 2, 6)
    assert (ours.epochs, ours.steps) == (4, 4)
    assert ours.nbytes == kmeans[0].nbytes
    assert ours.wall_s > 0
    assert ours.peak_mib > 50
    flat = torch.tensor(ours.accuracies, dtype=torch.float64)
    assert ours.accuracy_mean == pytest.approx(flat.mean().item())
    assert ours.accuracy_std == pytest.approx(flat.mean(1).std().item())
    difference, interval, _ = paired_interval(ours.accuracies, random.accuracies)
    assert ours.difference == difference
    assert (ours.reference, random.reference) == ("random", None)
    assert ours.ci95 == list(interval)
    assert random.difference is None
    assert random.ci95 is None
    assert json.loads(json.dumps(result.to_json(), allow_nan=False)) == result.to_json()
    assert result.to_json()["protocol"]["name"] == "tiny"
    assert result.to_json()["environment"]["torch"]


def test_fewer_than_three_sets_spread_over_networks(compute, sets):
    (row,) = run([Candidate("random", sets[:2])], compute).rows
    assert row.unit == "network"
    flat = torch.tensor(row.accuracies, dtype=torch.float64)
    assert row.accuracy_std == pytest.approx(flat.flatten().std().item())
    (row,) = run([Candidate("random", sets[:1])], compute, networks=1).rows
    assert row.accuracy_std == 0


def test_a_network_does_not_depend_on_what_else_is_trained(compute, sets, kmeans):
    many = run([Candidate("kmeans", kmeans), Candidate("random", sets)], compute, networks=3)
    with Compute(Machine("cpu", chunk=8, workers=1)) as one:
        few = run([Candidate("random", sets[1:])], one, networks=2)
    assert [row[:2] for row in many.rows[1].accuracies[1:]] == few.rows[0].accuracies
    later = run([Candidate("random", sets)], compute, networks=2, seed=1)
    assert [row[1:] for row in many.rows[1].accuracies] == later.rows[0].accuracies


def test_each_architecture_is_compared_with_itself(compute, sets, kmeans):
    nets = (*NETS, ResNet18(width=4))
    result = run([Candidate("random", sets), Candidate("kmeans", kmeans)], compute, networks=1, network=nets)
    names = [(row.network, row.set) for row in result.rows]
    assert names == [(net.name, name) for net in nets for name in ("random", "kmeans")]
    for random, ours in (result.rows[:2], result.rows[2:]):
        expected = paired_interval(ours.accuracies, random.accuracies)[0]
        assert ours.difference == expected


def test_a_reference_of_another_size_is_not_compared_with(compute, sets):
    other = selected_set(TEST, Random(), 3, Draw(0), compute)
    rows = run([Candidate("random", sets), Candidate("mine", (other,))], compute, networks=1).rows
    assert rows[1].difference is None
    rows = run([Candidate("random", sets), Candidate("mine", sets)], compute, networks=1, reference="mine").rows
    assert rows[0].difference == 0
    (row,) = run([Candidate("random", sets)], compute, networks=1, reference=None).rows
    assert row.difference is None


def test_a_whole_data_set_trains_for_its_own_epochs(compute):
    (row,) = run([Candidate("full", (TEST,))], compute, protocol=replace(TINY, steps=1)).rows
    assert (row.ipc, row.epochs, row.steps) == (None, 2, 2 * -(-len(TEST) // 16))
    assert row.nbytes == len(TEST) * (3 * 8 * 8 + 8)


def test_packed_images_buy_no_training(compute, sets):
    images, labels = sets[0].decode()
    packed = CondensedSet.from_images(images, labels, TEST.spec, formation=Formation(factor=2))
    candidates = [Candidate("random", sets[:1]), Candidate("packed", (packed,))]
    stored, decoded = len(images), 4 * len(images)
    assert stored < TINY.batch < decoded
    rows = run(candidates, compute, networks=1).rows
    assert [(row.images, row.steps, row.epochs) for row in rows] == [(stored, 4, 4), (decoded, 4, 1)]
    rows = run(candidates, compute, networks=1, equal_steps=False).rows
    assert [(row.steps, row.epochs) for row in rows] == [(4, 4), (4 * -(-decoded // TINY.batch), 4)]


def test_soft_labels_of_some_classes_are_tested_on_those(compute):
    """Their spec names all classes; only those with some probability need test images."""
    some = TEST.select(TEST.classes[:2])
    hard = selected_set(some, Random(), 2, Draw(0), compute)
    soft = hard.with_soft_labels(torch.eye(2).repeat_interleave(2, 0), some.classes)
    rows = evaluate(
        [Candidate("hard", (hard,)), Candidate("soft", (soft,))],
        some,
        compute=compute,
        networks=1,
        network=NETS,
        protocol=TINY,
    ).rows
    assert rows[0].accuracies == rows[1].accuracies
    others = TEST.select(TEST.classes[1:])
    assert outputs(soft, others) == TEST.classes
    assert torch.equal(targets_for("soft", soft, others), torch.eye(4)[class_indices(hard.labels, TEST.classes)])
    with pytest.raises(DataError, match=r"'soft' has classes \[-3, 0\] and the test images \[7, 42\]: none is in both"):
        targets_for("soft", soft, TEST.select(TEST.classes[2:]))


def test_soft_labels_stand_for_the_right_classes(compute, sets):
    hard = sets[0].select([0, 42])
    spec = replace(hard.spec, class_names={0: "0", 42: "42"})
    soft = replace(hard, spec=spec, soft_labels=torch.eye(2)[(hard.labels == 42).long()])
    rows = run([Candidate("hard", (hard,)), Candidate("soft", (soft,))], compute).rows
    assert rows[0].accuracies == rows[1].accuracies


def test_classes_without_test_images_are_said_and_not_tested(compute, sets, caplog):
    found = run([Candidate("mine", sets)], compute, test=TEST.select([-3, 0, 7]))
    note = "no test images of 1 of 4 classes (42): accuracy is that of the others"
    assert found.notes == (note,)
    assert note in caplog.text
    assert note in str(found)
    assert found.to_json()["notes"] == [note]


def test_a_ragged_set_is_trained_on_as_on_what_its_classes_have(compute):
    """Packed or not, images in a step and steps are those of the images that a selection of this ipc has."""
    data = shapes(per_class=1)  # classes of 1, 2, 3 and 4 images
    plain, packed = (
        selected_set(data, Random(), ipc, Draw(0), compute, Formation(factor)) for ipc, factor in ((4, 1), (1, 2))
    )
    assert (plain.counts, packed.counts) == ((1, 2, 3, 4), (1, 1, 1, 1))
    protocol = replace(TINY, batch=4)
    run_on = partial(run, compute=compute, test=data, protocol=protocol)
    rows = run_on([Candidate("plain", (plain,)), Candidate("packed", (packed,))]).rows
    assert [(row.ipc, row.ipc_min, row.steps) for row in rows] == [(4, 1, 3 * TINY.epochs), (1, 1, TINY.epochs)]
    assert "at most 4" in str(run_on([Candidate("plain", (plain,))]))


def test_sets_that_do_not_fit_the_test_images_are_refused(compute, sets):
    other = ClassImages.from_arrays(TEST.images // 2, TEST.labels)
    with pytest.raises(DataError, match="shape or normalisation"):
        evaluate([Candidate("mine", sets)], other, compute=compute)


def test_bad_arguments_are_listed(compute):
    with pytest.raises(ConfigError) as caught:
        evaluate([], TEST, networks=1.5, network=(), seed=0.5, compute=compute)
    assert len(caught.value.problems) == 4
    with pytest.raises(ConfigError, match="'mine' has no sets"):
        Candidate("mine", ())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_one_failure_stops_all_networks(error, compute, sets):
    class Failing(Progress):
        @contextmanager
        def stage(self, name, total, done=0):
            yield Third()

    class Third(Stage):
        steps = 0

        def advance(self, steps=1, values=None):
            self.steps += 1
            if self.steps == 3:
                raise error("in one worker")

    with pytest.raises(error, match="in one worker"):
        run([Candidate("random", sets)], compute, protocol=replace(TINY, epochs=10**6), progress=Failing())
    compute.close()


def test_the_stage_hears_of_all_steps(compute, sets):
    seen = []

    class Heard(Progress):
        def stage(self, name, total, done=0):
            seen.append(total)
            return super().stage(name, total, done)

    stages = Heard()
    run([Candidate("random", sets), Candidate("full", (TEST,))], compute, progress=stages)
    full = 2 * -(-len(TEST) // 16)
    assert seen == [2 * (3 * 4 + full)]


def test_it_runs_on_this_machine_where_none_is_given(sets):
    rows = evaluate([Candidate("random", sets[:1])], TEST, networks=1, network=NETS, protocol=TINY).rows
    assert 0 <= rows[0].accuracy_mean <= 1


def test_work_is_counted_in_images_operations_and_passes(compute, sets):
    """Three sets of 8 images, two networks each: 4 steps of all images forward and back, then the test images once."""
    one = 2 * (64 * 8 * 27 + 128 * 4)
    (row,) = run([Candidate("random", sets)], compute).rows
    images, flops = 6 * (4 * 8 + len(TEST)), 6 * (4 * 8 * 3 + len(TEST)) * one
    assert row.work == {"images": images, "flops": flops, **Spent(images, flops).passes(len(TEST), (3, 8, 8))}
    assert row.work["passes"] == round(images / len(TEST), 4)
    (row,) = run([Candidate("full", (TEST,))], compute, networks=1).rows
    assert row.work["images"] == (2 + 1) * len(TEST)
    assert row.work["passes"] == 3
    unknown = replace(sets[0], provenance={})
    (row,) = run([Candidate("mine", (unknown,))], compute).rows
    assert set(row.work) == {"images", "flops"}


def test_images_that_are_not_flippable_are_never_mirrored(compute, sets, monkeypatch):
    """Neither where the test images say so nor where the set does."""
    seen = set()
    apply = Augmentation.apply_batch

    def watched(self, *arguments):
        seen.update(self.ops)
        return apply(self, *arguments)

    monkeypatch.setattr(Augmentation, "apply_batch", watched)
    protocol = replace(TINY, augmentation=Augmentation())
    upright = TEST.with_spec(flippable=False)
    for test, made in ((upright, sets[0]), (TEST, replace(sets[0], spec=upright.spec))):
        evaluate([Candidate("mine", (made,))], test, networks=1, network=NETS, protocol=protocol, compute=compute)
    assert seen == {"color", "crop", "cutout", "scale", "rotate"}
    run([Candidate("mine", sets[:1])], compute, networks=1, protocol=protocol)
    assert "flip" in seen


def test_table_shows_each_row(compute, sets, kmeans):
    text = run([Candidate("random", sets), Candidate("kmeans", kmeans), Candidate("full", (TEST,))], compute).table()
    told, table, *_ = text.split("\n\n")
    assert told.startswith("Accuracy in % on the 66 test images")
    assert "network ConvNet-w8" in " ".join(told.split())
    assert " Guessing: 25. " in " ".join(told.split())
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert lines[0][:4] == ["set", "accuracy %", "difference to random", "ipc"]
    assert [line[0] for line in lines[2:]] == ["random", "kmeans", "full"]
    assert [line[3] for line in lines[2:]] == ["2", "2", "all"]
    assert (lines[2][2], "[" in lines[3][2]) == ("-", True)
    assert "train steps" in lines[0]


def test_a_wide_interval_of_few_networks_says_how_to_narrow_it(compute, sets, kmeans):
    found = run([Candidate("random", sets), Candidate("kmeans", kmeans[:1])], compute)
    row = found.rows[1]
    wide = replace(row, ci95=[-0.3, 0.1])
    assert _wide([found.rows[0], wide]) == [
        "the interval of kmeans is 40 points wide over 2 networks: more networks or sets narrow it: networks=5, "
        "sets of 3 seeds"
    ]
    assert _wide([replace(row, ci95=[-0.1, 0.05])]) == _wide([replace(wide, accuracies=[[0.5] * 5])]) == []


def test_a_single_training_has_no_spread(compute, sets):
    """A table told "93.9 +- 0.0" of one network."""
    found = run([Candidate("random", sets[:1])], compute, networks=1)
    assert "±" not in found.table()
    assert "difference" not in found.table()
    assert f"train steps {found.rows[0].steps}" in " ".join(found.table().split())


def test_finished_networks_are_kept(compute, sets, kmeans, tmp_path):
    candidates = [Candidate("random", sets), Candidate("kmeans", kmeans)]
    first = run(candidates, compute, out=tmp_path)
    files = sorted((tmp_path / "trainings").iterdir())
    assert len(files) == 3 * 2 * 2
    assert Evaluation.load(tmp_path) == first
    files[0].unlink()
    before = {file: file.stat().st_mtime_ns for file in files[1:]}
    again = run([*candidates, Candidate("full", (TEST,))], compute, out=tmp_path, networks=1)
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    assert [row.accuracies for row in again.rows[:2]] == [[[nets[0]] for nets in row.accuracies] for row in first.rows]
    assert again.rows[0].work["images"] * 2 == first.rows[0].work["images"]


def test_other_networks_images_and_protocols_are_trained_anew(compute, sets, tmp_path):
    one = [Candidate("random", sets[:1])]
    run(one, compute, networks=1, out=tmp_path)
    for options in (
        {"seed": 1},
        {"network": (ConvNet(width=4),)},
        {"protocol": replace(TINY, lr=0.1)},
        {"test": TEST.select([0, 7])},
        {"candidates": [Candidate("random", sets[1:2])]},
    ):
        count = len(list((tmp_path / "trainings").iterdir()))
        run(**{"candidates": one, "compute": compute, "networks": 1, "out": tmp_path, **options})
        assert len(list((tmp_path / "trainings").iterdir())) == count + 1


def test_what_cannot_be_kept_is_no_reason_to_stop(compute, sets, tmp_path, caplog):
    (tmp_path / "trainings").write_text("in the way")
    found = run([Candidate("random", sets)], compute, out=tmp_path)
    assert len(found.rows) == 1
    assert "from now on, no network is kept" in caplog.text


def test_a_damaged_training_is_said(compute, sets, tmp_path):
    one = [Candidate("random", sets[:1])]
    run(one, compute, networks=1, out=tmp_path)
    (file,) = (tmp_path / "trainings").iterdir()
    file.write_text(file.read_text().replace('"seconds"', '"second"'))
    with pytest.raises(StoreError, match=rf"{file.name}.*damaged"):
        run(one, compute, networks=1, out=tmp_path)


def test_a_table_for_a_notebook_and_a_line_for_a_terminal(compute, sets, kmeans):
    found = run([Candidate("random", sets), Candidate("kmeans", kmeans)], compute, networks=1)
    assert str(found) == found.table()
    assert found._repr_html_().count("<tr>") == 3
    assert repr(found).startswith("Evaluation(random ")
    assert len(repr(found)) < 120
    assert "\n" not in repr(found)


def test_rows_as_a_data_frame(compute, sets):
    pandas = pytest.importorskip("pandas")
    found = run([Candidate("random", sets)], compute, networks=1)
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.accuracy_mean.tolist() == [row.accuracy_mean for row in found.rows]


def test_it_runs_without_avalanche_nni_and_click():
    code = """
import sys
for name in ("avalanche", "nni", "click"):
    sys.modules[name] = None
import condensekit.training.evaluation
"""
    subprocess.run([sys.executable, "-c", code], check=True)
