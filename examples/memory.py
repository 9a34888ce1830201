"""Condensed replay in a plain PyTorch loop: a memory without a framework.

python examples/memory.py
"""

import torch
import torch.nn.functional as F

import condensekit as ck
from condensekit.replay import Images, Memory

train, test = ck.load("digits")
images, labels = train.gather(train.order), train.labels[train.order]
test_images, test_labels = test.gather(test.order), test.labels[test.order]


def learn(memory: Memory | None) -> float:
    """Learn the digits two by two, and return the accuracy on all of them."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for first in range(0, 10, 2):
        now = (labels == first) | (labels == first + 1)
        new_images, new_labels = images[now], labels[now]
        for _ in range(100):
            rows = torch.randint(len(new_labels), (32,))
            batch, targets = new_images[rows], new_labels[rows]
            if memory:  # it is empty in the first round
                old_images, old_labels, _ = memory.sample(32)
                batch, targets = torch.cat([batch, old_images]), torch.cat([targets, old_labels])
            optimizer.zero_grad()
            F.cross_entropy(net(batch), targets).backward()
            optimizer.step()
        if memory is not None:
            memory.observe(new_images, new_labels)
    return float((net(test_images).argmax(1) == test_labels).float().mean())


for recipe in ("random", "kmeans", "m3d factor=1 batch_real=32 augment=none"):
    memory = Memory(Images(20), recipe, classes=10, steps=100)
    print(f"{learn(memory):.3f} with {memory}")
print(f"{learn(None):.3f} without a memory")
