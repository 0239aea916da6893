"""What begins with a slash in a conversation: commands to the client, of which the model hears
nothing.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from moesaic.v1 import common_pb2
from services.cli.chat.answer_trace import show_trace
from services.cli.chat.answered_by import show_answered_by
from services.cli.chat.session import Session
from services.cli.cost import receipt_table, remarks
from services.cli.report import Report
from services.wire.errors import BadState, InvalidRequest
from services.wire.sampling import PARAMETERS, is_whole

LIMIT = "max_new_tokens"
KEYS = "Ctrl-C stops an answer, Ctrl-D ends; Alt-Enter or \\ at its end begins another line."


@dataclass(frozen=True)
class Conversing:
    """A session, where its user reads of it, and the tracing service to ask, if that is known."""

    session: Session
    report: Report
    traces: str
    router: str


@dataclass(frozen=True)
class Command:
    """A command: what follows its name, what it does in a line, and its doing."""

    takes: str
    summary: str
    do: Callable[[Conversing, str], Awaitable[None]]


async def obey(line: str, conversing: Conversing) -> None:
    """Do what the line says. Raises a ServingError that says why it cannot be done."""
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        raise InvalidRequest(
            f"there is no command {name}{_nearest(name, COMMANDS)}; /help lists them"
        )
    await COMMANDS[name].do(conversing, rest.strip())


async def _help(conversing: Conversing, _: str) -> None:
    for name, command in COMMANDS.items():
        conversing.report.line(f"  {f'{name} {command.takes}':<20}{command.summary}")
    conversing.report.line(
        "Ctrl-C stops an answer, Ctrl-D ends. A line's end with \\ or by Alt-Enter."
    )


async def _receipt(conversing: Conversing, _: str) -> None:
    session = conversing.session
    if session.answer is None or not session.answer.is_whole:
        raise BadState("there is no receipt: only an answer that came to its end has one")
    receipt = session.answer.outcome.completion.receipt
    conversing.report.console.print(receipt_table(receipt))
    for remark in remarks(receipt, session.known):
        conversing.report.line(remark)


async def _trace(conversing: Conversing, _: str) -> None:
    answer = conversing.session.answer
    if answer is None:
        raise BadState("there is no answer yet")
    await show_trace(answer.trace_id, conversing.traces, conversing.report)


async def _experts(conversing: Conversing, _: str) -> None:
    answer = conversing.session.answer
    if answer is None or not answer.outcome.routed_experts:
        raise BadState("there is no answer yet that came to its end")
    await show_answered_by(
        answer.outcome.routed_experts,
        conversing.session.known,
        conversing.router,
        conversing.report,
    )


async def _clear(conversing: Conversing, _: str) -> None:
    conversing.session.conversation.clear()
    conversing.report.line("the conversation begins anew")


async def _system(conversing: Conversing, text: str) -> None:
    conversing.session.conversation.system = text
    conversing.report.line("the model is told so before the conversation" if text else "unset")


async def _set(conversing: Conversing, rest: str) -> None:
    session = conversing.session
    name, _, value = rest.partition(" ")
    name = name.replace("-", "_")
    if not name:
        said = [
            f"{field.name} {said:g}" if isinstance(said, float) else f"{field.name} {said}"
            for field, said in session.sampling.ListFields()
        ]
        said += [] if session.max_new_tokens is None else [f"{LIMIT} {session.max_new_tokens}"]
        conversing.report.line(", ".join(said) or "nothing is set: the server's defaults hold")
        conversing.report.line(f"names: {', '.join((*PARAMETERS, LIMIT))}")
    elif name == LIMIT:
        session.max_new_tokens = _limit(value.strip())
    elif name in PARAMETERS:
        _set_parameter(session, name, value.strip())
    else:
        names = (*PARAMETERS, LIMIT)
        raise InvalidRequest(f"there is no {name}{_nearest(name, names)}; /set lists them")


def _nearest(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _limit(value: str) -> int | None:
    if value and not (value.isdecimal() and 0 < int(value) < 2**32):
        raise InvalidRequest(f"{LIMIT} is {value}; it must be a whole number from 1")
    return int(value) if value else None


def _set_parameter(session: Session, name: str, value: str) -> None:
    """Without a value the server's default holds again."""
    if not value:
        others = {field.name: said for field, said in session.sampling.ListFields()}
        others.pop(name, None)
        session.sampling = common_pb2.SamplingParameters(**others)
        return
    allowed = PARAMETERS[name].allowed
    try:
        number = int(value) if is_whole(name) else float(value)
    except ValueError:
        raise InvalidRequest(f"{name} is {value}; it must be a number, {allowed}") from None
    if not allowed.holds(number):
        raise InvalidRequest(f"{name} is {value}; it must be {allowed}")
    setattr(session.sampling, name, number)


COMMANDS = {
    "/help": Command("", "this list", _help),
    "/receipt": Command("", "where the last answer's time went", _receipt),
    "/trace": Command("", "the last answer's way through the services", _trace),
    "/experts": Command("", "which services and experts computed the last answer", _experts),
    "/clear": Command("", "begin the conversation anew", _clear),
    "/system": Command("TEXT", "tell the model this before the conversation", _system),
    "/set": Command("NAME VALUE", "how to draw, as temperature 0.7; alone: what is set", _set),
}
