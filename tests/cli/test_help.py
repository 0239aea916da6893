"""What a command says of itself, and of a call that is wrong."""

import pytest

from services.cli.main import COMMANDS, main

ACTIONS = {
    "placement": ("show", "plan", "export", "apply"),
    "experts": ("list", "add", "remove", "drain"),
    "routing": ("record",),
    "tokens": ("add",),
}
CALLS = [
    (name, *action)
    for name in COMMANDS
    for action in [(), *([one] for one in ACTIONS.get(name, ()))]
]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_the_help_fits_a_terminal_and_says_no_flag_the_other_way_round(
    call: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main([*call, "--help"]))
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "(default: True)" not in text
    assert "[env:" not in text


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("generate --adress x hi", "no flag --adress, did you mean --address?"),
        ("generate Once upon", "'upon' is one argument too many; is it to be in quotes?"),
        ("serve --expert=3", "no flag --expert, did you mean --experts?"),
        ("serve --zebra", "no flag --zebra"),
        ("placement show --rooter=x", "no flag --rooter, did you mean --router?"),
        ("status --jsn", "no flag --jsn, did you mean --json?"),
        ("generate", "the following arguments are required: PROMPT"),
    ],
)
def test_a_wrong_call_is_a_line_of_usage_and_one_of_what_was_meant(
    call: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(call.split())
    assert ended.value.code == 2
    usage, complaint = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: moesaic ") and usage.endswith("[FLAGS]")
    assert complaint.endswith(f": {said}")


@pytest.mark.parametrize("command", ["serve", "generate Once", "bench"])
def test_a_model_that_is_no_folder_is_refused_before_anything_starts(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--model", "allenai/OLMoE-1B-7B-0924"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "moesaic: --model: there is no folder allenai/OLMoE-1B-7B-0924; to get it from Hugging "
        "Face: hf download allenai/OLMoE-1B-7B-0924 --local-dir OLMoE-1B-7B-0924\n"
    )
