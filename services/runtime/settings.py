"""Settings come from flags, variables, a file and defaults, in that order; a bad one is one readable line."""

import json
import os
import re
import sys
import tomllib
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from inspect import cleandoc
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

Settings = TypeVar("Settings", bound=BaseSettings)

CONFIG_VARIABLE = "MOESAIC_CONFIG"
COMMON_PREFIX = "MOESAIC_"
# Exit status of a command that was called wrongly, as argparse has it.
USAGE_EXIT = 2
# What would stand for an absent value; no argument of a process can contain it, so that `None` is a text too.
NO_TEXT = "\0"
# What Kubernetes says in NAME_PORT of a Service called NAME, as Docker once did of a link.
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://.+:\d+")
METAVARS = {
    "str": "TEXT",
    "Path": "PATH",
    "int": "N",
    "float": "X",
    "list[str]": "TEXT[,TEXT…]",
    "list[int]": "N[,N…]",
    "list[float]": "X[,X…]",
    "ByteSize": "BYTES",
}


def load(
    settings_class: type[Settings], arguments: Sequence[str], prog: str, *, examples: Sequence[str] = ()
) -> Settings:
    """Read one service's settings: a flag wins over a variable, that over the file, that over the default.

    `--config FILE` or MOESAIC_CONFIG names a TOML file with one table per service, called as the class's
    variables are: `MOESAIC_ROUTER_LISTEN` is `listen` in `[router]`. Prints the help and exits with 0 where
    asked for it, prints one line for each bad value and exits with 2.
    """
    parser = _parser(settings_class, prog, examples)
    try:
        flags = _flags(settings_class, parser, arguments)
        file = InitSettingsSource(settings_class, _table(settings_class, arguments, prog))
        return settings_class(_build_sources=((flags, Variables(settings_class), file), {}))
    except ValidationError as error:
        refuse(prog, [_explain(settings_class, details) for details in error.errors()])
    except SettingsError as error:
        refuse(prog, [str(error)])


def refuse(prog: str, complaints: Sequence[str]) -> NoReturn:
    """Say on stderr what is wrong with the call of a command, a line each, and exit with 2."""
    for complaint in complaints:
        print(f"{prog}: {complaint}", file=sys.stderr)
    raise SystemExit(USAGE_EXIT)


class Whole:
    """Marks a list whose flag takes one element at a time, commas and quotes and all.

    Written `Annotated[list[str], Whole]`.
    """


class Variables(EnvSettingsSource):
    """Environment variables, with lists written `a,b` as well as in JSON.

    What Kubernetes sets for a Service whose name happens to give a setting's variable is not taken for a setting.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        is_service_link = key.endswith("_port") and SERVICE_LINK.fullmatch(value or "") is not None
        return None if is_service_link else value, key, is_complex

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return [item.strip() for item in str(value).split(",")]


def _parser(settings_class: type[BaseSettings], prog: str, examples: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        description=cleandoc(settings_class.__doc__ or ""),
        epilog="\n  ".join(["examples:", *examples]) if examples else None,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    table = _table_name(settings_class)
    parser.add_argument("--config", metavar="FILE", help=f"TOML file to read [{table}] from [env: {CONFIG_VARIABLE}]")
    return parser


def _flags(
    settings_class: type[Settings], parser: ArgumentParser, arguments: Sequence[str]
) -> CliSettingsSource[Settings]:
    return CliSettingsSource(
        settings_class,
        root_parser=parser,
        cli_parse_args=list(arguments),
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_show_env_vars=True,
        cli_parse_none_str=NO_TEXT,
        add_argument_method=partial(_add_argument, settings_class),
    )


def _add_argument(settings_class: type[BaseSettings], parser: Any, *names: str, **keywords: Any) -> Any:
    if keywords.get("metavar") in METAVARS:
        keywords["metavar"] = METAVARS[keywords["metavar"]]
    if isinstance(keywords.get("help"), str):
        keywords["help"] = re.sub(rf" \(default: (None|\[\]|{NO_TEXT})\)", "", keywords["help"])
    field = settings_class.model_fields.get(names[0].lstrip("-").replace("-", "_"))
    if field is not None and Whole in field.metadata:
        keywords |= {"action": _OneByOne, "metavar": "TEXT"}
    return parser.add_argument(*names, **keywords)


class _OneByOne(Action):
    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option: Any = None) -> None:
        already = json.loads(getattr(namespace, self.dest, None) or "[]")
        setattr(namespace, self.dest, json.dumps([*already, values]))


def _table_name(settings_class: type[BaseSettings]) -> str:
    prefix = settings_class.model_config.get("env_prefix", "")
    return prefix.removeprefix(COMMON_PREFIX).rstrip("_").lower() or "process"


def _table(settings_class: type[BaseSettings], arguments: Sequence[str], prog: str) -> dict[str, Any]:
    before = ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    before.add_argument("--config", default=os.environ.get(CONFIG_VARIABLE))
    path = before.parse_known_args(list(arguments))[0].config
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get(_table_name(settings_class), {})
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        refuse(prog, [f"--config ({CONFIG_VARIABLE}): {path}: {error}"])
    if not isinstance(table, dict):
        refuse(prog, [f"--config ({CONFIG_VARIABLE}): {path}: {_table_name(settings_class)} is not a table"])
    return {key.replace("-", "_"): value for key, value in table.items()}


def _explain(settings_class: type[BaseSettings], details: ErrorDetails) -> str:
    reason = details["msg"].removeprefix("Value error, ").replace("Input", "it", 1)
    if not details["loc"]:
        return reason
    name = str(details["loc"][0])
    if name not in settings_class.model_fields:
        return f"{name} in [{_table_name(settings_class)}] of the config file: no such setting"
    variable = f"{settings_class.model_config.get('env_prefix', '')}{name}".upper()
    where = f"--{name.replace('_', '-')} ({variable})"
    if details["type"] == "missing":
        return f"{where}: it is required"
    return f"{where}: {details['input']!r}: {reason}"
