"""What a request cost, in a line."""

from services.cli.bench.receipts import TimeKind, spent
from services.cli.cost import NANOS_PER_MILLI
from services.cli.known import Known
from services.cli.request import GenerateResult


def short_receipt(outcome: GenerateResult, known: Known) -> str:
    """Tokens, rate, first token, the share of communication and the slowest service."""
    usage, receipt = outcome.completion.usage, outcome.completion.receipt
    parts = [f"{usage.completion_tokens:,} tokens"]
    if outcome.tokens_per_second is not None:
        parts.append(f"{outcome.tokens_per_second:.0f} tokens/s")
    if outcome.first_token_nanos is not None:
        parts.append(f"first after {outcome.first_token_nanos / NANOS_PER_MILLI:.0f} ms")
    if receipt.end_to_end_nanos:
        share = spent([receipt]).shares[TimeKind.COMMUNICATION]
        parts.append(f"communication {share:.0%}")
    line = ", ".join(parts)
    slowest = known.slowest(receipt)
    return f"{line}; slowest {slowest}" if slowest else line
