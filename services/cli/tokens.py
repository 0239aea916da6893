"""`moesaic tokens`: gives clients of a gateway tokens of their own."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from services.cli.hosting.actions import Action, run_action
from services.cli.report import Report
from services.gateway.tokens import line_of, new_token, read_holders
from services.runtime.roles import CLIENT_NAME
from services.wire.errors import InvalidRequest


class AddTokenSettings(BaseSettings):
    """Make a token for a client, print it, and write its hash to the file of tokens.

    It is printed this once and can be had from no file. A client may have several; who deletes the
    line of one takes it back. A gateway that has the file reads it again by itself.
    """

    model_config = SettingsConfigDict(env_prefix="MOESAIC_TOKENS_", frozen=True)

    name: CliPositionalArg[Annotated[str, Field(pattern=CLIENT_NAME)]] = Field(
        description="what the client is called"
    )
    file: Path = Field(Path("tokens"), description="file of tokens; made where there is none")
    requests_per_second: PositiveFloat | None = Field(
        None, allow_inf_nan=False, description="rate of its own; else it has everybody's"
    )


def tokens(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    about = "Give the clients of a gateway tokens of their own."
    return run_action("moesaic tokens", about, ACTIONS, arguments)


async def add(settings: AddTokenSettings) -> None:
    """`moesaic tokens add`. Raises BadState for a file of anything else, InvalidRequest for one
    that cannot be written.
    """
    file, token = settings.file, new_token()
    if file.exists():
        read_holders(file)
    _append(file, line_of(settings.name, token, settings.requests_per_second))
    Report().line(f"{settings.name} is in {file} now; the token is shown this once:")
    print(token)


def _append(file: Path, line: str) -> None:
    try:
        # Made for its owner alone; a line is written at once, whoever else adds one.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "a", encoding="utf-8") as opened:
            opened.write(line)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be written: {error.strerror}") from error


ACTIONS: Mapping[str, Action[Any]] = {
    "add": Action(
        AddTokenSettings,
        add,
        "make a token for a client and print it",
        (
            "moesaic tokens add alice",
            "moesaic tokens add --file /etc/moesaic/tokens --requests-per-second 5 bob",
        ),
    ),
}
