"""Requests of OpenAI's API as GenerateRequest: every one of their fields is a field of that."""

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.http.fields import ChatBody, GenerationBody, TextBody
from services.gateway.http.messages import written_chat

SAMPLING_FIELDS = (
    *("temperature", "top_p", "min_p"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("logit_bias", "allowed_token_ids"),
)


def chat_request(body: ChatBody) -> pb.GenerateRequest:
    """The request that a chat is. Raises BadField for what is refused by name."""
    body.check()
    request = _request(body, body.max_tokens)
    if body.max_completion_tokens is not None:
        request.stop.max_new_tokens = body.max_completion_tokens
    if body.logprobs:
        request.top_logprobs = body.top_logprobs or 0
    request.chat.CopyFrom(written_chat(body.messages, body))
    return request


def text_requests(body: TextBody) -> list[pb.GenerateRequest]:
    """A request for each prompt. Raises BadField for what is refused by name."""
    body.check()
    # Nothing is to be generated after an echo: one token is, and left out of the answer.
    shared = _request(body, max(1, body.max_tokens) if body.max_tokens is not None else None)
    shared.without_special_tokens = body.add_special_tokens is False
    if body.logprobs is not None:
        shared.top_logprobs = body.logprobs
        shared.prompt_logprobs = bool(body.echo)
    requests = []
    for index, prompt in enumerate(body.prompts):
        request = pb.GenerateRequest()
        request.CopyFrom(shared)
        if index and body.request_id:
            # Of one name the newer request would end the older one.
            request.request_id = f"{body.request_id}-{index}"
        if isinstance(prompt, str):
            request.text = prompt
        else:
            request.token_ids.ids.extend(prompt)
        requests.append(request)
    return requests


def _request(body: GenerationBody, max_tokens: int | None) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        model=body.model or "",
        sampling=_sampling(body),
        stop=common_pb2.StopConditions(
            max_new_tokens=max_tokens,
            stop_strings=body.stop or (),
            stop_token_ids=body.stop_token_ids or (),
            ignore_eos=bool(body.ignore_eos),
            min_new_tokens=body.min_tokens or 0,
            include_stop_string=bool(body.include_stop_str_in_output),
        ),
        return_routed_experts=bool(body.return_routed_experts),
        request_id=body.request_id or "",
        priority=_priority(body.priority or 0),
        num_choices=body.n or 0,
        keep_special_tokens=body.skip_special_tokens is False,
    )


def _sampling(body: GenerationBody) -> common_pb2.SamplingParameters:
    asked = {name: getattr(body, name) for name in SAMPLING_FIELDS}
    sampling = common_pb2.SamplingParameters(
        **{name: value for name, value in asked.items() if value is not None}
    )
    if body.top_k is not None:
        sampling.top_k = max(0, body.top_k)
    if body.seed is not None:
        sampling.seed = body.seed % 2**64  # negative ones are others of the same 64 bits
    return sampling


def _priority(priority: int) -> pb.Priority.ValueType:
    """What is lower goes first, as vLLM has it."""
    if priority == 0:
        return pb.PRIORITY_UNSPECIFIED
    return pb.PRIORITY_HIGH if priority < 0 else pb.PRIORITY_LOW
