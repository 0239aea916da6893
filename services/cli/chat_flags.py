"""What the flags of a chat say: a message of the user, tools, documents, arguments."""

import json
from pathlib import Path

from moesaic.v1 import generation_pb2
from services.cli.settings import GenerateSettings
from services.runtime.text_files import Unreadable, read_text
from services.wire.errors import InvalidRequest


def say_chat(chat: generation_pb2.Chat, settings: GenerateSettings, prompt: str) -> None:
    """Write into `chat` what the settings say. Raises InvalidRequest, naming the file, for one that
    holds no list of JSON objects; what else is wrong with them is the gateway's to say.
    """
    chat.messages.add(role="user", content=prompt)
    if settings.tools is not None:
        chat.tools_json.extend(_objects(settings.tools))
    if settings.documents is not None:
        chat.documents_json.extend(_objects(settings.documents))
    chat.template_arguments_json = settings.template_arguments or ""


def _objects(path: Path) -> list[str]:
    try:
        value = json.loads(read_text(path))
    except Unreadable as error:
        raise InvalidRequest(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is no JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidRequest(f"{path} must hold a list of objects")
    return [json.dumps(each, ensure_ascii=False) for each in value]
