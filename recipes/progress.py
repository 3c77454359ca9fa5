"""A long run that was killed goes on inside: its state is kept beside the CSV file until its row is written."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from frameworks import Trainer

from doconv_conformance.files import write_text


class Progress:
    """The losses and the seconds of a run so far, and where its states lie.

    Attributes:
        losses: of the steps that were done.
        seconds: processor and wall time of those steps.
    """

    def __init__(self, folder: Path, every: float) -> None:
        """`folder` is this run's own; a state is written every so many seconds."""
        self.folder, self.every, self.written = folder, every, time.monotonic()
        self.losses: list[float] = []
        self.seconds = (0.0, 0.0)

    def resume(self, trainer: Trainer) -> None:
        """Bring the trainer and this to the last whole state, if there is one."""
        states = [each for each in self.folder.glob("[0-9]*") if each.name.isdigit()]
        if states:
            last = max(states, key=lambda each: int(each.name))
            trainer.restore(last)
            said = json.loads((last / "progress.json").read_text("utf-8"))
            self.losses, self.seconds = said["losses"], tuple(said["seconds"])

    def due(self) -> bool:
        return time.monotonic() - self.written >= self.every

    def keep(self, trainer: Trainer, seconds: tuple[float, float]) -> None:
        """Write a state under another name, rename it, and remove the older ones."""
        part, whole = self.folder / "part", self.folder / str(len(self.losses))
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        trainer.save(part)
        write_text(part / "progress.json", json.dumps({"losses": self.losses, "seconds": seconds}))
        os.replace(part, whole)
        for each in self.folder.iterdir():
            if each != whole:
                shutil.rmtree(each)
        self.written = time.monotonic()

    def remove(self) -> None:
        """The row is written: nothing to go on from."""
        shutil.rmtree(self.folder, ignore_errors=True)
