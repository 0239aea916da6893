"""Commands that have several actions, such as `moesaic placement show`: the second word of the line
picks one.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from pydantic_settings import BaseSettings

from services.cli.command import run_command
from services.cli.found import with_running_router
from services.runtime.flag_parser import example
from services.runtime.invocation import typed
from services.runtime.settings import load, refuse

HELP_FLAGS = ("-h", "--help", "help")

Settings = TypeVar("Settings", bound=BaseSettings)


@dataclass(frozen=True)
class Action(Generic[Settings]):
    """What one action does: the coroutine that `begin` gives for its settings, and in a line what
    that is.

    `begin` itself may refuse a call that is wrong, with `refuse`.
    """

    settings: type[Settings]
    begin: Callable[[Settings], Coroutine[Any, Any, None]]
    summary: str
    examples: Sequence[str]

    def run(self, prog: str, arguments: Sequence[str]) -> int:
        """Do it as the flags say; its exit code."""
        settings = load(self.settings, arguments, prog, examples=self.examples)
        settings = with_running_router(settings)
        return run_command(self.begin(settings), command=prog.removeprefix("moesaic "))


def run_action(
    prog: str, about: str, actions: Mapping[str, Action[Any]], arguments: Sequence[str]
) -> int:
    """Run the action that the first argument names with the rest; its exit code.

    Prints the help and exits with 0 where asked for it or nothing is named; exits with 2 for an
    unknown action.
    """
    name, *rest = list(arguments) or ["--help"]
    if name in HELP_FLAGS:
        print(_help_text(prog, about, actions), end="")
        raise SystemExit(0)
    if name not in actions:
        close = get_close_matches(name, actions, n=1)
        suggestion = f", did you mean {close[0]}?" if close else ""
        refuse(prog, [f"no action {name!r}{suggestion}; see {typed(f'{prog} --help')}"])
    return actions[name].run(f"{prog} {name}", rest)


def _help_text(prog: str, about: str, actions: Mapping[str, Action[Any]]) -> str:
    lines = [f"  {name:<8}{action.summary}\n" for name, action in actions.items()]
    examples = [f"  {example(action.examples[0])}\n" for action in actions.values()]
    return (
        f"usage: {prog} ACTION [FLAGS]\n\n{about}\n\nactions:\n{''.join(lines)}\nexamples:\n"
        f"{''.join(examples)}\n{typed(f'{prog} ACTION --help')} tells what an action takes.\n"
    )
