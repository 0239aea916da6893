"""Limits of what is said of how likely tokens are, for gateways and routers."""

from services.wire.errors import InvalidRequest
from services.wire.ranges import Range

TOP_LOGPROBS = Range(0, 20)
# Tokens that are named with their probabilities for a prompt, all in one message.
MAX_PROMPT_LOGPROBS = 1 << 17


def check_prompt_logprobs(num_prompt_tokens: int, num_top: int) -> None:
    """Raises InvalidRequest where a prompt has too many tokens for that."""
    if num_prompt_tokens * (num_top + 1) > MAX_PROMPT_LOGPROBS:
        raise InvalidRequest(
            f"prompt_logprobs: {num_prompt_tokens} tokens with {num_top} beside each are more than "
            f"{MAX_PROMPT_LOGPROBS} in all"
        )
