"""`python -m services.gateway.prompt_worker`: encodes prompts with one checkpoint's tokenizer and
templates, in a process that may be killed.
"""

from pathlib import Path
from typing import Any

from services.gateway.answering import Answering, answer_lines
from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation
from services.gateway.encoding import encode_in_own_threads
from services.gateway.prompt_tokens import PromptTokensHere
from services.gateway.tokenizer_files import TokenizerFile
from services.metadata.refusals import UnusableModel, in_one_line
from services.wire.errors import InvalidRequest, ServingError

# No context takes more, and whoever reads them should not have to hold them.
MAX_TOKENS = 4 << 20


def begin(beginning: Any) -> Answering:
    """`beginning` has the tokenizer's file and its digest, special tokens, and templates by their
    names; each line after it is a prompt, whose token ids are the answer.
    """
    path, digest, special_tokens, sources = beginning
    file = TokenizerFile(Path(path), digest)
    try:
        prompts = PromptTokensHere(
            file.load(),
            {name: ChatTemplate(source, special_tokens) for name, source in sources.items()},
        )
    except ServingError:
        raise
    except Exception as error:  # the boundary of a checkpoint: anything can be wrong with it
        raise UnusableModel(f"{path} cannot be used: {in_one_line(error)}") from error

    def encoded(prompt: Any) -> list[int]:
        ids = _encoded(prompts, prompt)
        if len(ids) > MAX_TOKENS:
            raise InvalidRequest(f"the model's tokenizer makes {len(ids)} tokens of it")
        return ids

    return encoded


def _encoded(prompts: PromptTokensHere, prompt: Any) -> list[int]:
    try:
        if "text" in prompt:
            return prompts.of_text(prompt["text"], add_special_tokens=prompt["add_special_tokens"])
        return prompts.of_chat(
            Conversation.of_object(prompt["chat"]),
            prompt["template"],
            parse_control_tokens=prompt["parse_control_tokens"],
        )
    except InvalidRequest:
        raise
    except BaseException as error:  # the boundary of a prompt: what a pattern raises is a panic
        raise InvalidRequest(
            f"the model's tokenizer gives up on the text: {in_one_line(error)}"
        ) from error


if __name__ == "__main__":
    encode_in_own_threads()
    answer_lines(begin)
