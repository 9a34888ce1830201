"""Evaluators of NNI on Lightning and of nni.trace, importable by worker processes."""

import nni
import torch
from nni.nas.evaluator import Evaluator
from nni.nas.evaluator.pytorch import Classification, DataLoader, Lightning, LightningModule, Regression, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import TensorDataset

QUIET = {
    "enable_progress_bar": False,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def loader(targets=None):
    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (images.mean((1, 2, 3)) > 0).long() if targets is None else images.flatten(1)[:, :targets]
    return DataLoader(TensorDataset(images, labels), batch_size=20)


def classification():
    """It would stop each trial after the first at once, if its early stopping counted on."""
    stop = EarlyStopping("val_acc", mode="max", patience=1, min_delta=2.0)
    return Classification(
        train_dataloaders=loader(), val_dataloaders=loader(), num_classes=3, max_epochs=4, callbacks=[stop], **QUIET
    )


def regression():
    return Regression(train_dataloaders=loader(3), val_dataloaders=loader(3), max_epochs=2, **QUIET)


class Counting(LightningModule):
    """A module of a user, which scores the number of batches that it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def training_step(self, batch, index):
        self.seen += 1
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_fit_end(self):
        nni.report_final_result(float(self.seen))


def own_module():
    return Lightning(Counting(), Trainer(max_epochs=2, **QUIET), train_dataloaders=loader())


@nni.trace
class Traced(Evaluator):
    """An evaluator of a user, which scores the number of its trials."""

    def __init__(self, start):
        self.trials = start

    def evaluate(self, model):
        self.trials += 1
        nni.report_final_result(float(self.trials))


def traced():
    return Traced(0)


class Undecorated(Lightning):
    """A subclass of a class of nni.trace, which is not decorated itself."""


def undecorated():
    return Undecorated(Counting(), Trainer(max_epochs=2, **QUIET), train_dataloaders=loader())


class Holding(Evaluator):
    """An evaluator of a user without any trace, which holds a trainer."""

    def __init__(self):
        self.module, self.trainer, self.data = Counting(), Trainer(max_epochs=2, **QUIET), loader()

    def evaluate(self, model):
        self.module.set_model(model)
        self.trainer.fit(self.module, self.data)


def own_evaluator():
    return Holding()


@nni.trace
class Once(Evaluator):
    def __init__(self, numbers):
        self.number = next(numbers)

    def evaluate(self, model):
        nni.report_final_result(self.number)
