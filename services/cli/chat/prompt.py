"""The prompt on a terminal: history, editing, several lines, and names of commands by Tab.

`prompt_toolkit` reads in the event loop, where the cluster of the conversation is watched; Python's
own readline would block it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

MAX_HISTORY_BYTES = 1 << 20
MARK = ">>> "
GOES_ON = "... "


class Prompt:
    """Reads questions from a terminal; what was asked is kept in `history`."""

    def __init__(self, commands: Sequence[str], history: Path) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_kept_in(history),
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation=GOES_ON,
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
        )

    async def read(self) -> str | None:
        """The next question; None for Ctrl-D on an empty one. Raises KeyboardInterrupt for
        Ctrl-C.
        """
        try:
            with patch_stdout(raw=True):  # what a service reports meanwhile stands above the prompt
                return await self._session.prompt_async(MARK, handle_sigint=False)
        except EOFError:
            return None


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _kept_in(file: Path) -> History:
    """A history in the file, which its owner alone can read; of this conversation alone where there
    can be none.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        if file.stat().st_size > MAX_HISTORY_BYTES:
            _forget_older_half(file)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))


def _forget_older_half(file: Path) -> None:
    content = file.read_bytes()
    # Each entry begins with an empty line and its date.
    start = content.find(b"\n# ", len(content) // 2)
    file.write_bytes(content[start:] if start >= 0 else b"")
