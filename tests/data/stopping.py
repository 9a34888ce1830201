"""Progress that stops the reading of images, and remembers what was begun."""

import contextlib

from condensekit.progress import Progress, Stage


class Stopping(Progress):
    """Ctrl-C after so many images."""

    def __init__(self, after):
        self.after = after
        self.begun = []

    @contextlib.contextmanager
    def stage(self, name, total, done=0):
        self.begun.append((name, total, done))
        yield self if name == "read images" else Stage()

    def advance(self, steps=1, values=None):
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
