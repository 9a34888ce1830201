"""Condensed replay in an ordinary Avalanche script: only the storage policy is new.

python examples/replay.py
"""

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive

from condensekit import datasets
from condensekit.catalog import augmentation, method
from condensekit.replay import CondensedBuffer, Images

train, test = (
    torch.utils.data.TensorDataset(images.gather(images.order), images.labels[images.order])
    for images in datasets.load("digits")
)
for dataset in (train, test):
    dataset.targets = dataset.tensors[1].tolist()  # Avalanche looks for them
stream = nc_benchmark(train, test, n_experiences=5, task_labels=False, seed=0)

plain = augmentation("auto", "digits")  # no mirrored digits
condensed = CondensedBuffer(Images(20), method("dm", batch_real=32), classes=10, iterations=100, augmentation=plain)
for memory in (None, condensed):
    torch.manual_seed(0)
    model = SimpleMLP(num_classes=10, input_size=64)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        train_mb_size=32,
        train_epochs=4,
        eval_mb_size=256,
        plugins=[ReplayPlugin(20, storage_policy=memory)] if memory else [],
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True), loggers=[]),
    )
    for experience in stream.train_stream:
        strategy.train(experience)
    accuracy = next(iter(strategy.eval(stream.test_stream).values()))
    print(f"{'condensed memory' if memory else 'no memory'}: {accuracy:.3f}")
print(f"{len(condensed.memory)} images, {condensed.nbytes:,} bytes, condensed in {sum(condensed.condense_s):.0f} s")
