"""Run folder: its lock, options, environment, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import io
import itertools
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import torch
from torch import Tensor

from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.runs.budget import ENTRIES
from condensekit.runs.code import LOADED, refuse_edited
from condensekit.runs.files import (
    failure,
    is_temporary,
    load_tensors,
    read_bytes,
    read_json,
    save_tensors,
    staged,
    write_bytes_atomic,
    write_json,
)
from condensekit.runs.kept import plain, refuse_other
from condensekit.runs.lock import take

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"
FORMAT = 2  # number of the format of config.json; raise it when earlier runs cannot be continued
OWN = ("checkpoints", "snapshots", "cells", "sets", "trainings")  # folders that condensekit alone writes
MAX_DIGITS = 40  # of a number in metrics.csv
COMMAND: ContextVar[Mapping[str, Any] | None] = ContextVar("command", default=None)
"""The command that makes runs now, JSON values: ``env.json`` tells it as ``command``."""
ARGV: ContextVar[Sequence[str] | None] = ContextVar("argv", default=None)
"""The words of that command where they are not those of the process, such as with the options of a file in them."""
ENV = "env.json"
KEPT = 2  # checkpoints that are kept: the newest, and the one before in case the newest is damaged


class _Config(TypedDict):
    """What every ``config.json`` holds."""

    data_fingerprint: str


class _Logged(TypedDict):
    """The rows of ``metrics.csv`` that a checkpoint knows of: their bytes, header included, and the sha256 of these."""

    bytes: int
    sha256: str


class RunDir:
    """The folder of one run; made by :meth:`create` (which locks it until closed) or :meth:`read`.

    It holds ``config.json``, ``env.json``, ``metrics.csv``, ``checkpoints/step-000123.safetensors`` and
    ``.lock``; the caller adds ``set.safetensors`` and others to :attr:`path`.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: int | None = None) -> None:
        self.path = path
        self.config = config
        self.changed = False  # whether ``config.json`` still has other entries
        self._lock = lock
        self._metrics: BinaryIO | None = None
        self._columns: list[str] = []
        self._logged: _Logged | None = None  # in the present checkpoint
        self._sum, self._size = hashlib.sha256(), 0  # of the open ``metrics.csv``
        self._good: list[int] = []  # steps whose checkpoints this object has written or read

    @classmethod
    def create(
        cls,
        path: Path,
        config: Mapping[str, Any],
        resume: bool,
        data_fingerprint: str,
        free: Collection[str] = (),
    ) -> RunDir:
        """Lock a folder for a run; use it in a ``with`` statement.

        Args:
            path: The folder; it is made if missing.
            config: Everything that decides the result, as JSON values. The code of objects that a command imported by
                ``module:object`` is added as ``code``.
            resume: Continue the run in the folder; an empty folder starts a new run.
            data_fingerprint: :meth:`ClassImages.fingerprint` of the data of the run.
            free: Entries that a resumed run may change; then :attr:`changed` is True until :meth:`keep_config`.

        Raises:
            ConfigError: The folder is in use; it holds files and ``resume`` is off; it holds files and no run; or it
                holds a run with other options, data or code of yours (the text shows each difference).
            StoreError: The folder cannot be written, or its ``config.json`` is damaged.
        """
        code = {"code": dict(sorted(loaded.items()))} if (loaded := LOADED.get()) else {}
        asked = plain({**config, **code, "format": FORMAT, "data_fingerprint": data_fingerprint})
        if not os.path.lexists(path / ".lock"):
            _check_files(path, resume)  # before a lock is written into a folder of somebody else
        with staged(path, "create"):
            path.mkdir(parents=True, exist_ok=True)
        lock = take(path / ".lock")
        try:
            _check_files(path, resume)
            found = read_json(path / "config.json", _Config) if os.path.lexists(path / "config.json") else None
            if found is not None:
                _compare(path, found, asked, free)
            _remove(_left_over(path))
            made = cls(path, asked, lock)
            made.changed = found not in (None, asked)
            if not made.changed:
                made.keep_config()
        except BaseException:
            os.close(lock)
            raise
        return made

    @classmethod
    def read(cls, path: Path) -> RunDir:
        """Read an existing run, without a lock and without writing.

        Raises:
            DataError: The folder holds no run.
            StoreError: Its ``config.json`` is damaged.
        """
        if not os.path.lexists(path / "config.json"):
            raise DataError(f"{path} is no run folder: it has no config.json")
        return cls(path, read_json(path / "config.json", _Config))

    def keep_config(self) -> None:
        """Write ``config.json``, with the entries that a resumed run has changed, and ``env.json``.

        Raises:
            StoreError: They cannot be written.
        """
        write_json(self.path / "config.json", self.config)
        write_json(self.path / ENV, {**environment(), "command": COMMAND.get()})
        self.changed = False

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and release the lock."""
        if self._metrics:
            self._metrics.close()
        if self._lock is not None:
            os.close(self._lock)
        self._metrics = self._lock = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row to ``metrics.csv``. The first row decides the columns; other values are left out.

        The first call removes the rows of this step and of later steps, which a resumed run writes again.

        Raises:
            StoreError: The row cannot be written.
        """
        if self._metrics is None:
            self._metrics = self._open_metrics(step, values)
        with staged(self.path / "metrics.csv", "write"):
            self._add(self._metrics, _line([step, *(values.get(name, "") for name in self._columns[1:])]))

    def _open_metrics(self, step: int, values: Mapping[str, float]) -> BinaryIO:
        path = self.path / "metrics.csv"
        rows = list(_metric_rows(path))
        self._columns = rows[0] if rows else ["step", *values]
        kept = b"".join(map(_line, [self._columns, *(row for row in rows[1:] if int(row[0]) < step)]))
        write_bytes_atomic(path, kept)
        self._sum, self._size = hashlib.sha256(kept), len(kept)
        with staged(path, "open"):
            return path.open("ab", buffering=0)  # what a full disk does not take must not be written again on closing

    def _add(self, file: BinaryIO, line: bytes) -> None:
        rest = line
        while rest:
            rest = rest[file.write(rest) :]
        self._sum.update(line)
        self._size += len(line)

    def metrics(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv``; an incomplete last row is left out.

        Raises:
            StoreError: It is damaged: it differs from what the newest checkpoint knows of it.
        """
        self.latest_checkpoint()
        return metric_rows(self.path / "metrics.csv")

    def _check_metrics(self, logged: Any, finished: bool) -> None:
        """Compare ``metrics.csv`` with what a checkpoint knows of it; a finished run has no rows beyond these."""
        path = self.path / "metrics.csv"
        if not logged:
            return
        if not os.path.lexists(path):
            log.warning("%s is missing: the metrics of the steps before are lost", path)
            return
        known = slice(None if finished else logged["bytes"])
        if hashlib.sha256(read_bytes(path)[known]).hexdigest() != logged["sha256"]:
            way_out = "delete it to continue the run without the metrics of the steps before"
            raise failure(path, "read", f"it is damaged (rows are missing or differ from those of the run): {way_out}")
        self._logged = logged

    def save_checkpoint(self, step: int, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        """Write the state after ``step``, then remove all but the last two good checkpoints.

        Raises:
            StoreError: The checkpoint cannot be written; the earlier checkpoints are kept.
        """
        if self._metrics:
            with staged(self.path / "metrics.csv", "fsync"):
                os.fsync(self._metrics.fileno())
            self._logged = {"bytes": self._size, "sha256": self._sum.hexdigest()}
        stamped = {**manifest, "step": step, "config": _hash(self.config), "metrics": self._logged}
        save_tensors(self.path / "checkpoints" / f"step-{step:06d}.safetensors", tensors, stamped, CHECKPOINT)
        self._good = [*(good for good in self._good if good != step), step][-KEPT:]
        for found, path in self._checkpoints():
            if found not in self._good:
                with staged(path, "remove"):
                    path.unlink(missing_ok=True)

    def latest_checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Read (step, tensors, manifest) of the newest valid checkpoint; None if the folder has no checkpoint.

        A damaged checkpoint is skipped with a warning in the log.

        Raises:
            StoreError: All checkpoints are damaged, or ``metrics.csv`` is.
        """
        damaged: StoreError | None = None
        for step, path in self._checkpoints():
            try:
                tensors, manifest = load_tensors(path, CHECKPOINT)
                known = _hash(self.config), _hash(self.config, ())  # the latter of version 0.1
                if manifest.get("config") not in known or manifest.get("step") != step:
                    raise failure(path, "read", "it belongs to another run or step")
            except StoreError as error:
                damaged = damaged or error
                log.warning("%s; looking for an older checkpoint", error)
                continue
            self._good = [step]
            self._check_metrics(manifest.get("metrics"), bool(manifest.get("finished")))
            return step, tensors, manifest
        if damaged:
            raise StoreError(f"{damaged}; no older checkpoint is valid: start again in another folder")
        return None

    def _checkpoints(self) -> list[tuple[int, Path]]:
        """Step and file of each checkpoint, newest first."""
        found = [
            (int(match[1]), path)
            for path in (self.path / "checkpoints").glob("step-*.safetensors")
            if (match := re.fullmatch(r"step-(\d{6,})\.safetensors", path.name))
        ]
        return sorted(found, reverse=True)


def check_free(path: Path, resume: bool) -> None:
    """Check that a run may be made in a folder, or continued with ``resume``, before the data are read.

    Raises:
        ConfigError: It is a file; it is in use; it holds files other than a lock and old temporary files, and
            ``resume`` is off or there is no run among them.
        StoreError: It cannot be read.
    """
    if os.path.lexists(path / ".lock"):
        os.close(take(path / ".lock"))
    _check_files(path, resume)


def _check_files(path: Path, resume: bool) -> None:
    with staged(path, "read"):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file, expected a folder: choose another folder")
        used = path.exists() and any(p.name != ".lock" and not is_temporary(p) for p in path.iterdir())
    if used and not resume:
        raise ConfigError(
            f"{path} exists and is not empty: continue its run with resume=True, or choose another folder"
        )
    if used and not os.path.lexists(path / "config.json"):
        raise ConfigError(f"{path} holds files and no run to continue (no config.json): use another folder")


def _left_over(path: Path) -> Iterator[Path]:
    """The temporary files and folders that killed processes left in a run folder and in its own folders."""
    yield from filter(is_temporary, path.iterdir())
    for folder in (path / name for name in OWN):
        if not folder.is_symlink():
            yield from filter(is_temporary, folder.rglob(".*.tmp"))


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        with staged(path, "remove"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _compare(path: Path, found: Any, asked: dict[str, Any], free: Collection[str]) -> None:
    """Raise ConfigError if the run in the folder has other options, but for those in ``free``, or another format."""
    if isinstance(found, dict) and found.get("format") != asked["format"]:
        raise ConfigError(
            f"{path} holds a run of condensekit {found.get('version', '0.1')}, which this version can read but not "
            "continue: finish it with that version, or start anew in another folder"
        )
    own = {"code", *(name for name in free if (found.get(name) is None) == (asked[name] is None))}
    there, here = ({name: value for name, value in one.items() if name not in own} for one in (found, asked))
    refuse_other(f"{path} holds a run of other options", there, here, "use the same, or another folder")
    refuse_edited(f"{path} holds a run", found.get("code", {}), asked.get("code", {}))


def _hash(config: Mapping[str, Any], free: Collection[str] = ENTRIES) -> str:
    """Checksum of all that a checkpoint has in common with the checkpoints of a run that goes on for longer."""
    kept = {name: value for name, value in config.items() if name not in free}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _line(cells: Sequence[object]) -> bytes:
    """A row of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def metric_rows(path: Path) -> list[dict[str, float]]:
    """The complete rows of a ``metrics.csv``, without comparing it with a checkpoint; see :meth:`RunDir.metrics`.

    Raises:
        StoreError: It cannot be read, or its steps do not ascend.
    """
    columns, *rows = [*_metric_rows(path)] or [[]]
    return [{name: float(v) for name, v in zip(columns, row, strict=True) if v} for row in rows]


def _metric_rows(path: Path) -> Iterator[list[str]]:
    """The cells of the header and of each complete row; incomplete rows are skipped."""
    if not os.path.lexists(path):
        return
    text = read_bytes(path).decode(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    try:
        header, *rows = list(csv.reader(whole.splitlines())) or [[]]
    except csv.Error as error:
        raise failure(path, "read", error) from error
    if header[:1] == ["step"]:
        yield header
        good = [row for row in rows if len(row) == len(header) and row[0].isdecimal() and all(map(_number, row))]
        if any(int(row[0]) >= int(later[0]) for row, later in itertools.pairwise(good)):
            raise failure(path, "read", "it is damaged (its steps do not ascend): delete it")
        yield from good


def _number(cell: str) -> bool:
    """Whether a cell is empty or a number; a step has digits only."""
    try:
        return len(cell) < MAX_DIGITS and (not cell or float(cell) is not None)
    except ValueError:
        return False


def environment() -> dict[str, Any]:
    """Describe the environment: versions, device, processor, threads, git commit if any, command line."""
    versions = {name: _version(name) for name in ("condensekit", "torchvision", "numpy")}
    processor = _processor()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **versions,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
        "cpu": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "argv": ARGV.get() or sys.argv,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the code, if it runs from a git checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return None
