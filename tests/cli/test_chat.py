"""A conversation with a gateway that says what the test wants."""

import asyncio
import io
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from moesaic.v1 import common_pb2, generation_pb2, generation_pb2_grpc, router_pb2
from services.cli.asked_model import model_of
from services.cli.chat.answered_by import services_table
from services.cli.chat.commands import Conversing, obey
from services.cli.chat.dialogue import Dialogue
from services.cli.chat.interrupts import Interrupts
from services.cli.chat.line_reader import LineReader
from services.cli.chat.prompt import Prompt
from services.cli.chat.session import Session
from services.cli.chat.settings import ChatSettings
from services.cli.cluster import LocalCluster
from services.cli.known import Known
from services.cli.report import Report
from services.cli.request import RequestFailed
from services.runtime.settings import load
from services.wire.errors import InvalidRequest, ServingError
from tests.cli.command_line import scripted

LAYER = common_pb2.RoutedLayer(layer=0, experts=[3, 5])


class Gateway(generation_pb2_grpc.GenerationServiceServicer):
    """Answers each question with its number; to "go on" it never ends, "fail" it refuses."""

    def __init__(self) -> None:
        self.requests: list[generation_pb2.GenerateRequest] = []
        self.model = generation_pb2.GetModelResponse(
            model="tale", has_chat_template=True, num_moe_layers=2
        )
        self.left = asyncio.Event()

    async def GetModel(
        self, request: generation_pb2.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> generation_pb2.GetModelResponse:
        return self.model

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        self.requests.append(request)
        question = request.chat.messages[-1].content if request.chat.messages else request.text
        if question == "fail":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the prompt is too long")
        delta = generation_pb2.Delta(text=f"answer {len(self.requests)}", token_ids=[1])
        delta.routed_experts.add(layers=[LAYER])
        yield generation_pb2.GenerateResponse(delta=delta)
        try:
            if question == "go on":
                await asyncio.Event().wait()
        finally:
            self.left.set()
        receipt = common_pb2.LatencyReceipt(
            end_to_end_nanos=1_000, slowest_service="127.0.0.1:7", slowest_service_layers=2
        )
        receipt.decode.steps = 1
        completion = generation_pb2.Completion(
            finish_reason=common_pb2.FINISH_REASON_STOP, receipt=receipt
        )
        yield generation_pb2.GenerateResponse(completion=completion)


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[Gateway, str]]:
    gateway = Gateway()
    async with scripted(
        generation_pb2_grpc.add_GenerationServiceServicer_to_server, gateway
    ) as address:
        yield gateway, address


async def conversing(address: str, *flags: str, console: Console | None = None) -> Conversing:
    settings = load(ChatSettings, ["--address", address, *flags], "moesaic chat")
    cluster = LocalCluster(address, "", names={"127.0.0.1:7": "expert-1"})
    session = Session(settings, cluster, await model_of(address, settings))
    return Conversing(session, Report(console), "http://127.0.0.1:1", "")


async def talk(talking: Conversing, *lines: str, is_terminal: bool = True) -> None:
    reading, writing = os.pipe()
    os.write(writing, "".join(f"{line}\n" for line in lines).encode())
    os.close(writing)
    task = asyncio.current_task()
    assert task is not None
    interrupts = Interrupts(task)
    dialogue = Dialogue(talking, LineReader(reading), "short", is_terminal=is_terminal)
    try:
        with interrupts.heard():
            await dialogue.run(interrupts)
    finally:
        os.close(reading)


def said(request: generation_pb2.GenerateRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.chat.messages]


async def test_the_conversation_is_sent_whole(gateway: tuple[Gateway, str]) -> None:
    talking = await conversing(gateway[1], "--system", "Be kind.", "--temperature", "0.5")
    await talk(talking, "one", "", "two", "/set temperature 0.75", "/set max-new-tokens 9", "three")
    requests = gateway[0].requests
    assert said(requests[2]) == [
        *(("system", "Be kind."), ("user", "one"), ("assistant", "answer 1")),
        *(("user", "two"), ("assistant", "answer 2"), ("user", "three")),
    ]
    assert [each.sampling.temperature for each in requests] == [0.5, 0.5, 0.75]
    assert [each.stop.max_new_tokens for each in requests] == [0, 0, 9]


async def test_a_model_without_a_template_continues_the_text(gateway: tuple[Gateway, str]) -> None:
    gateway[0].model.has_chat_template = False
    await talk(await conversing(gateway[1]), "Once", "upon")
    assert [each.text for each in gateway[0].requests] == ["Once", "Once\nanswer 1\nupon"]


async def test_clear_forgets_and_system_stays(gateway: tuple[Gateway, str]) -> None:
    await talk(await conversing(gateway[1]), "one", "/system Be brief.", "/clear", "two")
    assert said(gateway[0].requests[1]) == [("system", "Be brief."), ("user", "two")]


class Listened(io.StringIO):
    """Tells when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.spoke = asyncio.Event()

    def write(self, text: str) -> int:
        self.spoke.set()
        return super().write(text)


async def test_control_c_stops_the_answer_alone(
    gateway: tuple[Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    talking, stdout = await conversing(gateway[1]), Listened()
    monkeypatch.setattr(sys, "stdout", stdout)

    async def interrupt() -> None:
        await stdout.spoke.wait()
        os.kill(os.getpid(), signal.SIGINT)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(interrupt())
        await talk(talking, "go on", "/receipt", "next")
        await gateway[0].left.wait()
    assert said(gateway[0].requests[1]) == [
        *(("user", "go on"), ("assistant", "answer 1"), ("user", "next")),
    ]


async def test_control_c_without_an_answer_ends_the_command() -> None:
    async def whole() -> None:
        task = asyncio.current_task()
        assert task is not None
        with Interrupts(task).heard():
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    before = signal.getsignal(signal.SIGINT)
    task = asyncio.create_task(whole())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert signal.getsignal(signal.SIGINT) == before


async def test_a_failed_question_is_taken_back(gateway: tuple[Gateway, str]) -> None:
    console = Console(width=80, record=True)
    talking = await conversing(gateway[1], console=console)
    await talk(talking, "fail", "next")
    assert said(gateway[0].requests[1]) == [("user", "next")]
    assert "INVALID_ARGUMENT: the prompt is too long" in console.export_text()


async def test_a_failure_ends_what_is_no_terminal(gateway: tuple[Gateway, str]) -> None:
    with pytest.raises(RequestFailed, match="too long"):
        await talk(await conversing(gateway[1]), "fail", "next", is_terminal=False)
    assert len(gateway[0].requests) == 1


async def test_a_receipt_names_the_service(gateway: tuple[Gateway, str]) -> None:
    console = Console(width=120, record=True)
    await talk(await conversing(gateway[1], console=console), "one", "/receipt")
    shown = console.export_text()
    assert "slowest expert-1, straggler in 2 of 2 layers" in shown
    assert "where the time went" in shown


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/set temperature 101", "it must be from 0 to 100"),
        ("/set temperature nan", "it must be from 0 to 100"),
        ("/set top_k 1.5", "it must be a number"),
        ("/set max_new_tokens 0", "whole number from 1"),
        ("/set temprature 1", "did you mean temperature?"),
        ("/recipt", "did you mean /receipt?"),
        ("/receipt", "there is no receipt"),
        ("/trace", "there is no answer yet"),
        ("/experts", "there is no answer yet"),
    ],
)
async def test_what_cannot_be_done_is_said(
    gateway: tuple[Gateway, str], line: str, complaint: str
) -> None:
    with pytest.raises(ServingError) as raised:
        await obey(line, await conversing(gateway[1]))
    assert complaint in str(raised.value)


async def test_trace_says_how_to_get_one(gateway: tuple[Gateway, str]) -> None:
    console = Console(width=80, record=True, soft_wrap=True)
    await talk(await conversing(gateway[1], console=console), "one", "/trace")
    assert "moesaic serve --tracing" in console.export_text()
    assert gateway[0].requests[0].trace_detail == common_pb2.TRACE_DETAIL_LAYER


async def test_a_setting_that_is_unset_is_left_to_the_server(gateway: tuple[Gateway, str]) -> None:
    talking = await conversing(gateway[1], "--temperature", "0.5", "--top-k", "4")
    await talk(talking, "/set temperature", "one")
    assert gateway[0].requests[0].sampling == common_pb2.SamplingParameters(top_k=4)


def test_an_answer_is_shared_among_those_who_host_its_experts() -> None:
    def service(address: str, *experts: int) -> router_pb2.PlacedService:
        layer = router_pb2.HostedLayer(layer=0, experts=experts)
        return router_pb2.PlacedService(address=address, is_live=True, layers=[layer])

    placement = router_pb2.GetPlacementResponse(services=[service("a", 3, 5), service("b", 5)])
    chosen = Counter({(0, 3): 2, (0, 5): 2})
    console = Console(width=80, record=True)
    console.print(services_table(chosen, placement, Known({"b": "expert-1"})))
    rows = [line.split()[:4] for line in console.export_text().splitlines()[2:]]
    assert rows == [["a", "2", "3", "75%"], ["expert-1", "1", "1", "25%"]]


async def test_lines_are_read_as_they_come() -> None:
    reading, writing = os.pipe()
    reader = LineReader(reading)
    os.write(writing, b"one\r\ntw")
    assert await reader.read() == "one"
    os.write(writing, "o ü".encode())
    os.close(writing)
    assert await reader.read() == "two ü"
    assert await reader.read() is None
    os.close(reading)


async def test_a_line_in_another_encoding_is_refused() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"\xff\n")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        await LineReader(reading).read()
    os.close(reading)
    os.close(writing)


async def test_the_prompt_takes_several_lines_and_remembers(tmp_path: Path) -> None:
    history = tmp_path / "cache" / "history"
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        prompt = Prompt(["/help"], history)
        keys.send_text("one\\\rtwo\x1b\rthree\r")
        assert await prompt.read() == "one\ntwo\nthree"
        keys.send_text("\x1b[A\r")  # up
        assert await prompt.read() == "one\ntwo\nthree"
        keys.send_text("half\x03")
        with pytest.raises(KeyboardInterrupt):
            await prompt.read()
        keys.send_text("\x04")
        assert await prompt.read() is None
    assert history.stat().st_mode & 0o777 == 0o600
