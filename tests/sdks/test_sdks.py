"""Packages that people have ask a real cluster over HTTP, and get what gRPC says.

`make sdk-test` installs them, in an environment of their own. Each script beside this file is run
by it, and prints what its package made of the answers.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from moesaic.v1.generation_pb2_grpc import GenerationServiceStub
from services.cli.running import running_clusters

pytestmark = pytest.mark.sdk

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
INSTALLED = ROOT / "build" / "sdks"
PYTHON = INSTALLED / "bin" / "python"
QUESTION = "Tell me of a lighthouse."
PROMPT = "Once upon a time"
LENGTH = 12
DEADLINE_SECONDS = 90.0
# For how long bodies are drawn, each round of them from a seed of its own; one round at least.
SECONDS_OF_FUZZING = float(os.environ.get("SECONDS_OF_FUZZING", "0"))

if not PYTHON.exists():
    pytest.skip("make sdk-test installs the packages", allow_module_level=True)


@dataclass(frozen=True)
class Served:
    """A running `moesaic serve`: where it answers, and what gRPC says there."""

    http: str
    model: str
    chat: str
    text: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    addresses = ("--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0")
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli.main", "serve", *addresses],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path_factory.mktemp("served"))},
    )
    try:
        assert process.stderr is not None
        assert any(line.startswith("ready: ") for line in process.stderr)
        (cluster,) = [each for each in running_clusters() if each.pid == process.pid]
        with grpc.insecure_channel(cluster.gateway) as channel:
            stub: Any = GenerationServiceStub(channel)
            model = stub.GetModel(pb.GetModelRequest(), timeout=DEADLINE_SECONDS).model
            messages = [pb.ChatMessage(role="user", content=QUESTION)]
            chat = _text_of(stub, pb.GenerateRequest(chat=pb.Chat(messages=messages)))
            text = _text_of(stub, pb.GenerateRequest(text=PROMPT))
        yield Served(f"http://{cluster.http}/v1", model, chat, text)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_SECONDS)


def _text_of(stub: Any, request: pb.GenerateRequest) -> str:
    request.sampling.CopyFrom(common_pb2.SamplingParameters(temperature=0))
    request.stop.CopyFrom(common_pb2.StopConditions(max_new_tokens=LENGTH))
    return "".join(
        response.delta.text for response in stub.Generate(request, timeout=DEADLINE_SECONDS)
    )


def _said_by(script: str, *arguments: str) -> dict[str, Any]:
    program = [str(PYTHON)] if script.endswith(".py") else ["node"]
    ran = subprocess.run(
        [*program, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return said


def test_openai_of_python(served: Served) -> None:
    assert _said_by("ask_openai.py", served.http) == {
        "model": served.model,
        "chat": served.chat,
        "finish_reason": "length",
        "usage": LENGTH,
        "stream": served.chat,
        "stream_finish_reason": ["length"],
        "stream_usage": LENGTH,
        "text": served.text,
        "logprobs": LENGTH,
        "choices": 2,
        "errors": ["NotFoundError 404", "BadRequestError 400", "BadRequestError 400"],
    }


@pytest.mark.parametrize("script", ["ask_langchain.py", "ask_litellm.py", "ask_ai_sdk.mjs"])
def test_packages_on_top_of_it(script: str, served: Served) -> None:
    assert _said_by(script, served.http, served.model) == {
        "chat": served.chat,
        "finish_reason": "length",
        "usage": LENGTH,
        "stream": served.chat,
    }


def test_openai_of_npm(served: Served) -> None:
    assert _said_by("ask_openai.mjs", served.http, served.model) == {
        "chat": served.chat,
        "finish_reason": "length",
        "usage": LENGTH,
        "stream": served.chat,
        "error": "NotFoundError 404",
    }


@pytest.mark.timeout(240 + 2 * SECONDS_OF_FUZZING)
def test_no_body_that_the_description_allows_or_forbids_is_answered_by_an_error_of_the_server(
    served: Served,
) -> None:
    described = f"{served.http.removesuffix('/v1')}/openapi.json"
    until = time.monotonic() + SECONDS_OF_FUZZING
    for seed in count(1):
        ran = subprocess.run(
            [
                *(str(INSTALLED / "bin" / "schemathesis"), "run", described, "--checks"),
                *("not_a_server_error", "--phases", "coverage,fuzzing", "--max-examples", "30"),
                *("--request-timeout", "20", "--no-color", "--seed", str(seed)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
        assert "Tested: 11" in ran.stdout
        if time.monotonic() >= until:
            return
