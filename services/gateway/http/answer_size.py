"""Bounds an answer in one piece, which is held until the last token is there."""

from collections.abc import Sequence

from moesaic.v1 import generation_pb2 as pb
from services.gateway.http.continuations import Continuation
from services.gateway.http.errors import BadField
from services.gateway.http.wanted import Wanted
from services.gateway.routers import Routers

MAX_ANSWER_BYTES = 128 << 20
# About what each of them takes, as it is kept or as JSON, of which is more: a token with its text
# and id; one that is named with its likelihood; the experts of a token, by layer and by expert.
TOKEN_BYTES, NAMED_BYTES, LAYER_BYTES, EXPERT_BYTES = 128, 128, 64, 16
ID_BYTES = 8
# Of a character, as JSON writes it.
PLAIN_BYTES, OTHER_BYTES = 2, 6


def check_size(
    continuations: Sequence[Continuation],
    requests: Sequence[pb.GenerateRequest],
    wanted: Wanted,
    routers: Routers,
) -> None:
    """Raises BadField, naming the fields, where the answer could be larger than may be held.

    Continuations are of the requests in their order, of each as many.
    """
    num_choices = len(continuations) // len(requests)
    of_all = sum(
        _bytes_of(one, requests[number // num_choices], wanted, routers)
        for number, one in enumerate(continuations)
    )
    if of_all > MAX_ANSWER_BYTES:
        fields = _fields(requests, num_choices, wanted)
        raise BadField(
            f"{', '.join(fields)}: together they ask for an answer of up to {of_all >> 20} MiB; "
            f"in one piece it may have {MAX_ANSWER_BYTES >> 20}: stream it, or ask for less",
            fields[0],
        )


def _bytes_of(
    one: Continuation, request: pb.GenerateRequest, wanted: Wanted, routers: Routers
) -> int:
    named = NAMED_BYTES * (request.top_logprobs + 1) if request.HasField("top_logprobs") else 0
    prompt, num_prompt_tokens = one.prompt, len(one.prompt.token_ids)
    is_plain = prompt.echo.isascii() and prompt.echo.isprintable()
    of_prompt = len(prompt.echo) * (PLAIN_BYTES if is_plain else OTHER_BYTES)
    if wanted.echo:
        of_prompt += num_prompt_tokens * named
    if wanted.token_ids:
        of_prompt += num_prompt_tokens * ID_BYTES
    each = TOKEN_BYTES + named
    if wanted.routed_experts:
        router = routers.description
        per_layer = LAYER_BYTES + EXPERT_BYTES * router.num_experts_per_token
        each += router.num_moe_layers * per_layer
    return of_prompt + each * _most_tokens(request, routers)


def _most_tokens(request: pb.GenerateRequest, routers: Routers) -> int:
    limits, stop = routers.limits, request.stop
    wanted = stop.max_new_tokens if stop.HasField("max_new_tokens") else None
    return min(limits.max_context, limits.default_max_new_tokens if wanted is None else wanted)


def _fields(requests: Sequence[pb.GenerateRequest], num_choices: int, wanted: Wanted) -> list[str]:
    fields = {
        "max_tokens": True,
        "n": num_choices > 1,
        "prompt": len(requests) > 1 or wanted.echo,
        "top_logprobs" if wanted.is_chat else "logprobs": wanted.logprobs,
        "return_routed_experts": wanted.routed_experts,
    }
    return [name for name, counts in fields.items() if counts]
