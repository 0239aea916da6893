"""Reads the stream of one completion over HTTP, as OpenAI's API has it, into a sample."""

import json
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from moesaic.v1 import common_pb2, generation_pb2
from services.cli.bench.sample import RequestFailure, Sample
from services.wire.quoting import peers_words

# Of one event.
MAX_EVENT_BYTES = 4 << 20
DATA = b"data:"
DONE = b"[DONE]"
REASONS = {
    "length": common_pb2.FINISH_REASON_LENGTH,
    "stop": common_pb2.FINISH_REASON_STOP,
    "tool_calls": common_pb2.FINISH_REASON_STOP,
}


class HttpStream:
    """Takes the bytes as they come and writes the moments of tokens into `sample`.

    A chunk with text counts as a token, and so does one with an empty text, which a server sends
    while a character is incomplete; not the one that opens a message, nor the one that ends it.
    Where the usage in the end tells of more tokens or of fewer, they are spread over the chunks.
    """

    def __init__(self, sample: Sample) -> None:
        self.failure: RequestFailure | None = None
        self._sample = sample
        self._rest = b""
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._receipt = common_pb2.LatencyReceipt()

    def feed(self, block: bytes, now_nanos: int) -> int:
        """Read some bytes that came now; how many tokens they brought."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            self._fail("an event of the stream is too long")
            self._rest = b""
        # Other lines are comments, names of events, or between two of them.
        told = [line[len(DATA) :].strip() for line in lines if line.startswith(DATA)]
        return sum(self._read(data, now_nanos) for data in told)

    def end(self) -> int:
        """The stream has ended; how many more tokens came than were counted."""
        sample = self._sample
        if self.failure is None and self._finish_reason is None:
            self._fail("the stream ended without a finish_reason")
        if self.failure is not None:
            return 0
        counted, told = sample.num_tokens, _number(self._usage, "completion_tokens")
        if told is not None and told != counted:
            _spread(sample, told)
        sample.completion = generation_pb2.Completion(
            finish_reason=REASONS.get(
                self._finish_reason or "", common_pb2.FINISH_REASON_UNSPECIFIED
            ),
            usage=common_pb2.Usage(
                prompt_tokens=_number(self._usage, "prompt_tokens") or 0,
                completion_tokens=sample.num_tokens,
            ),
            receipt=self._receipt,
        )
        return sample.num_tokens - counted

    def _read(self, data: bytes, now_nanos: int) -> int:
        if data == DONE or self.failure is not None:
            return 0
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self._fail("an event of the stream is no JSON object")
            return 0
        if event.get("error") is not None:
            error = event["error"]
            self._fail(str(error.get("message", error)) if isinstance(error, dict) else str(error))
            return 0
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        if isinstance(event.get("moesaic"), dict):
            self._read_receipt(event["moesaic"].get("receipt"))
        return self._read_choice(event.get("choices"), now_nanos)

    def _read_choice(self, choices: Any, now_nanos: int) -> int:
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return 0
        is_last = choice.get("finish_reason") is not None
        if is_last:
            self._finish_reason = str(choice["finish_reason"])
        if not _has_token(choice, is_last=is_last):
            return 0
        self._sample.arrival_nanos.append(now_nanos)
        self._sample.arrival_tokens.append(1)
        return 1

    def _read_receipt(self, receipt: Any) -> None:
        if isinstance(receipt, dict):
            try:
                self._receipt = ParseDict(
                    receipt, common_pb2.LatencyReceipt(), ignore_unknown_fields=True
                )
            except ParseError:  # of another version, or of somebody else
                self._receipt = common_pb2.LatencyReceipt()

    def _fail(self, message: str) -> None:
        self.failure = self.failure or RequestFailure("STREAM", peers_words(message))


def _has_token(choice: dict[str, Any], *, is_last: bool) -> bool:
    said = choice.get("delta", choice)
    if not isinstance(said, dict):
        return False
    names = ("content", "text", "reasoning", "reasoning_content")
    texts = [said[name] for name in names if isinstance(said.get(name), str)]
    if any(texts) or said.get("tool_calls"):
        return True
    return bool(texts) and not is_last and "role" not in said


def _spread(sample: Sample, num_tokens: int) -> None:
    """Put the tokens into the messages that came, as evenly as can be; none stays empty."""
    arrivals = sample.arrival_nanos[:num_tokens]
    sample.arrival_nanos[:] = arrivals
    sample.arrival_tokens[:] = [
        num_tokens * (index + 1) // len(arrivals) - num_tokens * index // len(arrivals)
        for index in range(len(arrivals))
    ]


def _number(values: dict[str, Any], name: str) -> int | None:
    value = values.get(name)
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if is_number else None
