"""TensorBoard: the metrics of every stage of long work as event files."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from condensekit.errors import require
from condensekit.progress import SILENT, Progress, Stage
from condensekit.runs.files import staged

FOLDER = "tensorboard"  # in a run folder


class TensorBoard(Progress):
    """Progress that is written to event files, too, from which TensorBoard draws the metrics as curves.

    Each stage with metrics is a run of TensorBoard, named after the stage. A resumed stage replaces the steps that it
    repeats. Pass it as ``progress`` to any function that takes one.

    Args:
        folder: The folder of the event files; it is made when the first metrics come.
        shown: Progress that shows the stages besides.

    Raises:
        ConfigError: The package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: str | Path, shown: Progress = SILENT) -> None:
        installed = importlib.util.find_spec("tensorboard") is not None
        require(installed, "TensorBoard files need the package tensorboard: pip install tensorboard")
        self.folder, self.shown = Path(folder), shown

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        place = self.folder / re.sub(r"[^\w.+-]+", "-", name).strip("-")
        with self.shown.stage(name, total, done) as shown, ExitStack() as stack:
            yield _Curves(shown, place, done, stack)

    def tell(self, text: str) -> None:
        """See :meth:`Progress.tell`."""
        self.shown.tell(text)


class _Curves(Stage):
    """A stage whose metrics become curves.

    Args:
        shown: The stage that shows them.
        place: Folder of the event files of this stage.
        done: Steps that are finished.
        stack: Closes the files at the end of the stage.
    """

    def __init__(self, shown: Stage, place: Path, done: int, stack: ExitStack) -> None:
        self.shown, self.place, self.done, self.stack = shown, place, done, stack
        self.writer: Any = None

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        self.shown.advance(steps, values)
        if values:
            with staged(self.place, "write"):
                self.writer = self.writer or self._opened()
                for name, value in values.items():
                    self.writer.add_scalar(name, value, self.done + steps)
        self.done += steps

    def _opened(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter(self.place, purge_step=self.done + 1)
        self.stack.callback(writer.close)
        return writer
