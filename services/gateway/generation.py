"""Runs one request: tokenise, admit, queue, relay."""

import time
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Sequenced
from contextlib import aclosing
from dataclasses import dataclass, replace

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.admission import Admission, Place
from services.gateway.caller import Caller
from services.gateway.choices import sequences_of
from services.gateway.micro_batcher import MicroBatcher
from services.gateway.pacing import ClientPacing
from services.gateway.quotas import TokenQuotas
from services.gateway.receipt import GatewayTimes, write_receipt
from services.gateway.relay import ContinuationEnd, Piece
from services.gateway.relaying import Relaying
from services.gateway.request_metrics import RequestMetrics
from services.gateway.request_names import NamedRequest, RequestNames
from services.gateway.request_trace import RequestTrace, observed
from services.gateway.requests import CheckedRequest, RequestReader, new_tokens_within
from services.gateway.resuming import NOTHING, Resumed, read_resume
from services.gateway.routers import Routers
from services.gateway.sequence import Order, Sequence
from services.gateway.together import Together
from services.gateway.tokeniser import Prompt, Tokeniser
from services.gateway.vllm_metrics import VllmMetrics
from services.runtime.span_writing import SpanRef
from services.wire.errors import Overloaded, TooLong


@dataclass(frozen=True)
class Completed:
    """The end of a request that ended well."""

    reason: common_pb2.FinishReason.ValueType
    stop_string: str | None
    usage: common_pb2.Usage
    receipt: common_pb2.LatencyReceipt
    # Which of the request's continuations it is the end of.
    choice: int = 0


class Generation:
    """What every request goes through; holds the parts, keeps nothing of a request."""

    def __init__(
        self,
        *,
        model: str,
        reader: RequestReader,
        tokeniser: Tokeniser,
        admission: Admission,
        pacing: ClientPacing,
        quotas: TokenQuotas,
        dispatcher: MicroBatcher,
        routers: Routers,
        aliases: VllmMetrics | None = None,
    ) -> None:
        self._model = model
        self._aliases = aliases
        self._reader = reader
        self._tokeniser = tokeniser
        self._admission = admission
        self._pacing = pacing
        self._quotas = quotas
        self._dispatcher = dispatcher
        self._routers = routers
        self._relaying = Relaying(tokeniser, dispatcher, routers)
        self._names = RequestNames()

    async def run(
        self,
        request: pb.GenerateRequest,
        caller: Caller,
        note_start: Callable[[pb.Started], None] | None = None,
        together: Together | None = None,
        note_trace: Callable[[SpanRef], None] | None = None,
    ) -> AsyncGenerator[Piece | Completed, None]:
        """The pieces of the continuation as they come, then how it ended. `note_start` is told what
        a client needs to go on elsewhere, before the first of them; `note_trace`, before anything
        can fail, of the trace that the request is in, if any; `together` has the call's other
        requests. Raises a ServingError for every request that does not end well. When the consumer
        leaves, whatever was begun is given up at once, at the router too.
        """
        times = GatewayTimes(arrived_nanos=time.monotonic_ns())
        trace, metrics = self._begin_observing(request, caller, note_trace)
        with observed(metrics, trace):
            places = [self._admission.enter(caller.client.name)]
            try:
                wanted = self._reader.generate(request)
                resumed = self._resumed(request)
                num_others = wanted.results.num_choices - 1
                places += self._admission.enter_more(caller.client.name, num_others)
                with self._names.named(caller.client.name, request.request_id) as named:
                    order = await self._prepare(
                        *(wanted, resumed, places, caller, trace, times, together)
                    )
                    sequences = sequences_of(
                        *(order, places), now_nanos=time.monotonic_ns(), generated=resumed.token_ids
                    )
                    named.begin(sequences)
                    if note_start is not None:
                        note_start(_started(named, order, trace))
                    try:
                        relayed = await self._relaying.begin(wanted, resumed, sequences, trace)
                        async with aclosing(relayed) as events:
                            async for event in events:
                                if isinstance(event, Piece):
                                    metrics.record_tokens(len(event.token_ids), event.choice)
                                    yield event
                                else:
                                    sequence = sequences[event.choice]
                                    yield self._completed(event, sequence, trace, times, metrics)
                    finally:
                        self._end(sequences, resumed, caller)
            finally:
                for place in places:
                    place.leave()

    def together(self, caller: Caller) -> Together:
        """For a call of several requests, which are run at the same time."""
        return Together(
            max_sequences=self._admission.max_client_requests,
            max_tokens=self._admission.max_client_tokens,
            max_paced=self._pacing.max_waiting(caller.client.requests_per_second),
        )

    async def tokenise(self, prompt: Prompt, caller: Caller) -> list[int]:
        """Token ids of a prompt, for a client that asks for them alone; it counts as waiting
        meanwhile.
        """
        place = self._admission.enter(caller.client.name)
        try:
            encoding = self._tokeniser.encode(prompt, caller.client.name)
            return list(await caller.deadline.bound(encoding, "it was tokenised"))
        finally:
            place.leave()

    async def detokenise(self, token_ids: Sequenced[int], caller: Caller) -> str:
        """The text that token ids read as, for a client that asks for it alone; it counts as
        waiting meanwhile.
        """
        max_context = self._routers.limits.max_context
        if len(token_ids) > max_context:
            raise TooLong(
                f"token_ids has {len(token_ids)} elements; the context takes {max_context}"
            )
        self._reader.check_vocabulary("token_ids", token_ids)
        place = self._admission.enter(caller.client.name)
        try:
            decoding = self._tokeniser.decode(token_ids, caller.client.name)
            return await caller.deadline.bound(decoding, "it was detokenised")
        finally:
            place.leave()

    def _begin_observing(
        self, request: pb.GenerateRequest, caller: Caller, note: Callable[[SpanRef], None] | None
    ) -> tuple[RequestTrace, RequestMetrics]:
        trace = RequestTrace(caller.traceparent, caller.tracestate)
        if note is not None and trace.response is not None:
            note(trace.response)
        operation = "chat" if request.HasField("chat") else "text_completion"
        trace.note({"gen_ai.operation.name": operation, "gen_ai.request.model": self._model})
        return trace, RequestMetrics(operation=operation, model=self._model, aliases=self._aliases)

    async def _prepare(
        self,
        wanted: CheckedRequest,
        resumed: Resumed,
        places: Sequenced[Place],
        caller: Caller,
        trace: RequestTrace,
        times: GatewayTimes,
        together: Together | None,
    ) -> Order:
        started_nanos = time.monotonic_ns()
        with trace.stage("gateway.tokenise"):
            encoding = self._tokeniser.encode(wanted.prompt, caller.client.name)
            prompt_token_ids = await caller.deadline.bound(encoding, "it was tokenised")
        times.tokenise_nanos = time.monotonic_ns() - started_nanos
        trace.note({"gen_ai.usage.input_tokens": len(prompt_token_ids)})
        self._reader.check_tokens(prompt_token_ids)
        limits = self._routers.limits
        max_new_tokens = new_tokens_within(
            num_prompt_tokens=len(prompt_token_ids),
            wanted=wanted.max_new_tokens,
            default=limits.default_max_new_tokens,
            max_context=limits.max_context,
        )
        wanted.results.check_within(max_new_tokens, len(prompt_token_ids))
        resumed.check_within(max_new_tokens)
        started_nanos = time.monotonic_ns()
        with trace.stage("gateway.admit"):
            await self._admit(len(prompt_token_ids), places, caller, together)
        times.queue_nanos = time.monotonic_ns() - started_nanos
        trace.begin_relay()
        return Order(
            prompt_token_ids=prompt_token_ids,
            sampling=resumed.sampling(wanted.sampling),
            max_new_tokens=max_new_tokens,
            stop_token_ids=wanted.stop_token_ids,
            return_routed_experts=wanted.return_routed_experts,
            trace_detail=wanted.trace_detail,
            traceparent=trace.traceparent,
            tracestate=trace.tracestate,
            deadline=caller.deadline,
            client=caller.client.name,
            priority=wanted.priority,
            min_new_tokens=wanted.results.min_new_tokens,
            top_logprobs=wanted.results.top_logprobs,
            prompt_logprobs=wanted.results.prompt_logprobs,
        )

    async def _admit(
        self,
        num_tokens: int,
        places: Sequenced[Place],
        caller: Caller,
        together: Together | None,
    ) -> None:
        """Count a prompt's tokens, and wait for the client's rate, once for each place."""
        first, *others = places
        if together is not None:
            together.add(len(places) * num_tokens)
        try:
            first.claim(num_tokens, *others)
        except Overloaded:
            if together is not None:
                together.check_tokens()
            raise
        self._quotas.charge(caller.client.name, len(places) * num_tokens)
        for _ in places:
            await caller.deadline.bound(
                self._pacing.wait(caller.client.name, caller.client.requests_per_second),
                "it waited for its client's rate",
            )

    def _end(self, sequences: Sequenced[Sequence], resumed: Resumed, caller: Caller) -> None:
        for sequence in sequences:
            self._dispatcher.give_up(sequence)
            num_tokens = sequence.num_tokens - len(resumed.token_ids)
            self._quotas.charge(caller.client.name, num_tokens)

    def _resumed(self, request: pb.GenerateRequest) -> Resumed:
        if not request.HasField("resume"):
            return NOTHING
        resumed = read_resume(request, max_context=self._routers.limits.max_context)
        self._reader.check_vocabulary("resume.generated_token_ids", resumed.token_ids)
        return resumed

    def _completed(
        self,
        ending: ContinuationEnd,
        sequence: Sequence,
        trace: RequestTrace,
        times: GatewayTimes,
        metrics: RequestMetrics,
    ) -> Completed:
        times = replace(times)  # each choice has its own
        times.taken_nanos, times.earlier = sequence.taken_nanos, sequence.earlier
        if sequence.taken_nanos is not None:
            times.queue_nanos += sequence.taken_nanos - sequence.queued_nanos
        times.detokenise_nanos = ending.detokenise_nanos
        trace.note(
            {
                "gen_ai.usage.output_tokens": trace.count_output(ending.num_tokens),
                "moesaic.resumptions": sequence.earlier.num_resumptions,
            }
        )
        completed = Completed(
            ending.reason,
            ending.stop_string,
            common_pb2.Usage(
                prompt_tokens=len(sequence.order.prompt_token_ids),
                completion_tokens=ending.num_tokens,
                seed=sequence.order.sampling.seed,
                overflowed_pairs=sequence.earlier.overflowed_with(ending.overflowed_pairs),
                numerics_fingerprint=self._routers.fingerprint,
            ),
            write_receipt(times, ending.finish, ended_nanos=time.monotonic_ns()),
            ending.choice,
        )
        metrics.record_completion(
            ending.choice, completed.reason, completed.usage, completed.receipt
        )
        return completed


def _started(named: NamedRequest, order: Order, trace: RequestTrace) -> pb.Started:
    return pb.Started(
        request_id=named.name,
        seed=order.sampling.seed,
        prompt_tokens=len(order.prompt_token_ids),
        max_new_tokens=order.max_new_tokens,
        trace_id="" if trace.response is None else trace.response.trace_id.hex(),
    )
