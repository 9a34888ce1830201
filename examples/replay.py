"""Condensed replay in an ordinary Avalanche script: only the storage policy is new.

python examples/replay.py
"""

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive

import condensekit as ck
from condensekit.replay import CondensedBuffer, Images

digits = [torch.utils.data.TensorDataset(d.gather(d.order), d.labels[d.order]) for d in ck.load("digits")]
for dataset in digits:
    dataset.targets = dataset.tensors[1].tolist()  # Avalanche looks for them
stream = nc_benchmark(*digits, n_experiences=5, task_labels=False, seed=0)
recipe = "dm batch_real=32 augment=color,crop,cutout,scale,rotate"  # no mirrored digits
condensed = CondensedBuffer(Images(20), recipe, classes=10, steps=100)
memories = {
    "no memory": [],
    "random memory": [ReplayPlugin(20)],  # Avalanche's own: 20 real images
    "condensed memory": [ReplayPlugin(condensed.max_size, storage_policy=condensed)],
}
for name, plugins in memories.items():
    torch.manual_seed(0)
    model = SimpleMLP(num_classes=10, input_size=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
    strategy = Naive(
        model=model, optimizer=optimizer, train_mb_size=32, train_epochs=4, plugins=plugins, evaluator=evaluator
    )
    for experience in stream.train_stream:
        strategy.train(experience)
    print(f"{name}: {next(iter(strategy.eval(stream.test_stream).values())):.3f}")
print(f"{len(condensed.memory)} images, {condensed.nbytes:,} bytes, condensed in {sum(condensed.condense_s):.0f} s")
