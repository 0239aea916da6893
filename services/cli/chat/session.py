"""One conversation: questions to the gateway, their answers, and what they cost."""

from collections.abc import Callable
from dataclasses import dataclass, field

from moesaic.v1 import common_pb2, generation_pb2
from services.cli.chat.conversation import Conversation
from services.cli.chat.settings import ChatSettings
from services.cli.cluster import LocalCluster
from services.cli.known import Known
from services.cli.request import GenerateResult, stream
from services.cli.sampling_flags import say_sampling
from services.runtime.span_writing import SpanRef


@dataclass
class Answer:
    """What came of the latest question; `is_whole` unless it was stopped. `trace_id` is that of its
    trace, where somebody keeps one.
    """

    trace_id: str
    outcome: GenerateResult = field(default_factory=GenerateResult)
    is_whole: bool = False


class Session:
    """A conversation with the model of one cluster, and how its answers are to be drawn."""

    def __init__(
        self, settings: ChatSettings, cluster: LocalCluster, model: generation_pb2.GetModelResponse
    ) -> None:
        self.model = model
        self.cluster = cluster
        self.known = Known(cluster.names, model.num_moe_layers)
        self.conversation = Conversation(model.has_chat_template, settings.system)
        self.sampling = common_pb2.SamplingParameters()
        self.max_new_tokens = settings.max_new_tokens
        self.answer: Answer | None = None
        self._settings = settings
        asked = generation_pb2.GenerateRequest()
        say_sampling(asked, settings)
        self.sampling.CopyFrom(asked.sampling)

    async def ask(self, text: str, write: Callable[[str], None]) -> Answer:
        """Ask the model, and `write` its answer as it comes. Raises RequestFailed, as where the
        answer is stopped, with what was said kept: a question that got no word of an answer is
        taken back.
        """
        self.conversation.ask(text)
        span = SpanRef.root()
        self.answer = Answer(span.trace_id.hex())
        said: list[str] = []

        def hear(piece: str) -> None:
            said.append(piece)
            write(piece)

        try:
            self.answer.outcome = await stream(
                (self.cluster.gateway,), self._request(), self._settings, hear, parent=span
            )
            self.answer.is_whole = True
        finally:
            self.conversation.answer("".join(said))
        return self.answer

    def _request(self) -> generation_pb2.GenerateRequest:
        request = generation_pb2.GenerateRequest(
            # A person looks at one answer at a time: it may be looked into.
            trace_detail=common_pb2.TRACE_DETAIL_LAYER,
            return_routed_experts=True,
            sampling=self.sampling,
        )
        self.conversation.say(request)
        if self.max_new_tokens is not None:
            request.stop.max_new_tokens = self.max_new_tokens
        return request
