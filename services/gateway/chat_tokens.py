"""Tokens of a chat: control tokens are those that the template writes; what users spell
stays text.
"""

from collections.abc import Mapping

from tokenizers import Tokenizer

from services.gateway.chat import Template
from services.gateway.control_tokens import SecretTokenizer, control_tokens
from services.gateway.conversation import Change, Conversation
from services.gateway.disguise import Spellings, hidden_characters
from services.wire.errors import InvalidRequest


class ChatTokens:
    """Renders and tokenises chats.

    Where a text of the conversation spells control tokens, the first character of each is disguised
    while the template runs. What is a control token then is the template's, and gets a secret
    spelling before the disguise is taken off and all is encoded at once.

    Texts that spell none could make one of their pieces, or with the template's words: where they
    have characters for it the template runs once more with all of those disguised. That rendering
    counts where the first has other control tokens.
    """

    def __init__(self, tokenizer: Tokenizer, template: Template) -> None:
        self._tokenizer = tokenizer
        self._template = template
        control = control_tokens(tokenizer, template)
        self._spellings = Spellings(control.values(), template)
        # Looked for in normalised text, where other characters can come to spell them.
        self._normalised = [
            tokenizer.normalizer.normalize_str(token.content)
            for token in control.values()
            if token.normalized and tokenizer.normalizer is not None
        ]
        self._secret = SecretTokenizer(tokenizer, control)

    def encode(self, conversation: Conversation, *, parse_control_tokens: bool) -> list[int]:
        """Token ids of the prompt that asks for what comes next in the conversation.

        With `parse_control_tokens` what users spell is control tokens, too. Raises InvalidRequest
        where the template refuses the messages, or where the tokenizer cannot read a control token
        as text.
        """
        if parse_control_tokens or not self._is_risky(conversation):
            ids: list[int] = self._tokenizer.encode(
                self._template.render(conversation), add_special_tokens=False
            ).ids
            return ids
        hidden = hidden_characters(self._spellings, conversation)
        rendered = self._rendered(conversation, self._spellings.spelt_hidden(hidden))
        surely = self._rendered(conversation, self._spellings.all_hidden(hidden))
        if self._secret.spelt_in(rendered) != self._secret.spelt_in(surely):
            rendered = surely
        return self._encode_in_secret(rendered, hidden)

    def _is_risky(self, conversation: Conversation) -> bool:
        texts = [*conversation.texts()]
        if any(map(self._spellings.is_risky, texts)):
            return True
        if not self._normalised:
            return False
        normalised = self._tokenizer.normalizer.normalize_str("\0".join(texts))
        return self._spellings.is_risky(normalised) or any(
            token in normalised for token in self._normalised
        )

    def _rendered(self, conversation: Conversation, change: Change) -> str:
        return self._template.render(conversation.changed(change))

    def _encode_in_secret(self, rendered: str, hidden: Mapping[int, int]) -> list[int]:
        text = self._secret.in_secret(rendered).translate(
            {after: before for before, after in hidden.items()}
        )
        try:
            return self._secret.encode(text)
        except ValueError as error:
            raise InvalidRequest(
                f"chat: the model's tokenizer cannot read {str(error)!r} as text; leave it out, "
                "or set chat.parse_control_tokens to have it as a control token"
            ) from error
