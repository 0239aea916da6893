"""The TOML file that settings are read from: a table for each service."""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from services.runtime.text_files import Unreadable, read_text

# Of names that differ in a slip of the hand.
LIKENESS = 0.8


def read_table(file: Path, name: str) -> dict[str, Any]:
    """The table of that name, with keys as fields are called; empty where the file has none.

    Raises Unreadable for what is no such file, for values outside of any table, and for a table
    whose name is almost this one: what they say would silently not hold.
    """
    tables = _tables(file)
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise Unreadable(
                f"{file}: {key} is not a table; settings stand in tables such as [{name}]"
            )
    if name not in tables and (close := get_close_matches(name, tables, n=1, cutoff=LIKENESS)):
        raise Unreadable(f"{file}: [{close[0]}] should be [{name}]")
    return {key.replace("-", "_"): value for key, value in tables.get(name, {}).items()}


def _tables(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(f"{file}: {error}") from error
    except RecursionError as error:
        raise Unreadable(f"{file}: it is nested too deeply") from error
