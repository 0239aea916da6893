"""A conversation as templates are given it, before each of them gets the form that it takes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# What a caller says of a text: its own words, and whether an assistant said them.
Change = Callable[[str, bool], str]


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that an assistant made."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """What one speaker says: words, or parts of them; an empty field was not said."""

    role: str
    content: str | Sequence[str] = ""
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str = ""
    name: str = ""
    reasoning: str = ""


@dataclass(frozen=True)
class Conversation:
    """Messages, oldest first, and what else a template reads: plain values, as JSON has them."""

    messages: Sequence[Message]
    tools: Sequence[Any] = ()
    documents: Sequence[Any] = ()
    # Further variables of the template.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    continue_final_message: bool = False
    add_generation_prompt: bool = True

    def as_object(self) -> dict[str, Any]:
        """A JSON object that `of_object` reads."""
        return asdict(self)

    @classmethod
    def of_object(cls, value: dict[str, Any]) -> "Conversation":
        """What `as_object` made."""
        return cls(**{**value, "messages": [*map(_message_of, value["messages"])]})

    def texts(self) -> Iterator[str]:
        """Every text in it, names of fields included."""
        found: list[str] = []

        def note(text: str, _: bool) -> str:
            found.append(text)
            return text

        self.changed(note)
        return iter(found)

    def changed(self, change: Change) -> "Conversation":
        """The same with every text changed, names of fields included."""

        def others(text: str) -> str:
            return change(text, False)

        return replace(
            self,
            messages=[_message(message, change) for message in self.messages],
            tools=_value(self.tools, others),
            documents=_value(self.documents, others),
            arguments={name: _value(value, others) for name, value in self.arguments.items()},
        )


def _message_of(value: dict[str, Any]) -> Message:
    return Message(**{**value, "tool_calls": [ToolCall(**call) for call in value["tool_calls"]]})


def _message(message: Message, change: Change) -> Message:
    def said(text: str) -> str:
        return change(text, message.role == "assistant")

    return replace(
        message,
        role=change(message.role, False),
        content=_value(message.content, said),
        tool_calls=[
            ToolCall(said(call.id), said(call.name), _value(call.arguments, said))
            for call in message.tool_calls
        ],
        tool_call_id=change(message.tool_call_id, False),
        name=change(message.name, False),
        reasoning=said(message.reasoning),
    )


def _value(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _value(inner, change) for name, inner in value.items()}
    if isinstance(value, Sequence):
        return [_value(inner, change) for inner in value]
    return value
