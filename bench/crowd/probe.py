"""How long a process's event loop keeps whoever is ready waiting, read from outside."""

import asyncio
import gc
import mmap
import os
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from operator import sub
from pathlib import Path
from typing import Self

INTERVAL_SECONDS = 0.002
# Of a block whose cause is looked for, and how often it is looked.
LONG_SECONDS, LOOK_SECONDS = 0.01, 0.002
NUM_FRAMES, NUM_CAUSES = 3, 8
FIELDS = ("longest", "computing", "displaced", "collecting")
SIZE = 8 * len(FIELDS)


class LoopBlocks:
    """A few numbers in a file that two processes see: the longest block since it was cleared, in
    seconds, and what the loop's own thread did meanwhile.
    """

    def __init__(self, file: Path) -> None:
        with suppress(FileExistsError), open(file, "xb") as new:
            new.write(bytes(SIZE))
        with open(file, "r+b") as opened:
            self._numbers = memoryview(mmap.mmap(opened.fileno(), SIZE)).cast("d")

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Those of the one process that is watched there."""
        return cls(folder / "blocks")

    def clear(self) -> None:
        """Begin anew."""
        for index in range(len(FIELDS)):
            self._numbers[index] = 0.0

    def note(self, *seconds: float) -> None:
        """The loop was blocked for so long, and its thread did the rest of the fields meanwhile."""
        if seconds[0] > self._numbers[0]:
            for index, number in enumerate(seconds):
                self._numbers[index] = number

    def longest_ms(self) -> dict[str, float]:
        """The longest block; what of it the loop's thread was `computing`, and `displaced` from its
        core by other threads; and garbage was collected, by whichever thread. The rest it waited
        for the interpreter's lock, or for a page.
        """
        return {name: number * 1e3 for name, number in zip(FIELDS, self._numbers, strict=True)}


class LoopWatch:
    """Notes the blocks of the loop that it is made in; with `causes` also what the loop's thread
    does meanwhile, which costs a look every few milliseconds.
    """

    def __init__(self, blocks: LoopBlocks, causes: Path | None = None) -> None:
        self._blocks = blocks
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._schedule = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", 0)
        self._collected = self._collects_since = 0.0
        gc.callbacks.append(self._note_collecting)
        self._due, self._spent = self._next_due(), self._spent_so_far()
        self._causes = causes
        self._seen: Counter[str] = Counter()
        self._beat()
        if causes is not None:
            threading.Thread(target=self._look, name="stacks", daemon=True).start()

    def _next_due(self) -> float:
        return time.monotonic() + INTERVAL_SECONDS

    def _spent_so_far(self) -> tuple[float, ...]:
        """By the kernel, what the loop's thread has computed, and waited for a core."""
        computed, waited, _ = os.pread(self._schedule, 64, 0).split()
        return int(computed) / 1e9, int(waited) / 1e9, self._collected

    def _note_collecting(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collects_since = time.monotonic()
        else:
            self._collected += time.monotonic() - self._collects_since

    def _beat(self) -> None:
        late, spent = max(0.0, time.monotonic() - self._due), self._spent_so_far()
        self._blocks.note(late, *map(sub, spent, self._spent))
        self._due, self._spent = self._next_due(), spent
        self._loop.call_later(INTERVAL_SECONDS, self._beat)

    def _look(self) -> None:
        assert self._causes is not None, "or nobody looks"
        while True:
            time.sleep(LOOK_SECONDS)
            if time.monotonic() - self._due > LONG_SECONDS:
                self._seen[self._stack()] += 1
                self._causes.write_text(
                    "\n".join(f"{count} {cause}" for cause, count in self._seen.most_common())
                )

    def _stack(self) -> str:
        frame = sys._current_frames()[self._thread]
        frames = traceback.extract_stack(frame)[-NUM_FRAMES:]
        return " > ".join(f"{Path(each.filename).name}:{each.lineno}" for each in frames)
