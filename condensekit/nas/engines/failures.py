"""Failures of candidates: the exception that says why there is no score, and one line about any other exception."""

from __future__ import annotations


class TrialError(Exception):
    """A candidate that cannot be scored; the text says why. The search marks its trial and goes on.

    Args:
        text: One line.
        image_steps: Images that had passed through in training by then: they cost what they cost.
    """

    def __init__(self, text: str, image_steps: int = 0) -> None:
        super().__init__(text)
        self.image_steps = image_steps


def reason(error: BaseException) -> str:
    """One line about what was raised."""
    text = str(error).strip().splitlines()
    shown = text[0][:300] if text else ""
    if isinstance(error, TrialError):
        return shown
    memory = isinstance(error, MemoryError) or "out of memory" in shown.lower() or "can't allocate" in shown.lower()
    return f"{'out of memory: ' if memory else ''}{type(error).__name__}: {shown}"
