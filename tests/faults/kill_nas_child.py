"""A search that the kill tests end from outside: engine and folder on the command line."""

import socket
import sys
from pathlib import Path

from nni.experiment.config.training_services import LocalConfig

from condensekit.nas import Portal, TrialLog, search
from tests.nas.toy import Toy, scoring


def run(engine, folder):
    service = LocalConfig(use_active_gpu=False) if engine == "nni-as-it-is" else None
    engine = engine.removesuffix("-as-it-is")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return search(
        Toy(),
        scoring(seconds=0.3, calls=str(folder / "calls")),
        "random",
        trials=10,
        engine=engine,
        workers=1,
        seed=2,
        log=TrialLog(folder / "trials.jsonl"),
        portal=Portal(folder / "nni", port, service) if engine == "nni" else None,
    )


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
