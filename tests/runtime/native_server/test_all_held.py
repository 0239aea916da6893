"""All connections together hold no more of requests than a bound, also those that are behind."""

import pytest

from services.runtime.native_server.all_held import AllHeld


class Held:
    """What a connection holds that may shed, or can only be closed."""

    def __init__(self, *, is_behind: bool, sheds: bool = True) -> None:
        self.num_bytes = self._num_told = 0
        self.is_behind = is_behind
        self._sheds = sheds

    def change(self) -> int:
        before, self._num_told = self._num_told, self.num_bytes
        return self._num_told - before

    def shed(self) -> bool:
        if self._sheds:
            self.num_bytes //= 2
        return self._sheds


class Connection:
    def __init__(self, *, is_behind: bool, sheds: bool = True) -> None:
        self.held = Held(is_behind=is_behind, sheds=sheds)
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True
        self.held.num_bytes = 0


def grow(connection: Connection, num_bytes: int, together: AllHeld) -> bool:
    connection.held.num_bytes += num_bytes
    return together.add(connection.held.change())


@pytest.mark.parametrize("sheds", [True, False])
def test_crowds_are_told_to_read_no_more_until_the_fullest_can_be_judged(sheds: bool) -> None:
    fullest = Connection(is_behind=True, sheds=sheds)
    crowd = [Connection(is_behind=False) for _ in range(100)]
    together = AllHeld(1000, [fullest, *crowd])
    assert grow(fullest, 300, together)
    for _ in range(6):
        assert all(grow(one, 1, together) for one in crowd)
    assert all(grow(one, 1, together) for one in crowd)
    assert not any(grow(one, 1, together) for one in crowd)
    assert fullest.held.num_bytes == 300
    fullest.held.is_behind = False
    assert grow(fullest, 0, together)
    assert fullest.held.num_bytes == (150 if sheds else 0)
    assert fullest.is_closed is not sheds
    assert all(grow(one, 0, together) for one in crowd)
    assert not any(each.is_closed for each in crowd)
