"""What only models of one family need of transformers, imported before a checkpoint is opened."""

from pathlib import Path

import torch

from services.model.configuration import Configuration
from services.model.skeleton import build_skeleton


def import_family(directory: Path) -> None:
    """Import what opening the checkpoint will import, in this thread alone.

    Raises UnusableModel when it cannot be served.
    """
    build_skeleton(Configuration.read(directory).config, torch.float32)
