"""What was said in a conversation. The client keeps it and sends it whole with each question."""

from dataclasses import dataclass, field

from moesaic.v1 import generation_pb2

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


@dataclass
class Conversation:
    """Messages in their order, after what the `system` is told. A model without a chat template
    continues the bare text of them.
    """

    has_template: bool = True
    system: str = ""
    messages: list[tuple[str, str]] = field(default_factory=list)  # who, and what

    def ask(self, text: str) -> None:
        """The user says something."""
        self.messages.append((USER, text))

    def answer(self, text: str) -> None:
        """The model answered, perhaps not to the end. An answer of nothing takes the question back:
        whoever asks next asks anew.
        """
        if text:
            self.messages.append((ASSISTANT, text))
        else:
            self.messages.pop()

    def clear(self) -> None:
        """Forget what was said; the system's text stays."""
        self.messages.clear()

    def say(self, request: generation_pb2.GenerateRequest) -> None:
        """Write the prompt into a request."""
        spoken = [(SYSTEM, self.system)] if self.system else []
        spoken += self.messages
        if not self.has_template:
            request.text = "\n".join(text for _, text in spoken)
            return
        for role, text in spoken:
            request.chat.messages.add(role=role, content=text)
