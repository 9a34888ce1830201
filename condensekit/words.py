"""Words of the field: other words for our names, and the names that a misspelt word may mean."""

from __future__ import annotations

import re
from collections.abc import Iterable

LETTERS = ((7, 2), (3, 1))  # words of at least so many letters may have so many wrong letters
CALLED = {
    "cuda": "gpu nvidia",
    "mps": "metal apple",
    "fp32": "float32 float single full 32",
    "mixed": "amp autocast mixed-precision half fp16 float16 16",
    "bf16": "bfloat16 half fp16 float16 16",
    "float32": "fp32 float full single",
    "float16": "fp16 half",
    "uint8": "int8 8bit 8-bit byte bytes",
    "digits": "sklearn-digits scikit-digits optdigits",
    "fashionmnist": "fmnist fashion",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "tinyimagenet": "tiny-imagenet-200 tinyimagenet200 tinyimg",
    "NCHW": "channels-first chw",
    "NHWC": "channels-last hwc",
    "data": "dataset datasets sets",
    "rankers": "rankings proxies",
    "memories": "buffers",
    "networks": "models architectures",
    "selections": "baselines coresets",
    "dm": "distribution-matching",
    "m3d": "mmd",
    "ncfm": "characteristic-function neural-characteristic-function",
    "dc": "gradient-matching gm",
    "dsa": "siamese",
    "krr": "kip rfad ntk kernel kernel-ridge kernel-ridge-regression",
    "random": "rand uniform",
    "herding": "icarl",
    "kmeans": "k-means++ cluster clusters clustering centroids",
    "kcenter": "kcentre coreset farthest greedy",
    "jpeg-random": "jpeg jpg",
    "noise": "gaussian gauss randn normal",
    "uniform": "random rand",
    "importance": "hard weighted",
    "fresh": "random untrained",
    "trained": "pretrained",
    "gaussian": "rbf mmd",
    "mean": "l2 mse euclidean",
    "none": "off no false null nothing without",
    "color": "colour jitter color-jitter brightness contrast saturation",
    "crop": "random-crop randcrop shift translate translation",
    "cutout": "erase erasing random-erasing",
    "flip": "hflip fliplr mirror horizontal-flip random-horizontal-flip",
    "scale": "zoom",
    "rotate": "rotation rot",
    "ConvNet": "cnn conv convnet3 convnetd3",
    "ResNet18": "resnet",
    "VGG11": "vgg",
    "batch_real": "batch batch-size",
    "lr": "learning-rate step-size",
    "short": "fast quick default",
    "from-scratch": "scratch offline gdumb",
    "er": "experience-replay replay online",
    "der++": "derpp",
    "class-balanced": "balanced",
    "reservoir": "reservoir-sampling",
    "naive": "finetune fine-tuning sgd",
    "params": "parameters nparams num-params size",
    "flops": "macs",
    "nwot": "naswot relu-logdet",
    "jacov": "jacob-cov jacobian",
    "zen": "zen-score zennas",
    "early-stop": "early-stopping",
    "accuracy": "acc",
    "cross-entropy": "ce loss nll",
    "pool": "process processes multiprocessing parallel local",
    "sequential": "serial single inline",
    "evolution": "evolutionary ea genetic regularized-evolution regularised-evolution",
    "tpe": "bayes bayesian bo optuna hyperopt",
    "grid": "exhaustive",
    "convnet": "cnn",
    "nasbench201": "nasbench nb201 nats-bench",
}
"""Our names, each with the words by which others call the same thing."""
OTHERS = ("idm", "idc", "emnist", "kmnist", "qmnist")  # names of other things: no misspelt names of ours


def plain(word: str) -> str:
    """The letters and digits of a word, lower case.

    >>> plain("--Tiny_ImageNet")
    'tinyimagenet'
    """
    return re.sub(r"[^a-z0-9]+", "", word.lower())


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The names that a word may mean, at most two: the same in other letters, its name with us, or close in spelling.

    >>> nearest("CIFAR-10", ["cifar10", "cifar100"]), nearest("gpu", ["cpu", "cuda"]), nearest("kmaens", ["kmeans"])
    (['cifar10'], ['cuda'], ['kmeans'])

    Args:
        word: A word that is none of the names.
        known: The names, the usual ones first.
    """
    given, names = plain(word), {plain(name): name for name in reversed(list(known))}
    if given in names:
        return [names[given]]
    called = [name for name in names.values() if given in map(plain, CALLED.get(name, "").split())]
    if called or given in OTHERS:
        return [name for name in CALLED if name in called][:2]
    return close(given, names)


def close(given: str, names: dict[str, str]) -> list[str]:
    """The names that are close in spelling to a plain word, or begin with it; none if there are more than two.

    Args:
        given: A word as :func:`plain` gives it.
        names: For each plain name, the name.
    """
    allowed = next((wrong for letters, wrong in LETTERS if len(given) >= letters), 0)
    far = {plain_name: _wrong_letters(given, plain_name) for plain_name in names}
    best = min(far.values(), default=allowed + 1)
    found = [
        names[name] for name, wrong in far.items() if wrong == best <= allowed and (wrong < 2 or name[0] == given[0])
    ]
    if not found and len(given) >= 3:
        found = [name for plain_name, name in names.items() if plain_name.startswith(given)]
    return found[::-1] if len(found) <= 2 else []


def _wrong_letters(one: str, other: str) -> int:
    """Letters that lack, are too many, are wrong or stand in the wrong order (optimal string alignment).

    A wrong letter makes another word of one with three letters: it counts twice there.
    """
    replaced = 1 if len(one) > 3 else 2
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + replaced * (letter != wanted))
            if i > 1 and j > 1 and (letter, one[i - 2]) == (other[j - 2], wanted):
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
