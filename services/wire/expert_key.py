"""What an expert is called within its model."""

from typing import NamedTuple


class ExpertKey(NamedTuple):
    """An expert of the model: transformer layer and expert, both counted from 0."""

    layer: int
    expert: int
