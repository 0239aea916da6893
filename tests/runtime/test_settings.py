"""Settings: the order of their sources, and what a bad one looks like."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from services.runtime.settings import OnePerFlag, load


class KitchenSettings(BaseSettings):
    """Cooks for many."""

    model_config = SettingsConfigDict(env_prefix="MOESAIC_KITCHEN_", frozen=True)

    max_guests: PositiveInt = Field(4, description="most guests at once")
    cooks: list[str] = Field([], description="who cooks")
    is_open: bool = Field(False, description="lets guests in")
    tables: Literal["all"] | int = Field("all", description="tables that are laid")
    sayings: Annotated[list[str], OnePerFlag] = Field([], description="said while cooking")

    @model_validator(mode="after")
    def _enough_cooks(self) -> "KitchenSettings":
        if len(self.cooks) > self.max_guests:
            raise ValueError("there are more cooks than guests")
        return self


class GreetingSettings(BaseSettings):
    """Greets."""

    model_config = SettingsConfigDict(env_prefix="MOESAIC_GREETING_", frozen=True)

    name: CliPositionalArg[str] = Field(description="who is greeted")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "moesaic.toml"
    path.write_text('[kitchen]\nmax-guests = 7\ncooks = ["ann"]\n[other]\nmax_guests = 9\n')
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        load(KitchenSettings, arguments, "moesaic kitchen")
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_a_flag_wins_over_a_variable_that_over_the_file_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    def max_guests(*arguments: str) -> int:
        return load(KitchenSettings, arguments, "moesaic kitchen").max_guests

    assert max_guests() == 4
    assert max_guests("--config", str(config)) == 7
    monkeypatch.setenv("MOESAIC_KITCHEN_MAX_GUESTS", "8")
    assert max_guests("--config", str(config)) == 8
    assert max_guests("--config", str(config), "--max-guests", "9") == 9


def test_the_file_can_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    monkeypatch.setenv("MOESAIC_CONFIG", str(config))
    assert load(KitchenSettings, (), "moesaic kitchen").cooks == ["ann"]


def test_lists_are_written_with_commas_in_flags_and_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ("--cooks", "ann,bob", "--cooks", "eve")
    assert load(KitchenSettings, flags, "moesaic kitchen").cooks == ["ann", "bob", "eve"]
    monkeypatch.setenv("MOESAIC_KITCHEN_COOKS", "ann, bob")
    assert load(KitchenSettings, (), "moesaic kitchen").cooks == ["ann", "bob"]
    monkeypatch.setenv("MOESAIC_KITCHEN_COOKS", '["a,b"]')
    assert load(KitchenSettings, (), "moesaic kitchen").cooks == ["a,b"]


@pytest.mark.parametrize("text", ["3", "true", "null", "1.5", '"x"'])
def test_an_element_that_looks_like_json_is_one_in_a_variable_too(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOESAIC_KITCHEN_COOKS", text)
    assert load(KitchenSettings, (), "moesaic kitchen").cooks == [text]


def test_a_whole_list_keeps_commas_quotes_and_backslashes() -> None:
    sayings = ["a,b", "\n", ' "x" ', "[1", "{a", "", "None", "\\", 'é"\\"', " "]
    flags = [part for saying in sayings for part in ("--sayings", saying)]
    assert load(KitchenSettings, flags, "moesaic kitchen").sayings == sayings


@pytest.mark.parametrize("text", ["None", "null", '{"a": 1}', "a, b", "[1]", " "])
def test_a_positional_text_is_taken_as_it_is(text: str) -> None:
    assert load(GreetingSettings, [text], "moesaic greet").name == text


def test_a_text_that_looks_like_a_flag_follows_two_dashes() -> None:
    assert load(GreetingSettings, ["--", "--name"], "moesaic greet").name == "--name"


def test_a_bad_value_is_one_line_with_flag_variable_value_and_limit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(capsys, "--max-guests", "0") == (
        "moesaic kitchen: --max-guests (MOESAIC_KITCHEN_MAX_GUESTS): '0': it should be greater "
        "than 0\n"
    )


def test_every_bad_value_has_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOESAIC_KITCHEN_MAX_GUESTS", "many")
    monkeypatch.setenv("MOESAIC_KITCHEN_IS_OPEN", "perhaps")
    first, second = refusal(capsys).splitlines()
    assert first.startswith("moesaic kitchen: --max-guests (MOESAIC_KITCHEN_MAX_GUESTS): 'many': ")
    assert second.startswith("moesaic kitchen: --is-open (MOESAIC_KITCHEN_IS_OPEN): 'perhaps': ")


def test_settings_that_contradict_each_other_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(capsys, "--max-guests", "1", "--cooks", "ann,bob") == (
        "moesaic kitchen: there are more cooks than guests\n"
    )


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--max-gests" in refusal(capsys, "--max-gests", "3")


def test_an_abbreviated_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--max" in refusal(capsys, "--max", "3")


def test_a_missing_required_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        load(GreetingSettings, (), "moesaic greet")
    assert exit_info.value.code == 2
    assert "NAME" in capsys.readouterr().err


def test_an_unknown_name_in_the_file_is_refused(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text("[kitchen]\ngests = 3\n")
    assert refusal(capsys, "--config", str(config)) == (
        "moesaic kitchen: gests in [kitchen] of the config file: no such setting\n"
    )


@pytest.mark.parametrize("content", [b"max_guests = ", b"kitchen = 3", b"\xff"])
def test_a_file_that_cannot_be_read_is_refused(
    capsys: pytest.CaptureFixture[str], config: Path, content: bytes
) -> None:
    config.write_bytes(content)
    assert str(config) in refusal(capsys, "--config", str(config))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"max_guests = 3\n[kitchen]",
            "max_guests is not a table; settings stand in tables such as [kitchen]",
        ),
        (b"[kitchn]\nmax_guests = 3", "[kitchn] should be [kitchen]"),
        (b"a = " + b"[" * 50_000, "it is nested too deeply"),
        (b"[kitchen]\nmax_guests = '\xff'", "moesaic.toml:2: it is no UTF-8"),
    ],
)
def test_a_file_that_would_not_hold_is_refused(
    capsys: pytest.CaptureFixture[str], config: Path, content: bytes, said: str
) -> None:
    config.write_bytes(content)
    told = refusal(capsys, "--config", str(config))
    assert said in told
    assert told.count("\n") == 1


def test_a_byte_order_mark_is_no_part_of_the_file(config: Path) -> None:
    config.write_bytes("\ufeff[kitchen]\r\nmax_guests = 3\r\n".encode())
    assert load(KitchenSettings, ["--config", str(config)], "moesaic kitchen").max_guests == 3


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    without = load(KitchenSettings, (), "moesaic kitchen")
    for variable in ("MOESAIC_KITCHEN_MAX_GUESTS", "MOESAIC_KITCHEN_COOKS", "MOESAIC_CONFIG"):
        monkeypatch.setenv(variable, "")
    assert load(KitchenSettings, (), "moesaic kitchen") == without


def test_a_variable_with_a_slip_is_told_and_others_are_let_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOESAIC_KITCHEN_MAX_GESTS", "3")
    monkeypatch.setenv("MOESAIC_KITCHEN_PORT", "tcp://10.0.0.1:50051")
    load(KitchenSettings, (), "moesaic kitchen")
    load(KitchenSettings, (), "moesaic kitchen")
    assert capsys.readouterr().err == (
        "moesaic kitchen: MOESAIC_KITCHEN_MAX_GESTS is no setting; MOESAIC_KITCHEN_MAX_GUESTS is\n"
    )


def test_a_value_that_may_be_one_thing_or_another_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(capsys, "--tables", "many").startswith(
        "moesaic kitchen: --tables (MOESAIC_KITCHEN_TABLES): 'many': it should be 'all', or it "
        "should be a valid int"
    )


def test_a_long_value_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(refusal(capsys, "--max-guests", "x" * 10_000)) < 400


def test_a_missing_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "No such file" in refusal(capsys, "--config", str(tmp_path / "none.toml"))


def test_the_help_has_description_defaults_variables_and_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        load(
            KitchenSettings, ["--help"], "moesaic kitchen", examples=["moesaic kitchen --cooks ann"]
        )
    assert exit_info.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Cooks for many." in text
    assert "--max-guests N most guests at once (default: 4) " in text
    assert "--some-flag is MOESAIC_KITCHEN_SOME_FLAG" in text
    assert text.startswith("usage: moesaic kitchen [FLAGS] ")
    assert "examples: moesaic kitchen --cooks ann" in text
    assert "[kitchen]" in text


class HarbourSettings(BaseSettings):
    """Lets ships in."""

    model_config = SettingsConfigDict(env_prefix="MOESAIC_HARBOUR_", frozen=True)

    quay_port: PositiveInt | None = None


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:9090", "udp://[fd00::1]:53"])
def test_what_kubernetes_says_of_a_service_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.setenv("MOESAIC_HARBOUR_QUAY_PORT", link)
    assert load(HarbourSettings, (), "moesaic harbour").quay_port is None
    monkeypatch.setenv("MOESAIC_HARBOUR_QUAY_PORT", "7")
    assert load(HarbourSettings, (), "moesaic harbour").quay_port == 7


def test_a_port_that_is_none_is_refused_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOESAIC_HARBOUR_QUAY_PORT", "tcp://")
    with pytest.raises(SystemExit):
        load(HarbourSettings, (), "moesaic harbour")
    assert "MOESAIC_HARBOUR_QUAY_PORT" in capsys.readouterr().err
