"""The loop of a conversation: a line is read, and answered or obeyed."""

import sys

from services.cli.chat.commands import Conversing, obey
from services.cli.chat.interrupts import Interrupts
from services.cli.chat.line_reader import Reader
from services.cli.receipt_flag import Amount
from services.cli.shown_receipt import show_receipt
from services.cli.words import word_writer
from services.wire.errors import ServingError

CONTROL_C = "Ctrl-D ends the conversation"


class Dialogue:
    """Answers what the reader gives until it ends. On a terminal a failure is told, and the
    conversation goes on; elsewhere it ends the command.
    """

    def __init__(
        self, conversing: Conversing, reader: Reader, receipt: Amount, *, is_terminal: bool
    ) -> None:
        self._conversing = conversing
        self._reader = reader
        self._receipt: Amount = receipt
        self._is_terminal = is_terminal

    async def run(self, interrupts: Interrupts) -> None:
        """Until the last line. Raises the ServingError that ends it."""
        report = self._conversing.report
        while True:
            try:
                line = await self._reader.read()
            except KeyboardInterrupt:
                report.line(CONTROL_C)
                continue
            if line is None:
                return
            try:
                if line.strip() and not await interrupts.run(self._do(line)):
                    report.line("(stopped)")
            except ServingError as error:
                if not self._is_terminal:
                    raise
                report.line(str(error))

    async def _do(self, line: str) -> None:
        if line.startswith("/"):
            await obey(line, self._conversing)
        else:
            await self._answer(line)

    async def _answer(self, question: str) -> None:
        words = word_writer(sys.stdout, _write)
        try:
            answer = await self._conversing.session.ask(question, words.write)
        finally:
            words.end()
            _write("\n")
        known, report = self._conversing.session.known, self._conversing.report
        show_receipt(answer.outcome, self._receipt, known, report)
        if self._is_terminal:
            report.line("")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
