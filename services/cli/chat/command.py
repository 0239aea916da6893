"""`moesaic chat`: a conversation with a model, with a cluster of its own where none is named."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.cli.asked_model import model_of
from services.cli.chat.commands import COMMANDS, Conversing
from services.cli.chat.dialogue import Dialogue
from services.cli.chat.interrupts import Interrupts
from services.cli.chat.line_reader import LineReader, Reader, history_file
from services.cli.chat.session import Session
from services.cli.chat.settings import ChatSettings
from services.cli.cluster import LocalCluster, own_plan, reached_cluster
from services.cli.command import run_command
from services.cli.found import with_running_gateway
from services.cli.local_tracing import ANY_PORT, local_tracing
from services.cli.members import check_settings
from services.cli.report import Report
from services.runtime.settings import load

EXAMPLES = (
    "moesaic chat",
    "moesaic chat --address 127.0.0.1:50051 --temperature 0.7",
    "moesaic chat --tracing",
    "moesaic chat --model /models/OLMoE-1B-7B-0924-Instruct --experts 4",
    "moesaic chat < questions.txt",
)
# Where tracing services and Jaeger are by themselves.
TRACES = "http://127.0.0.1:16686"


def chat(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(ChatSettings, arguments, "moesaic chat", examples=EXAMPLES)
    settings = with_running_gateway(settings, "tracing")
    if settings.address is None:
        check_settings()
    return run_command(_chat(settings), command="chat")


async def _chat(settings: ChatSettings) -> None:
    report = Report()
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    async with _cluster(settings, report) as (cluster, traces):
        session = Session(settings, cluster, await model_of(cluster.gateway, settings))
        router = settings.router or cluster.router
        dialogue = Dialogue(
            Conversing(session, report, traces, router),
            _prompt() if is_terminal else LineReader(),
            settings.receipt,
            is_terminal=is_terminal,
        )
        if is_terminal:
            _greet(session, report)
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        interrupts = Interrupts(task)
        with interrupts.heard():
            await dialogue.run(interrupts)


@asynccontextmanager
async def _cluster(
    settings: ChatSettings, report: Report
) -> AsyncIterator[tuple[LocalCluster, str]]:
    """The cluster to talk to, and where its traces are."""
    shown_at = ANY_PORT if settings.tracing and settings.address is None else None
    others, verbose = own_plan(settings).num_members, settings.verbose
    async with local_tracing(shown_at, report, verbose=verbose, num_others=others) as tracing:
        telemetry = tracing.variables(every_trace=True) if tracing is not None else None
        async with reached_cluster(settings, report, telemetry) as cluster:
            own = cluster.tracing if tracing is None else tracing.url
            yield cluster, settings.traces or own or TRACES


def _prompt() -> Reader:
    from services.cli.chat.prompt import Prompt  # a tenth of a second that a pipe need not wait

    return Prompt([*COMMANDS], history_file())


def _greet(session: Session, report: Report) -> None:
    model = session.model
    report.line(f"{model.model}, context {model.max_context:,} tokens. /help lists commands.")
    if not model.has_chat_template:
        report.line("It has no chat template: it continues the text that you type.")
