"""Prompts to token ids and token ids to text, in a thread pool."""

from collections.abc import Sequence
from dataclasses import dataclass

from moesaic.v1 import generation_pb2 as pb
from services.gateway.chat_reading import read_chat
from services.gateway.checkpoint import TextCheckpoint
from services.gateway.detokeniser import Detokeniser
from services.gateway.encoding import decode
from services.gateway.prompt_tokens import PromptTokens, PromptTokensHere
from services.gateway.prompts_apart import PromptTokensApart
from services.gateway.templates_apart import TemplateApart
from services.gateway.token_texts import TokenTexts
from services.gateway.turns import FairThreads


@dataclass(frozen=True)
class TextPrompt:
    """Plain text, tokenised with the model's special tokens, or without them."""

    text: str
    without_special_tokens: bool = False


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation that was checked, and the name of the template that renders it."""

    chat: pb.Chat
    template_name: str


@dataclass(frozen=True)
class TokenPrompt:
    """Token ids, taken as they are."""

    token_ids: Sequence[int]


Prompt = TextPrompt | ChatPrompt | TokenPrompt


class Tokeniser:
    """A checkpoint's tokenizer, in threads that keep the loop free."""

    def __init__(self, checkpoint: TextCheckpoint, *, threads: int) -> None:
        self._tokenizer = checkpoint.tokenizer
        self._bos_token_id = checkpoint.adds_bos_token_id
        self._special_tokens = checkpoint.special_tokens
        self._prompts = _prompts(checkpoint)
        self._texts = TokenTexts.of(self._tokenizer)
        self._all_texts = TokenTexts.of(self._tokenizer, keep_special_tokens=True)
        self._threads = FairThreads(threads, name="tokenise")

    async def encode(self, prompt: Prompt, client: str) -> Sequence[int]:
        """Token ids of a prompt, its special tokens included.

        Clients take turns at the threads. Raises InvalidRequest when the chat template refuses the
        messages. How many prompts wait for a thread is bounded by admission.
        """
        if isinstance(prompt, TokenPrompt):
            return prompt.token_ids
        if isinstance(prompt, TextPrompt):
            plain = prompt
            return await self._threads.do(client, lambda: self._encode_text(plain))
        chat = prompt
        return await self._threads.do(client, lambda: self._encode_chat(chat))

    async def decode(self, token_ids: Sequence[int], client: str) -> str:
        """The text of token ids, special ones included; in turn, as `encode`."""
        return await self._threads.do(client, lambda: decode(self._tokenizer, token_ids))

    def detokeniser(
        self, prompt_token_ids: Sequence[int] = (), *, keep_special_tokens: bool = False
    ) -> Detokeniser:
        """For the tokens of one continuation of a prompt; its short windows are decoded on the
        event loop.
        """
        texts = self._all_texts if keep_special_tokens else self._texts
        return Detokeniser(texts, prompt_token_ids)

    def close(self) -> None:
        """End the threads; prompts that wait for one are given up."""
        self._threads.close()
        self._prompts.close()

    def _encode_text(self, prompt: TextPrompt) -> list[int]:
        add_special_tokens = not prompt.without_special_tokens
        ids = self._prompts.of_text(prompt.text, add_special_tokens=add_special_tokens)
        if self._bos_token_id is None or not add_special_tokens:
            return ids
        return [self._bos_token_id, *ids]

    def _encode_chat(self, prompt: ChatPrompt) -> list[int]:
        conversation = read_chat(prompt.chat, self._special_tokens)
        # The template writes the special tokens itself.
        return self._prompts.of_chat(
            conversation,
            prompt.template_name,
            parse_control_tokens=prompt.chat.parse_control_tokens,
        )


def _prompts(checkpoint: TextCheckpoint) -> PromptTokens:
    special_tokens, sources = checkpoint.special_tokens, checkpoint.chat_templates.sources
    if checkpoint.encoded_apart is not None:
        return PromptTokensApart(checkpoint.encoded_apart, special_tokens, sources)
    return PromptTokensHere(
        checkpoint.tokenizer,
        {name: TemplateApart(source, special_tokens) for name, source in sources.items()},
    )
