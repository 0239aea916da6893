"""Renders chats in processes of their own: a template is a program of the checkpoint's, and the one
sure way to end a program is to end its process.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from threading import Lock, Timer

from services.gateway.chat import ChatTemplate
from services.gateway.conversation import Conversation
from services.wire.errors import InvalidRequest

MAX_SECONDS = 10.0
COMMAND = (sys.executable, "-P", "-m", "services.gateway.template_worker")


class TemplateApart:
    """As a `ChatTemplate`; several threads may render at once, with a process each.

    A process is started when it is needed, and kept. One that takes more than `max_seconds`, or
    more memory than it may have, is ended, and another takes its place.
    """

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        *,
        max_seconds: float = MAX_SECONDS,
        command: Sequence[str] = COMMAND,
    ) -> None:
        here = ChatTemplate(source, special_tokens)
        self.literals, self.names = here.literals, here.names
        self._first_line = _line([source, dict(special_tokens)])
        self._max_seconds = max_seconds
        self._command = command
        self._idle: list[subprocess.Popen[bytes]] = []
        self._lock = Lock()
        self._is_closed = False

    def render(self, conversation: Conversation) -> str:
        """As `ChatTemplate.render`; raises InvalidRequest also where it was ended."""
        said = self._first_line if (worker := self._idle_one()) is None else b""
        worker = worker or subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        answer = self._ask(worker, said + _line(conversation.as_object()))
        if not answer:
            _end(worker)
            raise InvalidRequest(
                "chat: the model's chat template was ended: it took more than "
                f"{self._max_seconds:g} s, or too much memory"
            )
        self._keep(worker)
        rendered = json.loads(answer)
        if "refusal" in rendered:
            raise InvalidRequest(rendered["refusal"])
        text: str = rendered["text"]
        return text

    def close(self) -> None:
        """End the processes; one that renders is ended when it is done."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            _end(worker)

    def _ask(self, worker: "subprocess.Popen[bytes]", said: bytes) -> bytes:
        """The answer; nothing where the process has ended, be it while it answered."""
        assert worker.stdin is not None, "it was started with a pipe"
        assert worker.stdout is not None, "it was started with a pipe"
        timer = Timer(self._max_seconds, worker.kill)
        timer.start()
        try:
            worker.stdin.write(said)
            worker.stdin.flush()
            answer = worker.stdout.readline()
            return answer if answer.endswith(b"\n") else b""
        except OSError:
            return b""
        finally:
            timer.cancel()

    def _idle_one(self) -> "subprocess.Popen[bytes] | None":
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None or worker.poll() is None:
            return worker
        _end(worker)  # it died meanwhile
        return None

    def _keep(self, worker: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(worker)
                return
        _end(worker)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.communicate()


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
