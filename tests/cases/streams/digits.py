"""Digits as streams, a learner of them, and a pass over a stream."""

import torch
from avalanche.training.plugins import EvaluationPlugin
from sklearn.datasets import load_digits
from torch import nn

from condensekit.rng import isolated
from tests.targeted import Targeted


def digits():
    """(1797, 1, 8, 8) images in [0, 1] and (1797,) labels."""
    found = load_digits()
    return torch.from_numpy(found.images).float()[:, None] / 16, torch.from_numpy(found.target)


def dataset(images, labels):
    """A data set with the .targets that Avalanche looks for."""
    return Targeted(images, labels)


def smooth(classes, each):
    """Smooth 3x32x32 images, normalised with mean 0.5 and standard deviation 0.25: JPEG stores them in few bytes."""
    with isolated(0):
        noise = torch.rand(classes * each, 3, 4, 4)
    images = nn.functional.interpolate(noise, size=32, mode="bilinear")
    return dataset(((images * 255).round() / 255 - 0.5) / 0.25, torch.arange(classes).repeat(each))


class Net(nn.Module):
    """A small learner of 8x8 images whose head Avalanche's as_multitask can multiply."""

    def __init__(self, outputs=10):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.classifier: nn.Module = nn.Linear(128, outputs)

    def forward(self, x):
        return self.classifier(self.features(x))


def training(model, **options):
    """The arguments that every strategy takes."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    usual = {"train_mb_size": 16, "train_epochs": 4, "evaluator": EvaluationPlugin(loggers=[])}
    return {"model": model, "optimizer": optimizer} | usual | options


def accuracy(model, experience):
    """Share of right answers of an experience, from the head of its task."""
    images = torch.stack([experience.dataset[i][0] for i in range(len(experience.dataset))])
    labels = torch.tensor([int(label) for label in experience.dataset.targets])
    model.eval()
    with torch.no_grad():
        outputs = model(images, torch.full((len(images),), int(experience.task_label)))
    return float((outputs.argmax(1) == labels).float().mean())
