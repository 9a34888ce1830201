"""Your own images: a condensed set, its figure against random images, replay in Avalanche, and a search.

python examples/own_images.py photos/
"""

import math
import sys

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models import SimpleMLP
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive

import condensekit as ck
from condensekit.nas import Contest, Maker, ProxyProtocol, Running, Setting, ranker, space
from condensekit.replay import CondensedBuffer, Images

# A folder with one folder of images for each class; without one, scikit-learn's digits. At 8 x 8 pixels all of this
# takes half a minute; photographs want image_size=32, and about 16 times as long.
train, test = ck.load(*sys.argv[1:] or ["digits"], image_size=8)
made = ck.condense(train, "dm", ipc=2, steps=60)
made.set.save("own_images.safetensors", overwrite=True)
print(ck.evaluate(made, test, train=train, against="random", networks=2))

# A learner that meets the classes in two experiences, and replays 20 condensed images of the former ones.
stream = nc_benchmark(train.as_dataset(), test.as_dataset(), n_experiences=2, task_labels=False)
net = SimpleMLP(num_classes=len(train.classes), input_size=math.prod(train.spec.shape))
replay = ReplayPlugin(20, storage_policy=CondensedBuffer(Images(20), "dm", steps=60))
learner = Naive(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.05), train_epochs=3, plugins=[replay])
for experience in stream.train_stream:
    learner.train(experience)
learner.eval(stream.test_stream)

# Four networks, ranked by short trainings on condensed images; scored on images that these have not seen.
rest, held = train.split(0.2)
setting = Setting(Maker(rest, steps=60), held, ProxyProtocol(steps=24), ipc=2)
networks = space("convnet-small", train.spec.shape, len(train.classes))
print(Contest(networks, [ranker("dm"), ranker("params")], setting, trials=4).run(Running("sequential")).best)
