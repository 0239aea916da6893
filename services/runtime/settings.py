"""Settings come from flags, variables, a file and defaults, in that order; a bad one is one
readable line.
"""

import json
import os
import re
import sys
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from inspect import cleandoc
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    SettingsError,
)

from services.runtime.config_file import read_table
from services.runtime.flag_parser import FlagParser
from services.runtime.pydantic_internals import settings_from
from services.runtime.text_files import Unreadable

Settings = TypeVar("Settings", bound=BaseSettings)

CONFIG_VARIABLE = "MOESAIC_CONFIG"
COMMON_PREFIX = "MOESAIC_"
# Of the settings that every process has, and that are no flags.
PROCESS_TABLE = "process"
# How alike names are of which one is a slip of the hand.
SLIP = 0.85
MAX_QUOTED = 160
# Exit status of a command that was called wrongly, as argparse has it.
USAGE_EXIT = 2
# What would stand for an absent value; no argument of a process can contain it, so that `None` is a
# text too.
NO_TEXT = "\0"
# What Kubernetes says in NAME_PORT of a Service called NAME, as Docker once did of a link.
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://.+:\d+")
# What the help need not say of a flag's default.
SELF_EVIDENT = rf" \(default: (None|False|\[\]|{NO_TEXT})\)"
METAVARS = {
    "str": "TEXT",
    "SecretStr": "TEXT",
    "Path": "PATH",
    "int": "N",
    "float": "X",
    "list[str]": "TEXT[,TEXT…]",
    "list[int]": "N[,N…]",
    "list[float]": "X[,X…]",
    "ByteSize": "BYTES",
}


def load(
    settings_class: type[Settings],
    arguments: Sequence[str],
    prog: str,
    *,
    examples: Sequence[str] = (),
) -> Settings:
    """Read one service's settings: a flag wins over a variable, that over the file, that over the
    default.

    `--config FILE` or MOESAIC_CONFIG names a TOML file with one table per service, called as the
    class's variables are: `MOESAIC_ROUTER_LISTEN` is `listen` in `[router]`. An empty variable is
    as none. Prints the help and exits with 0 where asked for it, prints one line for each bad value
    and exits with 2.
    """
    parser = _parser(settings_class, prog, examples)
    try:
        flags = _flags(settings_class, parser, arguments)
        file = InitSettingsSource(settings_class, _table(settings_class, arguments, prog))
        variables = Variables(settings_class, env_ignore_empty=True)
        settings = settings_from(settings_class, flags, variables, file)
    except ValidationError as error:
        refuse(prog, _explain_all(settings_class, error.errors()))
    except SettingsError as error:
        refuse(prog, [str(error)])
    _mention_slips(settings_class, prog)
    return settings


def refuse(prog: str, complaints: Sequence[str]) -> NoReturn:
    """Say on stderr what is wrong with the call of a command, a line each, and exit with 2."""
    for complaint in complaints:
        print(f"{prog}: {complaint}", file=sys.stderr)
    raise SystemExit(USAGE_EXIT)


class OnePerFlag:
    """Marks a list whose flag takes one element at a time, commas and quotes and all.

    Written `Annotated[list[str], OnePerFlag]`.
    """


@dataclass(frozen=True)
class Negated:
    """What the flag does that turns off a setting which is on: `--no-NAME` is its name.

    Written `Annotated[bool, Negated("leave them where they are")]`.
    """

    text: str


class Accessory:
    """Marks a setting that the help shows after all others: by what somebody is let in.

    Written `Annotated[Path | None, Accessory]`.
    """


class Variables(EnvSettingsSource):
    """Environment variables, with lists written `a,b` as well as in JSON.

    What Kubernetes sets for a Service whose name happens to give a setting's variable is not taken
    for a setting.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        is_service_link = key.endswith("_port") and SERVICE_LINK.fullmatch(value or "") is not None
        return None if is_service_link else value, key, is_complex

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            decoded = super().decode_complex_value(field_name, field, value)
        except ValueError:
            decoded = None
        # JSON of another kind is an element that looks like it: `3`, `true`.
        if isinstance(decoded, list | dict):
            return decoded
        return [item.strip() for item in str(value).split(",")]


def _parser(settings_class: type[BaseSettings], prog: str, examples: Sequence[str]) -> FlagParser:
    prefix = settings_class.model_config.get("env_prefix", "")
    note = (
        f"Each flag has a variable: --some-flag is {prefix}SOME_FLAG. It may stand in a file too: "
        f"{CONFIG_VARIABLE} or --config names it."
    )
    parser = FlagParser(prog, cleandoc(settings_class.__doc__ or ""), examples, note)
    table = _table_name(settings_class)
    parser.add_argument("--config", metavar="FILE", help=f"TOML file to read [{table}] from")
    return parser


def _flags(
    settings_class: type[Settings], parser: FlagParser, arguments: Sequence[str]
) -> CliSettingsSource[Settings]:
    accessories = parser.add_argument_group("access")
    return CliSettingsSource(
        settings_class,
        root_parser=parser,
        cli_parse_args=list(arguments),
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_parse_none_str=NO_TEXT,
        parse_args_method=FlagParser.parse_args,
        add_argument_method=partial(_add_argument, settings_class, parser, accessories),
    )


def _add_argument(
    settings_class: type[BaseSettings],
    whole: FlagParser,
    accessories: Any,
    parser: Any,
    *names: str,
    **keywords: Any,
) -> Any:
    if keywords.get("metavar") in METAVARS:
        keywords["metavar"] = METAVARS[keywords["metavar"]]
    if isinstance(keywords.get("help"), str):
        keywords["help"] = re.sub(SELF_EVIDENT, "", keywords["help"])
    name = keywords.get("dest", names[0])
    field = settings_class.model_fields.get(name)
    if field is not None and keywords.get("action") == "store_false":
        (keywords["help"],) = [each.text for each in field.metadata if isinstance(each, Negated)]
    if field is not None and OnePerFlag in field.metadata:
        keywords |= {"action": _OneByOne, "metavar": "TEXT"}
    if field is not None and Accessory in field.metadata:
        whole.know(names, None)
        parser = accessories
    return parser.add_argument(*names, **keywords)


class _OneByOne(Action):
    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: Any = None
    ) -> None:
        already = json.loads(getattr(namespace, self.dest, None) or "[]")
        setattr(namespace, self.dest, json.dumps([*already, values]))


def _table_name(settings_class: type[BaseSettings]) -> str:
    prefix = settings_class.model_config.get("env_prefix", "")
    return prefix.removeprefix(COMMON_PREFIX).rstrip("_").lower() or PROCESS_TABLE


def _table(
    settings_class: type[BaseSettings], arguments: Sequence[str], prog: str
) -> dict[str, Any]:
    before = ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    before.add_argument("--config", default=os.environ.get(CONFIG_VARIABLE) or None)
    path = before.parse_known_args(list(arguments))[0].config
    if path is None:
        return {}
    try:
        return read_table(Path(path), _table_name(settings_class))
    except Unreadable as error:
        refuse(prog, [f"--config ({CONFIG_VARIABLE}): {error}"])


def _explain_all(settings_class: type[BaseSettings], errors: Sequence[ErrorDetails]) -> list[str]:
    """A line for each value: what may be one thing or another has several reasons."""
    reasons: dict[str, list[str]] = {}
    for details in errors:
        place, reason = _explain(settings_class, details)
        reasons.setdefault(place, []).append(reason)
    return [place + ", or ".join(dict.fromkeys(each)) for place, each in reasons.items()]


def _explain(settings_class: type[BaseSettings], details: ErrorDetails) -> tuple[str, str]:
    """Where it is wrong, and why."""
    reason = details["msg"].removeprefix("Value error, ").replace("Input", "it", 1)
    if not details["loc"]:
        return "", reason
    name = str(details["loc"][0])
    table = _table_name(settings_class)
    if name not in settings_class.model_fields:
        return f"{name} in [{table}] of the config file: ", "no such setting"
    variable = f"{settings_class.model_config.get('env_prefix', '')}{name}".upper()
    where = variable if table == PROCESS_TABLE else f"{_flag(settings_class, name)} ({variable})"
    if details["type"] == "missing":
        return f"{where}: ", "it is required"
    return f"{where}: {_quoted(details['input'])}: ", reason


def _flag(settings_class: type[BaseSettings], name: str) -> str:
    """As it is typed: by its shortcut where it has one."""
    written = name.replace("_", "-")
    shortcuts = settings_class.model_config.get("cli_shortcuts") or {}
    return f"--{shortcuts.get(written, shortcuts.get(name, written))}"


def _quoted(value: object) -> str:
    quoted = repr(value)
    return quoted if len(quoted) <= MAX_QUOTED else f"{quoted[:MAX_QUOTED]}…"


def _mention_slips(settings_class: type[BaseSettings], prog: str) -> None:
    """Say on stderr which variables are almost the name of a setting: what they say does not hold.

    Others of the same beginning are let be: whoever runs the containers may have put them there.
    """
    prefix = settings_class.model_config.get("env_prefix", "")
    known = [f"{prefix}{name}".upper() for name in settings_class.model_fields]
    for variable in sorted(os.environ):
        name = variable.upper()
        if name.startswith(prefix) and name not in known:
            close = get_close_matches(
                name.removeprefix(prefix), [one.removeprefix(prefix) for one in known], 1, SLIP
            )
            if close:
                _mention(f"{prog}: {variable} is no setting; {prefix}{close[0]} is")


@cache
def _mention(complaint: str) -> None:
    """Once, however often settings are read."""
    print(complaint, file=sys.stderr)
