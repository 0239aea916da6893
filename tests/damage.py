"""Ways to damage a checkpoint, and the check that it is then refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.model.checkpoint import Checkpoint
from services.model.refusals import UnusableModel
from services.wire.errors import BadState

Damage = Callable[[Path], None]


def refused(directory: Path, message: str) -> None:
    with pytest.raises(UnusableModel, match=message) as caught:
        Checkpoint.open(directory)
    assert isinstance(caught.value, BadState)
    assert "\n" not in str(caught.value)


def settings(**fields: Any) -> Damage:
    """Damage to config.json: fields are replaced."""

    def edit(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return edit


def tensors(**changes: torch.Tensor | None) -> Damage:
    """Damage to the weights: tensors are replaced, added, or with None removed."""

    def edit(directory: Path) -> None:
        path = directory / "model.safetensors"
        changed = load_file(path) | changes
        save_file({name: value for name, value in changed.items() if value is not None}, path)

    return edit


def without(part: str) -> Damage:
    """Damage to the weights: every tensor whose name contains `part` is gone."""

    def edit(directory: Path) -> None:
        path = directory / "model.safetensors"
        save_file(
            {name: value for name, value in load_file(path).items() if part not in name}, path
        )

    return edit


def altered(part: str) -> Damage:
    """Damage to the weights: of each tensor whose name contains `part` one value, where small
    samples have none.
    """

    def edit(directory: Path) -> None:
        path = directory / "model.safetensors"
        changed = load_file(path)
        for name, value in changed.items():
            if part in name:
                value.view(-1)[value.numel() // 4] += 0.5
        save_file(changed, path)

    return edit


def replaced(file: str, content: bytes | None) -> Damage:
    """Damage to a file: other content, or with None no file."""

    def edit(directory: Path) -> None:
        (directory / file).unlink()
        if content is not None:
            (directory / file).write_bytes(content)

    return edit


def truncated(file: str) -> Damage:
    """Damage to a file: its last bytes are gone."""

    def edit(directory: Path) -> None:
        content = (directory / file).read_bytes()
        (directory / file).write_bytes(content[:-10])

    return edit
