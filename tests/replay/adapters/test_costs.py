"""A condensation inside a run is announced, has as many steps as fit the data, and its costs are compared.

Public situation: 17 minutes for three orders of 1,797 digits, and nothing said so beforehand.
"""

import logging
from contextlib import contextmanager

import pytest
import torch

from condensekit.data.images import ClassImages
from condensekit.progress import Progress, Stage
from condensekit.replay import CondensedBuffer, CondensedReplay, Images
from condensekit.replay.memory.base import Job, usual_steps
from condensekit.replay.study.memories import Making
from tests.replay.worlds import CPU, network, stream


def images(*counts):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return ClassImages.from_arrays(
        torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels, mean=(0.4,), std=(0.3,)
    )


@pytest.mark.parametrize(("counts", "steps"), [((5, 9), 100), ((90, 145), 145), ((499, 3), 499), ((5000,), 500)])
def test_steps_fit_the_data(counts, steps):
    """A study measures what a memory in a script does: both have the same number."""
    data = images(*counts)
    assert usual_steps(data) == Job().on(data).steps == Making().on(data).steps == steps
    assert Job(steps=7).on(data).steps == Making(7).on(data).steps == 7


class Notes(Progress):
    """The names of all pieces of work."""

    def __init__(self):
        self.names = []

    @contextmanager
    def stage(self, name, total, done=0):
        self.names.append(name)
        yield Stage()


def trained(recipe, epochs, caplog):
    notes, model = Notes(), network()
    memory = CondensedBuffer(Images(per_class=2), recipe, steps=3, machine=CPU, progress=notes)
    strategy = CondensedReplay(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.05),
        storage_policy=memory,
        train_mb_size=8,
        train_epochs=epochs,
        learner_encoder=False,
    )
    with caplog.at_level(logging.WARNING, "condensekit.replay"):
        for experience in list(stream().train_stream)[:2]:
            strategy.train(experience)
    return notes.names, [record.getMessage() for record in caplog.records]


def test_each_condensation_is_announced_and_one_warning_names_its_costs(caplog):
    names, told = trained("dm batch_real=8", 1, caplog)
    announced = [name for name in names if name.startswith("memory: ")]
    assert len(announced) == 2
    assert all("dm, 2 classes" in name and "3 steps" in name for name in announced)
    assert names[names.index(announced[0]) + 1].startswith("initialise")
    assert len(told) == 1
    assert "times the operations of 1 epochs of training" in told[0]
    assert "steps=" in told[0]


def test_a_selection_is_not_compared(caplog):
    assert trained("herding", 1, caplog)[1] == []
