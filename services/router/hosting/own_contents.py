"""What the experts of the router's own checkpoint are, by their hashes: read once, in the
background.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from services.model.checkpoint import Checkpoint
from services.model.hash_cache import HashCache
from services.model.refusals import UnusableModel
from services.router.hosting.contents import Contents
from services.runtime.failures import aside
from services.runtime.notice import Notice
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)

# Of the thread, since steps go first. Not more: it holds the interpreter's lock now and then.
NICENESS = 5
# It rests so many times as long as it has read, where nobody waits.
REST_FACTOR = 4.0
# Hashes that are known already are handed over together, as many as are found in that time.
BATCH_SECONDS = 0.01
MAX_BATCH = 256


class OwnContents:
    """Finds the hash of each of `keys` and tells `contents` of it; `on_news` is called where that
    makes a difference.

    Hashes that `hashes` knows are taken from there. It begins when told to, but for experts of
    which two services say different things: these are read at once. Files that cannot be read any
    more end it; then services are compared with one another, as before.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        keys: Iterable[ExpertKey],
        contents: Contents,
        hashes: HashCache | None,
        on_news: Callable[[], None],
        *,
        rest_factor: float = REST_FACTOR,
    ) -> None:
        self._checkpoint = checkpoint
        self._left = dict.fromkeys(keys)
        self._urgent: dict[ExpertKey, None] = {}
        self._contents = contents
        self._hashes = hashes
        self._on_news = on_news
        self._rest_factor = rest_factor
        self._has_begun = False
        self._told = Notice()

    def begin(self) -> None:
        """Read all of them, one after the other."""
        self._has_begun = True
        self._told.send()

    def hurry(self, keys: Iterable[ExpertKey]) -> None:
        """Somebody is wrong about these."""
        self._urgent |= {key: None for key in keys if key in self._left}
        self._told.send()

    async def run(self) -> None:
        """Read until all are known, or cancelled."""
        threads = ThreadPoolExecutor(1, "hash-experts", _step_back)
        try:
            with aside("hashing the checkpoint's experts"):
                await self._read_all(threads)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _read_all(self, threads: ThreadPoolExecutor) -> None:
        while self._left:
            wanted = self._urgent or (self._left if self._has_begun else {})
            keys = list(islice(wanted, MAX_BATCH))
            if not keys:
                await self._told.wait()
                continue
            began = time.monotonic()
            read = threads.submit(self._read, keys, began + BATCH_SECONDS)
            try:
                self._note(await asyncio.wrap_future(read))
            except UnusableModel as error:
                logger.warning("services' experts are not compared with the router's: %s", error)
                return
            if not self._urgent:
                await self._told.wait(self._rest_factor * (time.monotonic() - began))
        logger.info("every expert of the checkpoint is known by its hash")

    def _note(self, found: dict[ExpertKey, bytes]) -> None:
        for key in found:
            del self._left[key]
            self._urgent.pop(key, None)
        if self._contents.note_own(found):
            self._on_news()

    def _read(self, keys: Sequence[ExpertKey], until: float) -> dict[ExpertKey, bytes]:
        found: dict[ExpertKey, bytes] = {}
        for key in keys:
            found[key] = self._checkpoint.content_hash(*key, self._hashes)
            if time.monotonic() >= until:
                break
        return found


def _step_back() -> None:
    # On Linux niceness is a thread's, elsewhere the whole process's.
    if sys.platform.startswith("linux"):
        os.nice(NICENESS)
