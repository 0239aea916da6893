"""What a chaos run says of its answers: each kind of fault is seen, and put down to the event that
did it.
"""

from bench.hosting.findings import Finding, Window, findings_of, gaps_within, moment_of_alteration
from bench.hosting.streams import Answer
from bench.hosting.truth import Faults

REFERENCE = [Answer(0, 0.0, [1.0, 2.0, 3.0], [1, 2, 3], [1, 2, 3], "one two three")]
NO_FAULTS = Faults((), ())


def answer(began: float, *arrivals: float, **differing: object) -> Answer:
    """A right answer, a token with each arrival and what lacks with the last, except for what
    differs.
    """
    counts = [*range(1, len(arrivals)), 3]
    whole = Answer(0, began, list(arrivals), counts, [1, 2, 3], "one two three", ended=arrivals[-1])
    for name, value in differing.items():
        setattr(whole, name, value)
    return whole


def failed(token_ids: list[int], text: str, *arrivals: float) -> Answer:
    counts = list(range(1, len(arrivals) + 1))
    return Answer(
        0, 9.0, list(arrivals), counts, token_ids, text, "UNAVAILABLE: gone", ended=arrivals[-1]
    )


def window(began: float, ended: float, *, faults: Faults = NO_FAULTS) -> Window:
    return Window(f"event at {began:g}", began, ended, 0, faults)


def found(*answers: Answer, faults: Faults = NO_FAULTS) -> Finding:
    (finding,) = findings_of([window(10.0, 20.0, faults=faults)], answers, REFERENCE)
    return finding


def test_an_answer_that_is_the_same_is_no_complaint() -> None:
    finding = found(answer(9.0, 11.0, 12.0, 12.5))
    assert finding.num_requests == 1
    assert finding.complaints() == []


def test_answers_before_and_after_did_not_meet_the_event() -> None:
    assert found(answer(1.0, 2.0, 9.0), answer(21.0, 22.0)).num_requests == 0


def test_an_alteration_is_dated_to_the_token_that_is_another_one() -> None:
    assert moment_of_alteration(answer(0.0, 1.0, 2.0, 3.0), REFERENCE[0]) is None
    assert (
        moment_of_alteration(answer(0.0, 1.0, 2.0, 3.0, token_ids=[1, 9, 3]), REFERENCE[0]) == 2.0
    )
    assert (
        moment_of_alteration(answer(0.0, 1.0, 2.0, 3.0, text="one two thre"), REFERENCE[0]) == 3.0
    )


def test_an_answer_that_lacks_a_token_is_altered() -> None:
    short = answer(0.0, 1.0, 2.0, token_ids=[1, 2], counts=[1, 2])
    assert moment_of_alteration(short, REFERENCE[0]) == 2.0


def test_a_request_that_failed_is_altered_only_in_what_it_had_got() -> None:
    assert moment_of_alteration(failed([1, 2], "one two", 12.0, 13.0), REFERENCE[0]) is None
    assert moment_of_alteration(failed([2], "", 12.0), REFERENCE[0]) == 12.0
    assert moment_of_alteration(failed([1], "two", 12.0), REFERENCE[0]) == 12.0


def test_failures_and_alterations_are_complaints() -> None:
    finding = found(failed([1], "one", 12.0), answer(9.0, 12.0, token_ids=[1, 2, 4]))
    assert finding.complaints() == [
        "event at 10: a request failed: UNAVAILABLE: gone",
        "event at 10: request 0 was answered with other bytes",
    ]


def test_faults_are_put_down_to_the_event_that_began_last_before_them() -> None:
    windows = [window(10.0, 20.0), window(20.0, 30.0), window(30.0, 40.0)]
    across = answer(9.0, 15.0, 25.0, 35.0, token_ids=[1, 9, 3])
    findings = findings_of(windows, [across, failed([1], "one", 39.0)], REFERENCE)
    assert [finding.num_requests for finding in findings] == [2, 2, 2]
    assert [len(finding.altered) for finding in findings] == [0, 1, 0]
    assert [len(finding.failures) for finding in findings] == [0, 0, 1]


def test_lost_experts_and_invalid_placements_are_complaints() -> None:
    faults = Faults([(3, 7)], ["expert-0 hosts (1, 2) twice"])
    assert found(answer(9.0, 12.0), faults=faults).complaints() == [
        "event at 10: expert 7 of layer 3 is lost",
        "event at 10: expert-0 hosts (1, 2) twice",
    ]


def test_the_longest_gap_is_that_of_tokens_around_and_within_the_event() -> None:
    long_before = answer(
        0.0, 1.0, 8.0, 11.0
    )  # 7 s passed before the event; of its gaps only the second meets it
    assert found(long_before).longest_gap == 3.0
    across = answer(0.0, 9.0, 21.5)
    assert found(long_before, across).longest_gap == 12.5


def test_gaps_within_a_segment_lie_in_it_whole() -> None:
    assert gaps_within(
        [answer(0.0, 9.0, 11.0, 12.0), answer(0.0, 14.0, 16.0, 21.0)], 10.0, 20.0
    ) == [1.0, 2.0]
