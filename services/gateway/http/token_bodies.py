"""The fields of requests for tokens, and for the text that they read as."""

from services.gateway.http.bodies import Body, TokenIds
from services.gateway.http.messages import Messages, TemplateBody


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
