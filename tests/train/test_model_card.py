"""The shipped model is the one its card describes."""

import hashlib
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "services" / "model" / "tessera"
FILES = ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja")


@pytest.mark.parametrize("name", FILES)
def test_the_card_names_the_checksum_of_the_file(name: str) -> None:
    card = (FOLDER / "README.md").read_text()
    named = re.search(rf"`([0-9a-f]{{64}})` {re.escape(name)}$", card, re.MULTILINE)
    assert named is not None
    assert named[1] == hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()


def test_the_config_names_the_experts_both_ways() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["num_experts"] == config["num_local_experts"] == 16
