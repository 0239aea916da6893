"""`moesaic generate` against a gateway that says what the test wants."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import grpc
import pytest

from moesaic.v1 import common_pb2, generation_pb2, generation_pb2_grpc
from services.cli.request import build_request
from services.cli.settings import GenerateSettings
from services.runtime.settings import load
from services.wire.errors import InvalidRequest, Overloaded
from tests.cli import command_line
from tests.cli.command_line import scripted

Behaviour = Callable[
    [generation_pb2.GenerateRequest], AsyncIterator[generation_pb2.GenerateResponse]
]


def delta(text: str, *token_ids: int) -> generation_pb2.GenerateResponse:
    return generation_pb2.GenerateResponse(
        delta=generation_pb2.Delta(text=text, token_ids=token_ids)
    )


async def tell_a_story(
    request: generation_pb2.GenerateRequest,
) -> AsyncIterator[generation_pb2.GenerateResponse]:
    yield delta(" a fox", 7, 8)
    yield delta("", 9)
    yield delta(" lived\n", 10)
    completion = generation_pb2.Completion(finish_reason=common_pb2.FINISH_REASON_STOP)
    completion.usage.seed = request.sampling.seed
    yield generation_pb2.GenerateResponse(completion=completion)


class ScriptedGateway(generation_pb2_grpc.GenerationServiceServicer):
    """Answers as its behaviour says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = tell_a_story
        self.requests: list[generation_pb2.GenerateRequest] = []
        self.metadata: dict[str, str] = {}
        self.began = asyncio.Event()
        self.left = asyncio.Event()
        self.address = ""

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata() or ())
        self.began.set()
        try:
            async for response in self.behaviour(request):
                yield response
        finally:
            self.left.set()


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    async with scripted(
        generation_pb2_grpc.add_GenerationServiceServicer_to_server, gateway
    ) as gateway.address:
        yield gateway


async def start(
    gateway: ScriptedGateway, *arguments: str, variables: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    return await command_line.start(
        "generate", "--address", gateway.address, *arguments, variables=variables
    )


async def generate(
    gateway: ScriptedGateway, *arguments: str, stdin: bytes = b""
) -> tuple[int, str, str]:
    return await command_line.moesaic(
        "generate", "--address", gateway.address, *arguments, stdin=stdin
    )


async def test_the_text_goes_to_stdout_and_the_cost_to_stderr(gateway: ScriptedGateway) -> None:
    code, stdout, stderr = await generate(gateway, "Once")
    assert (code, stdout) == (0, " a fox lived\n\n")
    assert "where the time went" in stderr
    assert "unaccounted" in stderr


def asked(*arguments: str) -> generation_pb2.GenerateRequest:
    return build_request(load(GenerateSettings, arguments, "moesaic generate"), "Once")


def test_every_flag_is_in_the_request() -> None:
    flags = (
        "--max-new-tokens 5 --temperature 0.5 --top-p 0.9 --top-k 40 --min-p 0.1 --seed "
        "18446744073709551615"
    )
    assert asked("-", *flags.split(), "--stop", "a,b", "--stop", "\n", "--ignore-eos") == (
        generation_pb2.GenerateRequest(
            text="Once",
            sampling=common_pb2.SamplingParameters(
                temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, seed=2**64 - 1
            ),
            stop=common_pb2.StopConditions(
                max_new_tokens=5, stop_strings=["a,b", "\n"], ignore_eos=True
            ),
        )
    )


def test_what_is_not_said_is_left_to_the_gateway() -> None:
    assert asked("-") == generation_pb2.GenerateRequest(
        text="Once", stop=common_pb2.StopConditions()
    )


def test_nought_is_said_where_it_is_meant() -> None:
    sampling = asked("-", "--temperature", "0", "--top-k", "0", "--seed", "0").sampling
    assert {field.name for field, _ in sampling.ListFields()} >= {"temperature", "top_k", "seed"}


def test_a_chat_is_a_message_of_the_user() -> None:
    message = generation_pb2.ChatMessage(role="user", content="Once")
    assert asked("-", "--chat").chat.messages == [message]


def test_a_chat_takes_tools_documents_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "tools").write_text('[{"type": "function", "é": 1.0}]', encoding="utf-8")
    (tmp_path / "documents").write_text('[{"text": "a"}, {}]')
    flags = (
        *("--chat", "--tools", str(tmp_path / "tools")),
        *("--documents", str(tmp_path / "documents"), "--template-arguments", '{"a": 1}'),
    )
    chat = asked("-", *flags).chat
    assert chat.tools_json == ['{"type": "function", "é": 1.0}']
    assert chat.documents_json == ['{"text": "a"}', "{}"]
    assert chat.template_arguments_json == '{"a": 1}'


@pytest.mark.parametrize(
    ("written", "said"), [("{", "is no JSON"), ("{}", "a list of objects"), ("[1]", "a list of ob")]
)
def test_a_file_of_tools_that_holds_none_is_refused(
    tmp_path: Path, written: str, said: str
) -> None:
    (tmp_path / "tools").write_text(written)
    with pytest.raises(InvalidRequest, match=said):
        asked("-", "--chat", "--tools", str(tmp_path / "tools"))
    with pytest.raises(InvalidRequest, match="nowhere"):
        asked("-", "--chat", "--documents", "/nowhere")


def test_tools_go_with_a_chat() -> None:
    with pytest.raises(SystemExit):
        asked("-", "--tools", "tools")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--min-p", "-0.1"),
        ("--top-k", "-1"),
        ("--max-new-tokens", "0"),
        ("--seed", "-1"),
        ("--seed", "18446744073709551616"),
        ("--experts", "0"),
        ("--timeout", "0"),
    ],
)
def test_a_value_that_no_gateway_takes_is_refused_before_anything_starts(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        asked("-", flag, value)
    assert exit_info.value.code == 2
    assert flag in capsys.readouterr().err


async def test_a_dash_reads_the_prompt_from_stdin(gateway: ScriptedGateway) -> None:
    await generate(gateway, "-", stdin="Es war einmal ä\n".encode())
    assert gateway.requests[0].text == "Es war einmal ä\n"


async def test_a_prompt_that_is_no_utf_8_is_refused(gateway: ScriptedGateway) -> None:
    code, _, stderr = await generate(gateway, "-", stdin=b"\xff\xfe")
    assert code == 2
    assert stderr == "moesaic generate: stdin:1: it is UTF-16; it should be text in UTF-8\n"


async def test_arguments_are_utf_8_whatever_the_locale_is(gateway: ScriptedGateway) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    flags = ("--address", gateway.address, "--stop", "né")
    code, _, stderr = await command_line.moesaic("generate", "Où était", *flags, variables=plain)
    assert code == 0, stderr
    assert gateway.requests[-1].text == "Où était"
    assert list(gateway.requests[-1].stop.stop_strings) == ["né"]


async def test_the_lines_of_a_prompt_from_stdin_end_at_line_feeds_and_a_byte_order_mark_is_no_text(
    gateway: ScriptedGateway,
) -> None:
    code, _, stderr = await generate(gateway, "-", stdin="\ufeffone\r\ntwo\u2028\n".encode())
    assert code == 0, stderr
    assert gateway.requests[-1].text == "one\ntwo\u2028\n"


async def test_json_is_alone_on_stdout(gateway: ScriptedGateway) -> None:
    _, stdout, _ = await generate(gateway, "Once", "--json", "--seed", "3")
    assert stdout.count("\n") == 1
    read = json.loads(stdout)
    assert read["text"] == " a fox lived\n"
    assert read["token_ids"] == [7, 8, 9, 10]
    assert read["finish_reason"] == "stop"
    assert read["usage"]["seed"] == 3
    assert "unaccounted_nanos" in read["receipt"]


async def test_a_refusal_is_one_line_with_status_and_message(gateway: ScriptedGateway) -> None:
    async def refuse(
        request: generation_pb2.GenerateRequest,
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        raise Overloaded("256 requests are waiting already")
        yield delta("")

    gateway.behaviour = refuse
    code, stdout, stderr = await generate(gateway, "Once")
    assert (code, stdout) == (1, "")
    assert stderr == "moesaic generate: RESOURCE_EXHAUSTED: 256 requests are waiting already\n"


async def test_a_stream_without_a_completion_is_a_failure(gateway: ScriptedGateway) -> None:
    async def stop_short(
        request: generation_pb2.GenerateRequest,
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        yield delta(" a fox", 7)

    gateway.behaviour = stop_short
    code, _, stderr = await generate(gateway, "Once")
    assert code == 1
    assert "without a completion" in stderr


async def test_a_request_has_the_time_that_was_asked_for(gateway: ScriptedGateway) -> None:
    gateway.behaviour = hang
    code, _, stderr = await generate(gateway, "Once", "--timeout", "0.5")
    assert code == 1
    assert "DEADLINE_EXCEEDED" in stderr


async def hang(
    request: generation_pb2.GenerateRequest,
) -> AsyncIterator[generation_pb2.GenerateResponse]:
    yield delta(" a fox", 7)
    await asyncio.Event().wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupt_cancels_the_request(
    gateway: ScriptedGateway, number: signal.Signals, code: int
) -> None:
    gateway.behaviour = hang
    process = await start(gateway, "Once")
    assert process.stdout is not None
    assert await process.stdout.read(6) == b" a fox"
    process.send_signal(number)
    await gateway.left.wait()
    _, stderr = await process.communicate()
    assert process.returncode == code
    assert b"Traceback" not in stderr


async def test_a_reader_that_leaves_ends_it_quietly(gateway: ScriptedGateway) -> None:
    async def tell_for_ever(
        request: generation_pb2.GenerateRequest,
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        while True:
            yield delta(" and then", 7)

    gateway.behaviour = tell_for_ever
    reading, writing = os.pipe()
    command = (
        sys.executable,
        "-m",
        "services.cli.main",
        "generate",
        "--address",
        gateway.address,
        "Once",
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    await gateway.began.wait()
    os.close(reading)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (141, b"")
    await gateway.left.wait()


async def test_a_traced_request_brings_its_trace_along(gateway: ScriptedGateway) -> None:
    # That nobody collects the spans there is told in the log and changes nothing else.
    process = await start(
        gateway, "Once", variables={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{gateway.address}"}
    )
    await process.communicate()
    assert process.returncode == 0
    *_, flags = gateway.metadata["traceparent"].split("-")
    assert int(flags, 16) & 1  # sampled


async def test_a_request_that_is_not_sampled_says_so(gateway: ScriptedGateway) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    process = await start(gateway, "Once", variables=variables)
    _, stderr = await process.communicate()
    assert process.returncode == 0
    assert b"lost" not in stderr
    assert gateway.metadata["traceparent"].endswith("-00")


async def test_an_untraced_request_brings_none(gateway: ScriptedGateway) -> None:
    await generate(gateway, "Once")
    assert "traceparent" not in gateway.metadata


async def test_an_address_where_nobody_listens_is_one_line(unused_tcp_port: int) -> None:
    nobody = ScriptedGateway()
    nobody.address = f"127.0.0.1:{unused_tcp_port}"
    code, _, stderr = await generate(nobody, "Once")
    assert code == 1
    assert stderr.startswith("moesaic generate: nothing listens on ")
    assert stderr.count("\n") == 1
