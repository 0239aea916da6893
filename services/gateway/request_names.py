"""The requests under way by name: a newer one of a client ends its older one of the same name."""

import uuid
from collections.abc import Iterator
from collections.abc import Sequence as Sequenced
from contextlib import contextmanager

from services.gateway.sequence import Sequence
from services.wire.errors import InvalidRequest, Outdated

MAX_NAME_CHARACTERS = 64


class NamedRequest:
    """One of them, from its arrival to its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._sequences: Sequenced[Sequence] = ()
        self.is_replaced = False

    def begin(self, sequences: Sequenced[Sequence]) -> None:
        """They go to a router from now on. Raises Outdated where it was replaced before that."""
        self._sequences = sequences
        if self.is_replaced:
            raise self._outdated()

    def replace(self) -> None:
        """A newer one is there: this one ends with Outdated."""
        self.is_replaced = True
        for sequence in self._sequences:
            sequence.fail(self._outdated())

    def _outdated(self) -> Outdated:
        return Outdated(f"a newer request is called {self.name!r}, as this one is")


class RequestNames:
    """All that are under way, by their clients: nobody ends a stranger's."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str], NamedRequest] = {}

    @contextmanager
    def named(self, client: str, name: str) -> Iterator[NamedRequest]:
        """Know a request of this name, or of a new one where it is empty, for as long as the block
        lasts. Raises InvalidRequest for a name that is too long.
        """
        if len(name) > MAX_NAME_CHARACTERS:
            raise InvalidRequest(
                f"request_id has {len(name)} characters; the limit is {MAX_NAME_CHARACTERS}"
            )
        request = NamedRequest(name or uuid.uuid4().hex)
        key = client, request.name
        older = self._requests.get(key)
        if older is not None:
            older.replace()
        self._requests[key] = request
        try:
            yield request
        finally:
            if self._requests.get(key) is request:
                del self._requests[key]
