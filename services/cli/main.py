"""The `moesaic` command: picks the subcommand and knows nothing else."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module, metadata

from services.runtime.invocation import typed
from services.runtime.streams import standard_streams

USAGE_EXIT = 2
INTERRUPTED_EXIT = 130


@dataclass(frozen=True)
class Command:
    """A subcommand: where its function is and what it does, in a line."""

    module: str
    summary: str

    def run(self, name: str, arguments: Sequence[str]) -> int:
        """Call the module's function of the command's name; imported only now, so that help is
        instant.
        """
        function: Callable[[Sequence[str]], int] = getattr(import_module(self.module), name)
        return function(arguments)


COMMANDS = {
    "serve": Command(
        "services.cli.serve", "run a local cluster: gateway, router and expert services"
    ),
    "status": Command("services.cli.status", "show the clusters that run here"),
    "stop": Command("services.cli.stop", "have a cluster finish its requests and end"),
    "chat": Command("services.cli.chat.command", "talk with the model at a prompt"),
    "generate": Command("services.cli.generate", "continue a prompt and say what it cost"),
    "bench": Command(
        "services.cli.bench.command", "put load on a cluster and measure how it is served"
    ),
    "top": Command("services.cli.top.command", "show what a cluster does, as it does it"),
    "placement": Command(
        "services.cli.hosting.placement", "show, plan and change which expert service hosts what"
    ),
    "experts": Command(
        "services.cli.hosting.experts", "show, add, empty and forget expert services"
    ),
    "rebalance": Command(
        "services.cli.hosting.rebalance", "move experts to where their load is shared best"
    ),
    "routing": Command(
        "services.cli.routing.command", "write down which experts live traffic chooses"
    ),
    "trace": Command("services.cli.trace.command", "show where the time of a request went"),
    "gateway": Command("services.cli.services", "run one gateway: text in, text out"),
    "router": Command("services.cli.services", "run one router: the model without its experts"),
    "expert": Command("services.cli.services", "run one expert service"),
    "tracing": Command(
        "services.cli.services", "run a tracing service: a stand-in where no Jaeger runs"
    ),
    "certificates": Command(
        "services.cli.certificates.command", "make certificates to develop with"
    ),
    "tokens": Command("services.cli.tokens", "give clients of a gateway tokens"),
    "probe": Command(
        "services.cli.probe", "ask a service whether it is healthy; the exit code says it"
    ),
}

HELP = """usage: moesaic COMMAND [FLAGS]

Serve Mixture-of-Experts language models with their experts pulled apart.

commands:
{commands}

  {command} COMMAND --help tells what a command takes.

settings:
  A flag wins over its MOESAIC_* variable, that over the file that --config
  names, that over the default.

examples:
  {command} generate "Once upon a time"
  {command} serve --model /models/OLMoE-1B-7B-0924 --experts 4
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; its exit code."""
    with standard_streams("moesaic"):
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        except KeyboardInterrupt:  # while nothing that would have to be stopped has begun
            return INTERRUPTED_EXIT


def _run(arguments: Sequence[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0
    if name in ("-V", "--version"):
        print(f"moesaic {metadata.version('moesaic')}")
        return 0
    if name not in COMMANDS:
        print(
            f"moesaic: no command {name!r}{_suggestion(name)}; see {typed('moesaic --help')}",
            file=sys.stderr,
        )
        return USAGE_EXIT
    return COMMANDS[name].run(name, rest)


def help_text() -> str:
    """Every command in a line, and how to begin."""
    lines = [f"  {name:<14}{command.summary}" for name, command in COMMANDS.items()]
    return HELP.format(commands="\n".join(lines), command=typed("moesaic ").rstrip())


def _suggestion(name: str) -> str:
    close = get_close_matches(name, COMMANDS, n=1)
    return f", did you mean {close[0]}?" if close else ""


if __name__ == "__main__":
    sys.exit(main())
