"""A service that computes wrong numbers, in the right form, is found out and used no more."""

import asyncio
from pathlib import Path

import pytest

from moesaic.v1 import router_pb2
from tests.chaos.lies import SIGN
from tests.chaos.trial_of_lies import Court, court
from tests.checkpoints import VOCAB_SIZE, save_tiny

SHARE = 0.01
FRAMES = round(1 / SHARE)


@pytest.fixture(scope="module")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("olmoe", Path(tmp_path_factory.mktemp("models")) / "olmoe")


async def until_quarantined(made: Court) -> None:
    async with asyncio.timeout(30):
        while (await made.placed()).state != router_pb2.SERVICE_STATE_QUARANTINED:
            await made.ask()


async def test_a_service_that_lies_silently_is_out_within_two_rows_of_frames(olmoe: Path) -> None:
    """An audit looks at one of every hundred of its frames; then nothing is altered any more."""
    async with court(olmoe, VOCAB_SIZE, audit_share=SHARE) as made:
        await made.until_trusted()
        made.liar.lie(SIGN)
        await until_quarantined(made)
        assert made.liar.sent.num_lies <= 2 * FRAMES + 100  # and those on their way meanwhile
        told = await made.told_of(SIGN, least_seconds=1.1)  # a trial of it is due meanwhile
        assert (told.failures, told.num_altered) == ([], 0)
        placed = await made.placed()
        assert placed.state == router_pb2.SERVICE_STATE_QUARANTINED
        assert "other numbers came back" in placed.refusal
