"""Which clusters bench.generate compares, and how they are called."""

from argparse import ArgumentParser

import pytest

from bench.generate.kinds import Kind, add_threads, kinds_of, pairs
from bench.rig.transports import GRPC, NATIVE


def threads(*flags: str) -> tuple[int | None, ...]:
    parser = ArgumentParser()
    add_threads(parser)
    found: tuple[int | None, ...] = parser.parse_args(flags).threads
    return found


def test_clusters_differ_in_their_transport_alone_unless_threads_are_said() -> None:
    kinds = kinds_of((GRPC, NATIVE), threads())
    assert kinds == [Kind(GRPC, GRPC, 1), Kind(NATIVE, NATIVE, 1)]
    assert pairs([kind.name for kind in kinds]) == [(NATIVE, GRPC)]


def test_numbers_of_threads_are_compared_with_the_first() -> None:
    kinds = kinds_of((NATIVE,), threads("--threads", "1,2,auto"))
    assert [kind.threads for kind in kinds] == [1, 2, None]
    one, two, auto = (kind.name for kind in kinds)
    assert (one, two, auto) == ("native, threads 1", "native, threads 2", "native, threads auto")
    assert pairs([one, two, auto]) == [(two, one), (auto, one)]
    assert pairs([one]) == []


@pytest.mark.parametrize("text", ["0", "many", "1,,2", "-1"])
def test_what_is_no_number_of_threads_is_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        threads(f"--threads={text}")
    assert "no list of positive numbers" in capsys.readouterr().err
