"""Failures of candidates: the exception of a candidate without a score, and one line about any other exception."""

from __future__ import annotations


class TrialError(Exception):
    """A candidate cannot be scored. The search marks its trial as failed and continues.

    Args:
        text: The reason, one line.
        image_steps: Number of training images until the failure, for the cost of the trial.
    """

    def __init__(self, text: str, image_steps: int = 0) -> None:
        super().__init__(text)
        self.image_steps = image_steps


def reason(error: BaseException) -> str:
    """One line that describes an exception."""
    text = str(error).strip().splitlines()
    shown = text[0][:300] if text else ""
    if isinstance(error, TrialError):
        return shown
    memory = isinstance(error, MemoryError) or "out of memory" in shown.lower() or "can't allocate" in shown.lower()
    return f"{'out of memory: ' if memory else ''}{type(error).__name__}: {shown}".removesuffix(": ")
