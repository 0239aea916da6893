"""/tokenize and /detokenize: text to token ids and back, as vLLM has them."""

from aiohttp import web

from moesaic.v1 import generation_pb2 as pb
from services.gateway.caller import Caller
from services.gateway.http.bodies import Body, TokenIds, read_body
from services.gateway.http.errors import BadField
from services.gateway.http.inside import Inside
from services.gateway.http.messages import Messages, TemplateBody, written_chat
from services.gateway.http.visits import VISIT


class TokenizeBody(TemplateBody):
    """A text or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """Token ids."""

    model: str | None = None
    tokens: TokenIds


class TokenRoutes:
    """Both of them."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def tokenize(self, request: web.Request, caller: Caller, body: bytes) -> web.Response:
        """The token ids that a prompt is."""
        inside = self._inside
        asked = read_body(TokenizeBody, body)
        inside.note_unknown(asked, request[VISIT])
        inside.reader.check_model(asked.model or "")
        prompt = inside.reader.prompt(_tokenize_request(asked))
        ids = await inside.generation.tokenise(prompt, caller)
        names = inside.token_names
        return web.json_response(
            {
                "count": len(ids),
                "max_model_len": inside.routers.limits.max_context,
                "tokens": ids,
                "token_strs": (
                    [names.of(one).text for one in ids] if asked.return_token_strs else None
                ),
            }
        )

    async def detokenize(self, request: web.Request, caller: Caller, body: bytes) -> web.Response:
        """The text that token ids read as, special ones included."""
        inside = self._inside
        asked = read_body(DetokenizeBody, body)
        inside.note_unknown(asked, request[VISIT])
        inside.reader.check_model(asked.model or "")
        text = await inside.generation.detokenise(asked.tokens, caller)
        return web.json_response({"prompt": text})


def _tokenize_request(asked: TokenizeBody) -> pb.TokenizeRequest:
    if (asked.prompt is None) == (asked.messages is None):
        raise BadField("either prompt or messages must be set", "prompt")
    request = pb.TokenizeRequest(
        model=asked.model or "", without_special_tokens=asked.add_special_tokens is False
    )
    if asked.messages is None:
        request.text = asked.prompt or ""
        return request
    if asked.add_special_tokens:
        raise BadField("add_special_tokens goes with prompt alone", "add_special_tokens")
    request.chat.CopyFrom(written_chat(asked.messages, asked))
    return request
