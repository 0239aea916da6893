"""Commands that have several actions, such as `moesaic placement show`: the second word of the line picks one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from services.runtime.settings import refuse

HELP_FLAGS = ("-h", "--help", "help")


@dataclass(frozen=True)
class Action:
    """What one action does, and in a line what that is."""

    function: Callable[[Sequence[str]], int]
    summary: str


def run_action(prog: str, about: str, actions: Mapping[str, Action], arguments: Sequence[str]) -> int:
    """Call the action that the first argument names, with the rest; its exit code.

    Prints the help and exits with 0 where asked for it or nothing is named; exits with 2 for an unknown action.
    """
    name, *rest = list(arguments) or ["--help"]
    if name in HELP_FLAGS:
        print(_help_text(prog, about, actions), end="")
        raise SystemExit(0)
    if name not in actions:
        close = get_close_matches(name, actions, n=1)
        suggestion = f", did you mean {close[0]}?" if close else ""
        refuse(prog, [f"no action {name!r}{suggestion}; see {prog} --help"])
    return actions[name].function(rest)


def _help_text(prog: str, about: str, actions: Mapping[str, Action]) -> str:
    lines = [f"  {name:<8}{action.summary}\n" for name, action in actions.items()]
    examples = [f"  {prog} {name} --help\n" for name in actions]
    return f"usage: {prog} ACTION [FLAGS]\n\n{about}\n\nactions:\n{''.join(lines)}\nexamples:\n{''.join(examples)}"
