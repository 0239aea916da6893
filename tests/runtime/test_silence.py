"""Who says nothing is asked, and given up."""

from collections.abc import AsyncIterator

import pytest

from services.runtime.silence import Silence


class Noted:
    """What a Silence does, looked at by hand."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.silence = Silence(
            3600, lambda: self.done.append("ask"), lambda: self.done.append("give up")
        )

    def looked(self, times: int) -> list[str]:
        for _ in range(times):
            self.silence.look()
        return self.done


@pytest.fixture
async def noted() -> AsyncIterator[Noted]:
    made = Noted()
    yield made
    made.silence.close()


async def test_a_peer_that_is_heard_is_asked_nothing(noted: Noted) -> None:
    for _ in range(3):
        noted.silence.hear()
        assert noted.looked(1) == []


async def test_a_peer_that_is_not_heard_is_asked_and_given_up(noted: Noted) -> None:
    assert noted.looked(3) == ["ask"]
    assert noted.looked(1) == ["ask", "give up"]


async def test_an_answer_that_is_read_late_counts(noted: Noted) -> None:
    assert noted.looked(3) == ["ask"]
    noted.silence.hear()
    assert noted.looked(1) == ["ask"]


async def test_a_peer_that_answers_is_asked_again_only_when_it_is_silent_again(
    noted: Noted,
) -> None:
    assert noted.looked(2) == ["ask"]
    noted.silence.hear()
    assert noted.looked(1) == ["ask"]
    assert noted.looked(2) == ["ask", "ask"]
    assert noted.looked(1) == ["ask", "ask", "give up"]
