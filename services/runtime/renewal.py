"""Connections that outlive the certificates they were made with: when to make them anew."""

import asyncio

from services.runtime.tls_files import TlsFiles, TlsReader
from services.wire.errors import Unavailable

LOOK_SECONDS = 1.0
# Until the other end, too, has looked at its own, which were replaced with these.
SETTLE_SECONDS = 1.5 * LOOK_SECONDS


class CertificatesReplaced(Unavailable):
    """A connection was ended by its own side, which makes it anew."""


class Renewal:
    """Made just before a connection is, which goes on with the files as they are now.

    Raises BadState where they cannot be used. Without files nothing is ever due.
    """

    def __init__(self, files: TlsFiles | None) -> None:
        self._reader = None if files is None else TlsReader(files)
        self._material = None if self._reader is None else self._reader.material()

    async def due(self) -> None:
        """Return once the files hold others, which can be used, and the other end goes by its own
        where these were replaced, too.
        """
        if self._reader is None:
            await asyncio.Event().wait()
            return
        while self._reader.material() == self._material:  # noqa: ASYNC110 -- files tell nobody
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
