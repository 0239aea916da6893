"""A service is given requests from its first trial on, until too many of its answers were wrong."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from services.router.peers.question import Question
from services.router.peers.trust import LIMITS, Standing, Trust
from services.wire.expert_key import ExpertKey

EXPERT, OTHER = ExpertKey(1, 2), ExpertKey(1, 3)


def wrong_answer() -> Question:
    pair_rows, experts = np.zeros(1, np.uint32), np.array([EXPERT.expert], np.uint32)
    rows = torch.ones(1, 4)
    return Question(EXPERT.layer, rows, pair_rows, experts, answer=rows)


class Watched:
    """A service's trust, on a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.num_changes = 0
        self.trust = Trust("a:1", self.note_change, clock=lambda: self.now)
        self.trust.connect("first")
        self.trust.pass_trial()

    def note_change(self) -> None:
        self.num_changes += 1

    def answer(self, outcomes: str, reason: str = "refused") -> None:
        """Well for each `+`, wrong for each `-`."""
        for outcome in outcomes:
            self.trust.note_answer()
            if outcome == "-":
                self.trust.note_failure(reason, EXPERT, "it was wrong")


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_service_is_untried_until_its_frame_came_back_well() -> None:
    trust = Trust("a:1", lambda: None)
    trust.connect("first")
    before = trust.standing, trust.seconds_to_trial()
    trust.pass_trial()
    after = trust.standing, trust.seconds_to_trial()
    assert (before, after) == ((Standing.UNTRIED, 0.0), (Standing.TRUSTED, None))


@pytest.mark.parametrize(
    ("outcomes", "is_quarantined"),
    [
        ("--", False),
        ("---", True),
        ("-+-+-", True),
        ("++++++++---", True),
        ("-++-++-++-++-", False),
        ("--++++--++++--", False),
    ],
)
def test_half_of_the_latest_answers_wrong_are_too_many(
    watched: Watched, outcomes: str, is_quarantined: bool
) -> None:
    watched.answer(outcomes)
    assert watched.trust.is_quarantined == is_quarantined
    assert watched.trust.num_failures == {"refused": outcomes.count("-")}


@pytest.mark.parametrize("reason", ["not_hosted", "overloaded", "expired"])
def test_a_busy_service_is_quarantined_only_where_it_says_nothing_else(
    watched: Watched, reason: str
) -> None:
    watched.answer(10 * ("-" * (LIMITS.max_passing - 1) + "+"), reason)
    assert not watched.trust.is_quarantined
    watched.answer("-" * LIMITS.max_passing, reason)
    assert watched.trust.is_quarantined


@pytest.mark.parametrize("reason", ["broken", "deadline", "lost"])
def test_what_connections_do_is_no_answer(watched: Watched, reason: str) -> None:
    watched.answer(20 * "-", reason)
    assert not watched.trust.is_quarantined and not watched.trust.num_failures


def test_pauses_between_trials_grow_up_to_a_limit(watched: Watched) -> None:
    watched.answer("---")
    pauses = []
    for _ in range(7):
        seconds = watched.trust.seconds_to_trial()
        assert seconds is not None
        pauses.append(seconds)
        watched.now += seconds
        assert watched.trust.seconds_to_trial() == 0.0
        watched.trust.fail_trial("it was refused")
    assert pauses == [1.0, 3.0, 9.0, 27.0, 60.0, 60.0, 60.0]


def test_a_relapse_is_paused_for_longer_unless_all_went_well_for_long(watched: Watched) -> None:
    for pause in (1.0, 3.0):
        watched.answer("---")
        assert watched.trust.seconds_to_trial() == pause
        watched.trust.pass_trial()
    watched.answer("+" * LIMITS.calm_answers + "---")
    assert watched.trust.seconds_to_trial() == 1.0


def test_what_it_failed_last_is_tried_first(watched: Watched) -> None:
    watched.answer("-")
    watched.trust.note_failure("bad_reply", OTHER, "it was wrong")
    assert watched.trust.suspected == OTHER


def test_a_quarantine_ends_with_the_start_that_it_is_of(watched: Watched) -> None:
    watched.answer("---")
    watched.trust.connect("first")
    assert watched.trust.is_quarantined
    watched.trust.connect("second")
    assert watched.trust.standing is Standing.UNTRIED and watched.trust.suspected is None
    watched.trust.fail_trial("it was refused")
    assert watched.trust.seconds_to_trial() == 1.0


def test_what_others_say_too_is_no_fault(watched: Watched) -> None:
    for _ in range(5):
        watched.answer("--")
        watched.trust.excuse()
    assert not watched.trust.is_quarantined
    watched.answer("---")
    watched.trust.excuse()
    assert not watched.trust.is_quarantined
    watched.answer("---")
    watched.trust.fail_trial("it was refused")
    watched.trust.excuse()
    assert watched.trust.is_quarantined, "which nobody else was asked"


def test_who_left_a_frame_unanswered_is_tried_before_it_is_used(watched: Watched) -> None:
    watched.trust.doubt()
    assert watched.trust.standing is Standing.UNTRIED
    watched.trust.fail_trial("no answer")
    watched.trust.doubt()
    assert watched.trust.is_quarantined


def test_the_log_says_why_a_service_is_quarantined_and_when_it_is_used_again(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = watched.num_changes
    watched.answer("---")
    watched.trust.pass_trial()
    assert watched.num_changes == before + 2
    assert caplog.messages == [
        "expert service a:1 is quarantined, and tried again in 1 s: 3 of its latest answers were "
        "wrong, the last: it was wrong",
        "expert service a:1 computes again, and is used",
    ]


def test_limits_may_be_others() -> None:
    trust = Trust("a:1", lambda: None, limits=replace(LIMITS, max_wrong=1))
    trust.pass_trial()
    trust.note_failure("refused", EXPERT, "it was wrong")
    assert trust.is_quarantined and trust.why.endswith("it was wrong")


def test_a_service_that_is_busy_has_neither_passed_nor_failed_its_trial(watched: Watched) -> None:
    watched.trust.fail_trial("it was wrong")
    for _ in range(3):
        watched.trust.put_off_trial()
    before = watched.trust.standing, watched.trust.seconds_to_trial()
    watched.trust.connect("second")
    watched.trust.put_off_trial()
    assert before == (Standing.QUARANTINED, LIMITS.busy_pause_seconds)
    assert watched.trust.standing is Standing.TRUSTED


def test_a_service_that_hosts_nothing_leaves_quarantine_untried(watched: Watched) -> None:
    watched.trust.fail_trial("it was wrong")
    watched.trust.release()
    assert watched.trust.standing is Standing.UNTRIED


@pytest.mark.parametrize("leave", [Trust.doubt, lambda trust: trust.connect("first")])
def test_pauses_begin_anew_after_a_doubt_or_a_connection_of_a_calm_service(
    leave: Callable[[Trust], None], watched: Watched
) -> None:
    watched.trust.fail_trial("it was wrong")
    watched.trust.fail_trial("it was wrong")
    watched.trust.pass_trial()
    watched.answer("+" * LIMITS.calm_answers)
    leave(watched.trust)
    watched.trust.fail_trial("it was wrong")
    assert watched.trust.seconds_to_trial() == LIMITS.first_pause_seconds


def test_what_was_computed_wrongly_has_to_be_computed_well_and_pauses_grow(
    watched: Watched,
) -> None:
    evidence = wrong_answer()
    pauses = []
    for _ in range(3):
        watched.trust.convict(evidence)
        assert watched.trust.is_quarantined
        assert watched.trust.evidence is evidence
        pauses.append(watched.trust.seconds_to_trial())
        watched.trust.pass_trial()
        assert watched.trust.evidence is None
        watched.answer("+" * LIMITS.calm_answers)  # which were not looked at
    assert pauses == [1.0, 3.0, 9.0]
    assert watched.trust.num_failures["altered"] == 3


def test_what_another_start_of_a_service_computed_is_no_evidence(watched: Watched) -> None:
    watched.trust.convict(wrong_answer())
    watched.trust.connect("first")
    assert watched.trust.evidence is not None
    watched.trust.connect("second")
    assert watched.trust.evidence is None
