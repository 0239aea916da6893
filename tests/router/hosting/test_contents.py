"""Who has other weights than the rest is found out, whenever it was asked about first."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from services.router.hosting.contents import Contents
from services.wire.expert_key import ExpertKey

KEY = ExpertKey(0, 0)


@dataclass(frozen=True)
class Service:
    address: str
    content_hashes: Mapping[ExpertKey, bytes]


GOOD, OTHER = Service("good:1", {KEY: b"good"}), Service("other:1", {KEY: b"other"})


@pytest.mark.parametrize("is_own", [False, True])
def test_a_service_that_was_looked_at_before_anybodys_claim_is_judged_by_that(
    is_own: bool,
) -> None:
    contents = Contents()
    assert contents.refused(OTHER) == frozenset()  # it is there, and cannot be used yet
    if is_own:
        contents.note_own({KEY: b"good"})
    else:
        contents.observe([GOOD])
    contents.observe([GOOD, OTHER])
    assert contents.refused(OTHER) == {KEY}
    assert contents.refusal(OTHER) is not None
    assert contents.refused(GOOD) == frozenset()


class Hashes(dict[ExpertKey, bytes]):
    """Those of one service, which can be looked for after it."""


@pytest.mark.parametrize("is_settled", [False, True])
def test_nothing_is_kept_of_a_service_that_is_gone(is_settled: bool) -> None:
    contents, gone = Contents(), Service("gone:1", Hashes(GOOD.content_hashes))
    contents.observe([gone, GOOD])
    if is_settled:
        contents.settle()
    assert contents.refused(gone) == frozenset()
    kept = weakref.ref(gone.content_hashes)
    del gone
    contents.observe([GOOD])
    assert kept() is None
