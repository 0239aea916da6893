"""The command line's front door."""

import subprocess
import sys
from importlib import metadata

import pytest

from services.cli.main import COMMANDS, main


def test_help_lists_every_command_with_a_line_and_two_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name:<14}{command.summary}\n" in text
    assert text.count("  moesaic generate ") + text.count("  moesaic serve ") == 2


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: moesaic COMMAND" in capsys.readouterr().out


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"moesaic {metadata.version('moesaic')}\n"


def test_an_unknown_command_is_refused_with_the_one_that_was_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["generat"]) == 2
    assert "did you mean generate?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([name, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: moesaic {name} " in text
    assert f"examples:\n  moesaic {name}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("generate", "Once"),
        ("bench", "--address", "127.0.0.1:9"),
        ("placement", "show"),
        ("experts", "list"),
        ("rebalance",),
        ("routing", "record", "FILE"),
        ("trace",),
    ],
)
def test_every_command_refuses_a_variable_of_opentelemetrys_that_cannot_be_followed(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    reason = (
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json': it should be 'grpc' or 'http/protobuf'"
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"moesaic {arguments[0]}") and line.endswith(f": {reason}")


@pytest.mark.parametrize("name", ["gateway", "router", "expert", "tracing"])
def test_every_service_is_a_module_that_runs(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", f"services.{name}", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--listen" in ended.stdout
