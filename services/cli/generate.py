"""`moesaic generate`: one prompt through a running cluster, or through one of its own."""

import io
import json
import sys
from collections.abc import Sequence

from services.cli.cluster import gateway_address
from services.cli.command import run_command
from services.cli.cost import as_object, receipt_table, remarks, summary
from services.cli.report import Report
from services.cli.request import Outcome, build_request, stream
from services.cli.settings import GenerateSettings
from services.runtime.settings import load, refuse

STDIN = "-"

EXAMPLES = (
    'moesaic generate "Once upon a time"',
    'moesaic generate --temperature 0 --max-new-tokens 40 --json "The fox"',
    'moesaic generate --address 127.0.0.1:50051 --chat "Tell me about the sea."',
    "moesaic generate --model /models/OLMoE-1B-7B-0924 --experts 4 - < prompt.txt",
)


def generate(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(GenerateSettings, arguments, "moesaic generate", examples=EXAMPLES)
    prompt = _prompt(settings)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    return run_command(_generate(settings, prompt), command="generate")


def _prompt(settings: GenerateSettings) -> str:
    try:
        prompt = sys.stdin.read() if settings.prompt == STDIN else settings.prompt
        "".join([prompt, *settings.stop]).encode()
    except UnicodeError:
        refuse("moesaic generate", ["the prompt and the stop texts must be UTF-8"])
    return prompt


async def _generate(settings: GenerateSettings, prompt: str) -> None:
    report = Report()
    async with gateway_address(settings, report) as address:
        await _continue(settings, prompt, address, report)


async def _continue(settings: GenerateSettings, prompt: str, address: str, report: Report) -> None:
    request = build_request(settings, prompt)
    if sys.stdout.isatty() and not settings.chat:
        report.quote(prompt)  # for who reads along; never in the output itself
    outcome = await stream(address, request, settings.timeout, _write)
    _write("\n")
    _show_cost(outcome, report)
    if settings.json_output:
        _write(json.dumps(as_object(outcome)) + "\n")


def _show_cost(outcome: Outcome, report: Report) -> None:
    receipt = outcome.completion.receipt
    report.line(f"\n{summary(outcome)}")
    report.console.print(receipt_table(receipt))
    for remark in remarks(receipt):
        report.line(remark)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
