"""Connections that outlive the certificates they were made with: when to make them anew."""

import asyncio

from services.runtime.tls_files import TlsFiles, TlsReader
from services.wire.errors import Unavailable

LOOK_SECONDS = 1.0


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
        """Return once the files hold others, which can be used."""
        if self._reader is None:
            await asyncio.Event().wait()
            return
        while self._reader.material() == self._material:  # noqa: ASYNC110 -- files tell nobody
            await asyncio.sleep(LOOK_SECONDS)
