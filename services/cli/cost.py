"""What a request cost: the table for people and the object for programs."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from rich.table import Table

from moesaic.v1 import common_pb2
from services.cli.known import NOTHING_KNOWN, Known
from services.cli.request import GenerateResult

# Field of PhaseReceipt, and what it is called here, in the order in which a token passes them.
PHASE_PARTS = (
    ("step_wait_nanos", "step wait"),
    ("dense_nanos", "attention and dense"),
    ("gate_nanos", "gate"),
    ("encode_nanos", "encode"),
    ("wire_nanos", "wire"),
    ("expert_queue_nanos", "expert queue"),
    ("expert_compute_nanos", "expert compute"),
    ("straggler_wait_nanos", "straggler wait"),
    ("lane_wait_nanos", "lane wait"),
    ("combine_nanos", "combine"),
    ("sampling_nanos", "sampling"),
)
# Fields of LatencyReceipt around those of its phases.
BEFORE = (
    ("gateway_queue_nanos", "gateway queue"),
    ("tokenise_nanos", "tokenise"),
    ("gateway_router_nanos", "gateway to router"),
    ("lost_router_nanos", "lost routers"),
)
AFTER = (("detokenise_nanos", "detokenise"), ("unaccounted_nanos", "unaccounted"))
NANOS_PER_MILLI = 1e6


def as_object(outcome: GenerateResult) -> dict[str, Any]:
    """What `--json` prints: text, token_ids, finish_reason, usage and receipt, likelihoods and
    other choices where they are asked for, named as in the protos.
    """
    return {
        "text": outcome.text,
        "token_ids": outcome.token_ids,
        "finish_reason": outcome.finish_reason,
        "usage": plain(outcome.completion.usage),
        "receipt": plain(outcome.completion.receipt),
        **{
            name: [_position(each) for each in said]
            for name, said in (
                ("logprobs", outcome.logprobs),
                ("prompt_logprobs", outcome.prompt_logprobs),
            )
            if said
        },
        **({"others": [as_object(each) for each in outcome.others]} if outcome.others else {}),
    }


def _position(position: common_pb2.PositionLogprobs) -> dict[str, Any]:
    return plain(position.token) | {"top": [plain(each) for each in position.top]}


def plain(message: Message) -> dict[str, Any]:
    """A message as a dictionary of every singular field, 64-bit numbers as numbers."""
    return {
        field.name: plain(value) if field.type == FieldDescriptor.TYPE_MESSAGE else value
        for field in message.DESCRIPTOR.fields
        for value in [getattr(message, field.name)]
    }


def summary(outcome: GenerateResult) -> str:
    """Tokens, time to the first one, and tokens per second, in one line."""
    usage = outcome.completion.usage
    parts = [f"{usage.prompt_tokens} + {usage.completion_tokens} tokens ({outcome.finish_reason})"]
    if outcome.first_token_nanos is not None:
        parts.append(f"first after {outcome.first_token_nanos / NANOS_PER_MILLI:.1f} ms")
    if outcome.tokens_per_second is not None:
        parts.append(f"{outcome.tokens_per_second:.1f} tokens/s")
    parts.append(f"seed {usage.seed}")
    return ", ".join(parts)


def receipt_table(receipt: common_pb2.LatencyReceipt) -> Table:
    """The latency receipt by part; parts that took no time are left out, what is unaccounted never
    is.
    """
    table = Table(title="where the time went", title_justify="left", box=None, pad_edge=False)
    for heading in ("", "prefill ms", "decode ms", "all ms", "share"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, label in BEFORE:
        _add(table, receipt, label, getattr(receipt, name))
    for name, label in PHASE_PARTS:
        prefill, decode = getattr(receipt.prefill, name), getattr(receipt.decode, name)
        _add(table, receipt, label, prefill + decode, _millis(prefill), _millis(decode))
    for name, label in AFTER:
        _add(table, receipt, label, getattr(receipt, name), keep=name == "unaccounted_nanos")
    _add(table, receipt, "end to end", receipt.end_to_end_nanos, keep=True)
    return table


def remarks(receipt: common_pb2.LatencyReceipt, known: Known = NOTHING_KNOWN) -> list[str]:
    """What the receipt names beside durations: steps, the slowest service, frames sent again."""
    lines = [f"steps: {receipt.prefill.steps} prefill, {receipt.decode.steps} decode"]
    if receipt.slowest_service:
        lines.append(f"slowest service: {known.slowest(receipt)}")
    if receipt.retries:
        lines.append(f"frames sent again: {receipt.retries}")
    if receipt.resumptions:
        lines.append(f"routers lost or stopped on the way: {receipt.resumptions}")
    if receipt.hedges:
        lines.append(f"copies of late frames: {receipt.hedges}")
    return lines


def _add(
    table: Table,
    receipt: common_pb2.LatencyReceipt,
    label: str,
    nanos: int,
    prefill: str = "",
    decode: str = "",
    *,
    keep: bool = False,
) -> None:
    if nanos or keep:
        share = nanos / receipt.end_to_end_nanos if receipt.end_to_end_nanos else 0.0
        table.add_row(label, prefill, decode, _millis(nanos), f"{share:.1%}")


def _millis(nanos: int) -> str:
    return f"{nanos / NANOS_PER_MILLI:,.2f}"
