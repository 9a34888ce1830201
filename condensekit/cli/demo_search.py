"""Search chapter of ``condensekit demo``: a ranking of small networks on condensed digits."""

from __future__ import annotations

from pathlib import Path

from condensekit.data.images import ClassImages
from condensekit.nas.study.result import FILE, SearchResult
from condensekit.progress import Progress
from condensekit.runs.files import write_json
from condensekit.runs.folder import RunDir

RANKERS = ("dm", "random", "params", "dm+params")
IPC, TRAIN_STEPS, FULL_EPOCHS = 5, 32, 4


def searched(
    train: ClassImages, test: ClassImages, out: Path, *, candidates: int, steps: int, seed: int, progress: Progress
) -> SearchResult:
    """Rank small ConvNets on condensed digits; its result is ``search.json``.

    Args:
        train: All training images; a fifth is held out, and the rest is condensed.
        test: Test images, for the truth.
        out: Folder of the search; a search in the folder is continued.
        candidates: Number of architectures.
        steps: Matching steps.
        seed: Seed of all random numbers.
        progress: Receives each step and trial.
    """
    from condensekit.nas.rankers.base import Setting
    from condensekit.nas.rankers.by_name import ranker
    from condensekit.nas.rankers.sets import Maker
    from condensekit.nas.rankers.training import ProxyProtocol
    from condensekit.nas.spaces.spaces import convnet_space
    from condensekit.nas.study.contest import Contest
    from condensekit.nas.study.full_training import FullTraining
    from condensekit.nas.study.plots import scatter
    from condensekit.nas.trials.settings import Running

    rest, held = train.split(0.2, seed)
    maker = Maker(rest, steps, seed=seed, folder=out / "sets", progress=progress)
    setting = Setting(maker, held, ProxyProtocol(steps=TRAIN_STEPS), IPC, seed=seed)
    space = convnet_space(train.spec.shape, len(train.classes), depths=(1, 2), widths=(8, 16, 32))
    full = FullTraining(train, test, ProxyProtocol(FULL_EPOCHS))
    contest = Contest(space, [ranker(name) for name in RANKERS], setting, trials=candidates, truth=full, seed=seed)
    config = {"candidates": candidates, "steps": steps, "seed": seed, "rankers": list(RANKERS)}
    with RunDir.create(out, config, resume=True, data_fingerprint=train.fingerprint()):
        found = contest.run(Running("sequential", folder=out, progress=progress))
        scatter(found.trials, found.values, out / "ranking.png")
        write_json(out / FILE, found.to_json())
    return found
