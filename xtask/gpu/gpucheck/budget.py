"""Time: the whole run's, and each stage's. In: seconds and a clock. Out: deadlines. Absent: waiting."""

import time


class Late(Exception):
    """A stage used up its time."""


class Budget:
    """Stages draw on one budget; a stage for which too little is left is not begun."""

    def __init__(self, seconds, clock=time.monotonic):
        self.clock = clock
        self.end = clock() + seconds

    def left(self):
        return self.end - self.clock()

    def stage(self, limit, least):
        """A deadline for a stage that wants `limit` seconds and is of no use with fewer than `least`."""
        seconds = min(limit, self.left())
        if seconds < least:
            raise Late(f"{max(self.left(), 0):.0f} s of the run's time are left, it needs {least} s")
        return Deadline(seconds, self.clock)


class Deadline:
    """When a stage must end."""

    def __init__(self, seconds, clock=time.monotonic):
        self.clock = clock
        self.seconds = seconds
        self.end = clock() + seconds

    def left(self):
        """Seconds left; raises when there are none."""
        left = self.end - self.clock()
        if left <= 0:
            raise Late(f"its {self.seconds:.0f} s are over")
        return left

    def has(self, seconds):
        return self.end - self.clock() >= seconds
