"""One of two replicas answers wrongly, in whatever way: no request fails, and none is altered."""

from pathlib import Path

import pytest

from tests.chaos.lies import KINDS
from tests.chaos.trial_of_lies import court
from tests.checkpoints import VOCAB_SIZE, save_tiny


@pytest.fixture(scope="module")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("olmoe", Path(tmp_path_factory.mktemp("models")) / "olmoe")


@pytest.mark.timeout(300)
async def test_no_request_is_lost_or_altered_by_a_service_that_lies(olmoe: Path) -> None:
    async with court(olmoe, VOCAB_SIZE) as made:
        heard = [await made.hear(kind) for kind in KINDS]
    assert [told.kind for told in heard if not told.num_lies] == []
    assert {told.kind: (told.failures, told.num_altered) for told in heard} == {
        kind: ([], 0) for kind in KINDS
    }
