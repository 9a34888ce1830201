"""Time of continual-learning loops compared with a plain PyTorch loop, with a linear model and without metrics.

    python benchmarks/speed/loop.py --rounds 5 --out FILE

Six loops run in turn in one process: plain PyTorch, Avalanche's Naive, and Naive with ``TensorLoader``, each without
and with a replay memory. All loops have the same steps on the same random tensors: SGD on batches of 64 images of
3 x 32 x 32, with replay plus 64 images from a memory of 200. ``ratio`` is the time of a step divided by that of the
plain loop in the same round, median over the rounds. ``best_ratio`` compares the fastest rounds. ``whole_ratio``
includes the reading of the data, over a training of all epochs.
On a CPU the loops have one thread, and the time is CPU time of the process, which other programs disturb least.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from torch import Tensor

from benchmarks.record import Record, parser, start, write
from condensekit.replay import TensorLoader
from condensekit.rng import Draw, isolated

SHAPE, CLASSES, BATCH, MEMORY = (3, 32, 32), 10, 64, 200
LOOPS = ("plain", "naive", "naive-tensor", "plain-er", "replay", "replay-tensor")
Timing = tuple[float, float]  # seconds of a step: in the median epoch, and in the whole training


class Clock(SupervisedPlugin):
    """Plugin that measures the seconds of each epoch of the running experience."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.now, self.seconds, self.began = now, list[float](), 0.0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Reset the seconds for a new experience."""
        self.seconds = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Start the clock, after all other plugins."""
        self.began = self.now()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self.seconds.append(self.now() - self.began)


def make_data(samples: int) -> Any:
    """A benchmark of two experiences of random images."""
    images = torch.rand((2 * samples, *SHAPE), generator=Draw(0).generator("images"))
    labels = torch.arange(2 * samples) % CLASSES
    data = torch.utils.data.TensorDataset(images, labels)
    data.targets = labels.tolist()  # type: ignore[attr-defined]
    order = list(range(CLASSES))
    return nc_benchmark(data, data, n_experiences=2, task_labels=False, fixed_class_order=order)


def avalanche_loop(name: str, benchmark: Any, epochs: int, device: torch.device, now: Callable[[], float]) -> Timing:
    """Time a training by Avalanche on the second experience, after one epoch of the first."""
    clock = Clock(now)
    plugins: list[Any] = [ReplayPlugin(MEMORY)] if "replay" in name else []
    plugins += [TensorLoader()] if "tensor" in name else []
    model = network()
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        train_mb_size=BATCH,
        train_epochs=1,
        device=device,
        plugins=[*plugins, clock],
        evaluator=EvaluationPlugin(loggers=[]),
    )
    strategy.train(benchmark.train_stream[0])
    strategy.train_epochs = epochs
    began = now()
    strategy.train(benchmark.train_stream[1])
    whole = now() - began
    steps = -(-len(benchmark.train_stream[1].dataset) // BATCH)
    return statistics.median(clock.seconds) / steps, whole / steps / epochs


def plain_loop(name: str, benchmark: Any, epochs: int, device: torch.device, now: Callable[[], float]) -> Timing:
    """Time a training with the same steps in plain PyTorch."""
    parts = [[(x, y) for x, y, _ in experience.dataset] for experience in benchmark.train_stream]
    (memory, memory_labels), (images, labels) = (_tensors(part, device) for part in parts)
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seconds, began = [], now()
    for _ in range(epochs):
        start = now()
        replayed: list[Tensor] = []
        for index in torch.randperm(len(images)).to(device).split(BATCH):
            x, y = images[index], labels[index]
            if "er" in name:
                if not replayed:
                    replayed = list(torch.randperm(MEMORY).to(device).split(BATCH))
                old = replayed.pop()
                x, y = torch.cat([x, memory[old]]), torch.cat([y, memory_labels[old]])
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        seconds.append(now() - start)
    steps = -(-len(images) // BATCH)
    return statistics.median(seconds) / steps, (now() - began) / steps / epochs


def _tensors(part: list[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in part]).to(device), torch.tensor([int(y) for _, y in part], device=device)


def network() -> torch.nn.Module:
    """Network with one linear layer."""
    with isolated(0):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, CLASSES))


def measure(rounds: int, samples: int, epochs: int, device: torch.device) -> Record:
    """Time all loops in turn, in ``rounds`` rounds after a first round that does not count."""

    def now() -> float:
        if device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    benchmark, seconds = make_data(samples), {name: list[Timing]() for name in LOOPS}
    for _ in range(rounds + 1):
        for name in LOOPS:
            loop = plain_loop if name.startswith("plain") else avalanche_loop
            seconds[name].append(loop(name, benchmark, epochs, device, now))
    table, best = {}, {name: min(step for step, _ in found[1:]) for name, found in seconds.items()}
    for name, found in seconds.items():
        plain = "plain-er" if name in LOOPS[3:] else "plain"
        ratios = [
            [a / b for a, b in zip(own, other, strict=True)]
            for own, other in zip(found[1:], seconds[plain][1:], strict=True)
        ]
        table[name] = {
            "us_per_step": round(1e6 * statistics.median(step for step, _ in found[1:]), 1),
            "ratio": round(statistics.median(ratio for ratio, _ in ratios), 3),
            "best_ratio": round(best[name] / best[plain], 3),
            "ratios": [round(ratio, 3) for ratio, _ in ratios],
            "whole_ratio": round(statistics.median(ratio for _, ratio in ratios), 3),
        }
    return table


def main() -> None:
    """Measure all loops, print a table and write the results."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--samples", type=int, default=2000, help="images of each experience")
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--device", default="cpu")
    options.add_argument("--out", type=Path)
    args = options.parse_args()
    torch.set_num_threads(1)
    table = measure(args.rounds, args.samples, args.epochs, torch.device(args.device))
    print(f"{'loop':<16}{'us/step':>10}{'ratio':>8}{'of the best':>13}{'with reading':>14}")
    for name, row in table.items():
        print(
            f"{name:<16}{row['us_per_step']:>10.1f}{row['ratio']:>8.2f}{row['best_ratio']:>13.2f}{row['whole_ratio']:>14.2f}"
        )
    if args.out:
        asked = {"rounds": args.rounds, "samples": args.samples, "epochs": args.epochs, "batch": BATCH}
        write(args.out, {**asked, "memory": MEMORY, "device": args.device, "loops": table})


if __name__ == "__main__":
    start(main)
