"""What a request is said to have cost."""

import json

from rich.console import Console

from moesaic.v1 import common_pb2, generation_pb2
from services.cli.cost import PHASE_PARTS, as_object, plain, receipt_table, remarks, summary
from services.cli.known import Known
from services.cli.request import GenerateResult
from services.cli.short_receipt import short_receipt

RECEIPT = common_pb2.LatencyReceipt(
    end_to_end_nanos=10_000_000,
    tokenise_nanos=1_000_000,
    prefill=common_pb2.PhaseReceipt(dense_nanos=2_000_000, steps=1),
    decode=common_pb2.PhaseReceipt(dense_nanos=1_000_000, wire_nanos=5_000_000, steps=7),
    unaccounted_nanos=1_000_000,
    slowest_service="127.0.0.1:50053",
    slowest_service_layers=5,
    retries=2,
)


def outcome() -> GenerateResult:
    usage = common_pb2.Usage(prompt_tokens=3, completion_tokens=5, seed=2**64 - 1)
    return GenerateResult(
        text="so\n\u2028it goes",
        token_ids=[1, 2, 3, 4, 5],
        first_token_nanos=20_000_000,
        last_token_nanos=60_000_000,
        completion=generation_pb2.Completion(
            finish_reason=common_pb2.FINISH_REASON_LENGTH, usage=usage, receipt=RECEIPT
        ),
    )


def rendered(receipt: common_pb2.LatencyReceipt = RECEIPT) -> list[str]:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(receipt_table(receipt))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_every_duration_of_a_phase_has_its_row() -> None:
    durations = {field.name for field in common_pb2.PhaseReceipt.DESCRIPTOR.fields} - {"steps"}
    assert {name for name, _ in PHASE_PARTS} == durations


def test_a_part_is_shown_by_phase_with_its_share() -> None:
    assert "attention and dense 2.00 1.00 3.00 30.0%" in rendered()
    assert "wire 0.00 5.00 5.00 50.0%" in rendered()
    assert "tokenise 1.00 10.0%" in rendered()


def test_what_is_unaccounted_is_shown() -> None:
    assert "unaccounted 1.00 10.0%" in rendered()


def test_parts_that_took_no_time_are_left_out() -> None:
    assert not any(line.startswith("combine") for line in rendered())


def test_the_shares_of_an_empty_receipt_are_nought() -> None:
    assert rendered(common_pb2.LatencyReceipt())[-2:] == [
        "unaccounted 0.00 0.0%",
        "end to end 0.00 0.0%",
    ]


def test_the_summary_has_tokens_first_token_and_rate() -> None:
    assert summary(outcome()) == (
        f"3 + 5 tokens (length), first after 20.0 ms, 100.0 tokens/s, seed {2**64 - 1}"
    )


def test_a_single_token_has_no_rate() -> None:
    one = outcome()
    one.last_token_nanos = one.first_token_nanos
    assert one.tokens_per_second is None
    assert "tokens/s" not in summary(one)


def test_the_slowest_service_and_frames_sent_again_are_named() -> None:
    assert remarks(RECEIPT) == [
        "steps: 1 prefill, 7 decode",
        "slowest service: 127.0.0.1:50053, straggler in 5 layers",
        "frames sent again: 2",
    ]
    assert remarks(common_pb2.LatencyReceipt()) == ["steps: 0 prefill, 0 decode"]


def test_the_object_is_one_line_of_json_with_whole_numbers() -> None:
    line = json.dumps(as_object(outcome()))
    assert "\n" not in line
    read = json.loads(line)
    assert set(read) == {"text", "token_ids", "finish_reason", "usage", "receipt"}
    assert read["finish_reason"] == "length"
    assert read["usage"]["seed"] == 2**64 - 1
    assert read["receipt"]["decode"]["wire_nanos"] == 5_000_000


def test_fields_that_are_nought_are_in_the_object_too() -> None:
    assert plain(common_pb2.Usage())["overflowed_pairs"] == 0


def test_the_short_receipt_is_a_line_that_names_the_service() -> None:
    known = Known({"127.0.0.1:50053": "expert-0"}, num_moe_layers=150)
    assert short_receipt(outcome(), known) == (
        "5 tokens, 100 tokens/s, first after 20 ms, communication 50%; slowest expert-0, "
        "straggler in 5 of 1,200 layers"
    )


def test_a_service_without_a_name_has_its_address_and_unknown_layers_are_not_counted() -> None:
    assert short_receipt(outcome(), Known()).endswith(
        "slowest 127.0.0.1:50053, straggler in 5 layers"
    )
    assert "slowest service: 127.0.0.1:50053, straggler in 5 layers" in remarks(RECEIPT)


def test_an_empty_receipt_is_short() -> None:
    empty = GenerateResult(completion=generation_pb2.Completion())
    assert short_receipt(empty, Known()) == "0 tokens"
