"""Run folder: its lock, options, environment, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.runs.files import (
    failure,
    load_tensors,
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
COMMAND: ContextVar[Mapping[str, Any] | None] = ContextVar("command", default=None)
"""The command that makes runs now, JSON values: ``env.json`` tells it as ``command``."""
ENV = "env.json"
KEPT = 2  # checkpoints that are kept: the newest, and the one before in case the newest is damaged


class RunDir:
    """The folder of one run; made by :meth:`create` (which locks it until closed) or :meth:`read`.

    It holds ``config.json``, ``env.json``, ``metrics.csv``, ``checkpoints/step-000123.safetensors`` and
    ``.lock``; the caller adds ``set.safetensors`` and others to :attr:`path`.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: int | None = None) -> None:
        self.path = path
        self.config = config
        self._lock = lock
        self._metrics: TextIO | None = None
        self._columns: list[str] = []
        self._good: list[int] = []  # steps whose checkpoints this object has written or read

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], resume: bool, data_fingerprint: str) -> RunDir:
        """Lock a folder for a run; use it in a ``with`` statement.

        Args:
            path: The folder; it is made if missing.
            config: Everything that decides the result, as JSON values.
            resume: Continue the run in the folder; an empty folder starts a new run.
            data_fingerprint: :meth:`ClassImages.fingerprint` of the data of the run.

        Raises:
            ConfigError: The folder is in use; it holds files and ``resume`` is off; or it holds a run with other
                options or data (the text shows each difference).
            StoreError: The folder cannot be written.
        """
        asked = plain({**config, "format": FORMAT, "data_fingerprint": data_fingerprint})
        if not resume and _occupied(path) and not os.path.lexists(path / ".lock"):
            raise _exists(path)  # before a lock is written into a folder of somebody else
        with staged(path, "create"):
            path.mkdir(parents=True, exist_ok=True)
        lock = take(path / ".lock")
        try:
            if not resume and _occupied(path):
                raise _exists(path)
            for pattern in (".*.tmp", "*/.*.tmp"):
                for left_over in path.glob(pattern):
                    left_over.unlink(missing_ok=True)
            if (path / "config.json").exists():
                _compare(path, read_json(path / "config.json"), asked)
            else:
                write_json(path / "config.json", asked)
            write_json(path / ENV, {**environment(), "command": COMMAND.get()})
        except BaseException:
            os.close(lock)
            raise
        return cls(path, asked, lock)

    @classmethod
    def read(cls, path: Path) -> RunDir:
        """Read an existing run, without a lock and without writing.

        Raises:
            DataError: The folder holds no run.
            StoreError: Its ``config.json`` is damaged.
        """
        if not (path / "config.json").is_file():
            raise DataError(f"{path} is no run folder: it has no config.json")
        return cls(path, read_json(path / "config.json"))

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
        path = self.path / "metrics.csv"
        file = self._metrics or self._open_metrics(path, step, values)
        row = [step, *(values.get(name, "") for name in self._columns[1:])]
        with staged(path, "write"):
            csv.writer(file, lineterminator="\n").writerow(row)

    def _open_metrics(self, path: Path, step: int, values: Mapping[str, float]) -> TextIO:
        rows = list(_metric_lines(path))
        self._columns = rows[0] if rows else ["step", *values]
        kept = [row for row in rows[1:] if int(row[0]) < step]
        write_bytes_atomic(path, "".join(",".join(row) + "\n" for row in [self._columns, *kept]).encode())
        with staged(path, "open"):
            self._metrics = path.open("a", buffering=1, newline="")
        return self._metrics

    def metrics(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv``; an incomplete last row is left out."""
        columns, *rows = [*_metric_lines(self.path / "metrics.csv")] or [[]]
        return [{name: float(v) for name, v in zip(columns, row, strict=True) if v} for row in rows]

    def save_checkpoint(self, step: int, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        """Write the state after ``step``, then remove all but the last two good checkpoints.

        Raises:
            StoreError: The checkpoint cannot be written; the earlier checkpoints are kept.
        """
        if self._metrics:
            with staged(self.path / "metrics.csv", "fsync"):
                os.fsync(self._metrics.fileno())
        stamped = {**manifest, "step": step, "config": _hash(self.config)}
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
            StoreError: All checkpoints are damaged.
        """
        damaged: StoreError | None = None
        for step, path in self._checkpoints():
            try:
                tensors, manifest = load_tensors(path, CHECKPOINT)
                if manifest.get("config") != _hash(self.config) or manifest.get("step") != step:
                    raise failure(path, "read", "it belongs to another run or step")
            except StoreError as error:
                damaged = damaged or error
                log.warning("%s; looking for an older checkpoint", error)
                continue
            self._good = [step]
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


def _occupied(path: Path) -> bool:
    """Whether the folder holds files other than a lock and old temporary files."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file, expected a folder: choose another folder")
    return path.exists() and any(
        p.name != ".lock" and not (p.name.startswith(".") and p.name.endswith(".tmp")) for p in path.iterdir()
    )


def _exists(path: Path) -> ConfigError:
    return ConfigError(f"{path} exists and is not empty: continue its run with resume=True, or choose another folder")


def _compare(path: Path, found: Any, asked: dict[str, Any]) -> None:
    """Raise ConfigError if the run in the folder has other options or another format."""
    if isinstance(found, dict) and found.get("format") != asked["format"]:
        raise ConfigError(
            f"{path} holds a run of condensekit {found.get('version', '0.1')}, which this version can read but not "
            "continue: finish it with that version, or start anew in another folder"
        )
    refuse_other(f"{path} holds a run of other options", found, asked, "use the same, or another folder")


def _hash(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _metric_lines(path: Path) -> Iterator[list[str]]:
    """The cells of the header and of each complete row; incomplete rows are skipped."""
    if not path.exists():
        return
    with staged(path, "read"):
        text = path.read_text(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    width = None
    for row in csv.reader(whole.splitlines()):
        if width is None or (len(row) == width and row[0].isdecimal()):
            width = len(row)
            yield row


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
        "argv": sys.argv,
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
