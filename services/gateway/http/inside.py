"""What the routes have of the gateway: all that a service of gRPC has, and no more."""

from collections.abc import Sequence
from dataclasses import dataclass

from moesaic.v1 import generation_pb2 as pb
from services.gateway.caller import Caller
from services.gateway.checkpoint import TextCheckpoint
from services.gateway.generation import Generation
from services.gateway.http.errors import BadField
from services.gateway.http.token_names import TokenNames
from services.gateway.http.visits import Visit
from services.gateway.requests import RequestReader
from services.gateway.routers import Routers


@dataclass(frozen=True)
class Inside:
    """Of one gateway."""

    checkpoint: TextCheckpoint
    reader: RequestReader
    generation: Generation
    routers: Routers
    token_names: TokenNames
    always_metrics: bool
    strict_fields: bool
    # Of a stream, before it begins without a token.
    quiet_seconds: float

    def note_unknown(self, names: Sequence[str], visit: Visit) -> None:
        """Name the fields of a request that nobody knows to who sent it. Raises BadField where they
        are not to be.
        """
        if names and self.strict_fields:
            raise BadField(f"unknown fields: {', '.join(names)}", names[0])
        visit.name_ignored(names)

    async def token_ids(self, request: pb.GenerateRequest, caller: Caller) -> Sequence[int]:
        """The tokens of a request's prompt."""
        return await self.generation.tokenise(self.reader.prompt(request), caller)
