"""What is told beside the text: tokens, models, log probabilities, and where the time went."""

import json
import math
from copy import deepcopy
from typing import Any

import grpc
import pytest
from tokenizers import Tokenizer, decoders, models

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.checkpoint import read_checkpoint
from services.gateway.generation import Completed
from services.gateway.http.answers import Answer as WholeAnswer
from services.gateway.http.chunks import Chunks
from services.gateway.http.continuations import Continuations, Prompt
from services.gateway.http.fields import ChatBody, TextBody
from services.gateway.http.receipts import CallTimes, metrics_of, server_timing
from services.gateway.http.token_names import TokenNames
from services.gateway.http.wanted import Heading, Wanted
from services.gateway.relay import Piece
from services.runtime.embedded_model import EMBEDDED_MODEL
from tests.gateway.http.http_client import MESSAGES, http_gateway, streamed
from tests.gateway.router_double import RouterDouble

TOKENIZER = read_checkpoint(EMBEDDED_MODEL).tokenizer
LENGTH = common_pb2.FINISH_REASON_LENGTH


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text).ids


async def test_text_is_tokenised_and_read_back_over_both() -> None:
    async with http_gateway(RouterDouble()) as client:
        text = await client.post("/tokenize", prompt="a ship 😀", return_token_strs=True)
        chat = await client.post("/tokenize", messages=MESSAGES)
        back = await client.post("/detokenize", tokens=[*ids("a ship 😀"), 0])
        request = pb.DetokenizeRequest(token_ids=[*ids("a ship 😀"), 0])
        over_grpc = await client.grpc.stub.Detokenize(request)
        bad = [
            await client.post("/tokenize"),
            await client.post("/tokenize", prompt="a", messages=MESSAGES),
            await client.post("/detokenize", tokens=[5000]),
            await client.post("/detokenize", tokens=[5] * 65),
            await client.post("/detokenize", tokens=[5], model="x"),
        ]
        with pytest.raises(grpc.aio.AioRpcError, match="token_ids: 5000 is no token"):
            await client.grpc.stub.Detokenize(pb.DetokenizeRequest(token_ids=[5000]))
    document = text.document
    assert document["tokens"] == ids("a ship 😀")
    assert (document["count"], document["max_model_len"]) == (len(document["tokens"]), 64)
    assert document["token_strs"][:2] == ["a", " ship"]
    assert chat.document["tokens"] == ids("<|user|>hello<|assistant|>")
    assert back.document["prompt"] == over_grpc.text == "a ship 😀<|endoftext|>"
    assert [answer.status for answer in bad] == [400, 400, 400, 400, 404]
    assert bad[2].error["param"] == "tokens"


async def test_the_model_is_told_by_its_name_alone() -> None:
    async with http_gateway(RouterDouble(), model_name="org/model-1") as client:
        (listed,) = (await client.get("/v1/models")).document["data"]
        one = await client.get("/v1/models/org/model-1")
        encoded = await client.get("/v1/models/org%2Fmodel-1")
        other = await client.get("/v1/models/other")
    assert (listed["id"], listed["object"], listed["max_model_len"]) == ("org/model-1", "model", 64)
    assert one.document == encoded.document == listed
    assert (other.status, other.error["code"]) == (404, "model_not_found")


async def test_the_routes_are_described_as_they_are() -> None:
    async with http_gateway(RouterDouble()) as client:
        document = (await client.get("/openapi.json")).document
        for path, methods in document["paths"].items():
            for method in methods:
                answer = await client.ask(method.upper(), path.replace("{model}", "tessera"))
                assert answer.status == (400 if method == "post" else 200), path
        wrong = await client.ask("DELETE", "/v1/models")
        nowhere = await client.get("/v1/nothing")
    schemas = document["components"]["schemas"]
    assert {"prompt", "echo", "logit_bias"} <= schemas["TextBody"]["properties"].keys()
    assert schemas["ChatBody"]["required"] == ["messages"]
    assert (wrong.status, nowhere.status) == (405, 404)
    assert nowhere.error["code"] == "unknown_url"


async def test_an_answer_tells_where_its_time_went() -> None:
    async with http_gateway(RouterDouble(answer=ids(" x y"))) as client:
        plain = await client.text()
        asked = await client.text(include_metrics=True)
        events = streamed(await client.text(include_metrics=True, stream=True))
    timing = dict(part.split(";dur=") for part in plain.headers["Server-Timing"].split(", "))
    assert [*timing] == [
        *("queue", "tokenise", "prefill", "decode", "wire", "straggler", "expert", "total")
    ]
    assert all(float(millis) >= 0 for millis in timing.values())
    assert float(timing["total"]) > 0
    assert "moesaic" not in plain.document
    for document in (asked.document, events[-1]):
        told = document["moesaic"]
        assert told["receipt"]["end_to_end_nanos"] > 0
        assert told["receipt"]["prefill"]["steps"] == 0
        assert told["numerics_fingerprint"] == "cpu/test"
        assert (told["retries"], told["slowest_service"]) == (0, "")
        assert document["metrics"]["time_to_first_token_ms"] > 0
    assert asked.document["moesaic"]["trace_id"] in asked.headers["traceresponse"]


def test_the_five_numbers_are_of_the_tokens_and_of_the_longest_continuation() -> None:
    times = CallTimes(arrived=0, first_token=5_000_000, last_token=45_000_000)
    receipt = common_pb2.LatencyReceipt(gateway_queue_nanos=1_000_000, end_to_end_nanos=9)
    receipt.prefill.step_wait_nanos = 2_000_000
    receipt.decode.wire_nanos = 3_500_000
    end = Completed(LENGTH, None, common_pb2.Usage(completion_tokens=5), receipt)
    assert metrics_of(times, end, 5) == {
        "time_to_first_token_ms": 5,
        "generation_time_ms": 40,
        "queue_time_ms": 3,
        "mean_itl_ms": 10,
        "tokens_per_second": 100,
    }
    assert "queue;dur=3," in server_timing(receipt)
    assert "wire;dur=3.5," in server_timing(receipt)
    nothing = metrics_of(CallTimes(), Completed(LENGTH, None, common_pb2.Usage(), receipt), 0)
    assert nothing["time_to_first_token_ms"] is None
    assert nothing["mean_itl_ms"] is None


def position(token_id: int, logprob: float, *top: tuple[int, float]) -> Any:
    return common_pb2.PositionLogprobs(
        token=common_pb2.TokenLogprob(token_id=token_id, logprob=logprob),
        top=[common_pb2.TokenLogprob(token_id=one, logprob=value) for one, value in top],
    )


def told_of(body: Any, pieces: list[Piece], prompt: Prompt) -> tuple[Any, list[Any]]:
    """The choice of a whole answer, and those of a stream's chunks, of the same pieces."""
    wanted = Wanted.of(body)
    heading, names = Heading("r", "m", "f", wanted.is_chat), TokenNames(TOKENIZER)
    whole, chunks = WholeAnswer(heading, wanted, names, ""), Chunks(heading, wanted, names, "")
    usage = common_pb2.Usage(completion_tokens=2)
    end = Completed(LENGTH, None, usage, common_pb2.LatencyReceipt())
    all_whole = Continuations([deepcopy(prompt)], 1, CallTimes())
    for piece in pieces:
        whole.add(all_whole.note(0, piece), piece)
    all_whole.note(0, end)
    so_far = Continuations([deepcopy(prompt)], 1, CallTimes())
    written = [chunks.first(so_far.all[0])]
    written += [chunks.piece(so_far.note(0, piece), piece) for piece in pieces]
    choices = [one["choices"][0] for one in streamed(b"".join(written))]
    return json.loads(whole.written(all_whole))["choices"][0], choices


def test_log_probabilities_of_a_chat_are_told_token_by_token() -> None:
    x, y = ids(" x")[0], ids(" y")[0]
    pieces = [
        Piece(" x", [x], (), [position(x, -0.5, (x, -0.5), (y, -1.5))]),
        Piece(" y", [y], (), [position(y, -math.inf)]),
    ]
    body = ChatBody.model_validate({"messages": MESSAGES, "logprobs": True, "top_logprobs": 2})
    whole, chunks = told_of(body, pieces, Prompt())
    first, second = whole["logprobs"]["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == (" x", -0.5, [*b" x"])
    assert [one["token"] for one in first["top_logprobs"]] == [" x", " y"]
    assert (second["logprob"], second["top_logprobs"]) == (-9999, [])
    assert [one["logprobs"]["content"] for one in chunks[1:]] == [[first], [second]]


def test_log_probabilities_of_no_tokens_are_empty_lists() -> None:
    chat = ChatBody.model_validate({"messages": MESSAGES, "logprobs": True})
    assert told_of(chat, [], Prompt())[0]["logprobs"] == {"content": [], "refusal": None}
    text = TextBody.model_validate({"prompt": "a", "logprobs": 1})
    assert [*told_of(text, [], Prompt())[0]["logprobs"].values()] == [[], [], [], []]


def test_log_probabilities_of_a_text_begin_with_its_prompt_where_it_is_echoed() -> None:
    a, ship = ids("a ship")
    x, y = ids(" x")[0], ids(" y")[0]
    pieces = [
        Piece(" x", [x], (), [position(x, -0.5, (y, -0.25))], [position(ship, -2)]),
        Piece(" y", [y], (), [position(y, -1)]),
    ]
    body = TextBody.model_validate({"prompt": "a ship", "logprobs": 1, "echo": True})
    prompt = Prompt(echo="a ship", token_ids=[a, ship])
    whole, chunks = told_of(body, pieces, prompt)
    told = whole["logprobs"]
    assert told["tokens"] == ["a", " ship", " x", " y"]
    assert told["token_logprobs"] == [None, -2, -0.5, -1]
    assert told["top_logprobs"] == [*(None, {" ship": -2}, {" y": -0.25, " x": -0.5}, {" y": -1})]
    assert told["text_offset"] == [0, 1, 6, 8]
    assert whole["text"] == "".join(one["text"] for one in chunks) == "a ship x y"
    for name, values in told.items():
        assert [one for chunk in chunks[1:] for one in chunk["logprobs"][name]] == values


def test_of_tokens_that_read_alike_the_most_likely_one_is_told() -> None:
    parts = [one for one in ids("😀🚢") if TOKENIZER.decode([one]) == "\ufffd"]
    pieces = [Piece("", [parts[0]], (), [position(parts[0], -1, (parts[0], -1), (parts[1], -2))])]
    body = TextBody.model_validate({"prompt": "a", "logprobs": 2})
    whole, _ = told_of(body, pieces, Prompt())
    assert whole["logprobs"]["top_logprobs"] == [{"\ufffd": -1}]


def test_tokens_are_called_by_their_own_bytes() -> None:
    names = TokenNames(TOKENIZER)
    assert [names.of(one).text for one in ids("a ship")] == ["a", " ship"]
    assert bytes(b for one in ids("über 😀") for b in names.of(one).bytes) == "über 😀".encode()
    assert names.of(0).text == "<|endoftext|>"
    assert names.of(5000) == ("", ())
    pieces = {"▁a": 0, "<0xF0>": 1, "b": 2}
    other = Tokenizer(models.WordLevel(pieces, unk_token="b"))
    other.decoder = decoders.Metaspace()
    assert [TokenNames(other).of(one).bytes for one in range(3)] == [(32, 97), (0xF0,), (98,)]
