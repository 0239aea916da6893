"""Calls of transformers' modules without what surrounds them and does nothing here, a few
microseconds a time.
"""

import inspect
from types import MethodType
from typing import Any

import torch
from transformers import GradientCheckpointingLayer, PreTrainedModel

from services.model.torch_internals import call_instead, has_hooks

# Decorators of their forwards collect outputs that nobody asks for, read defaults and checkpoint
# gradients.
WRAPPED = (PreTrainedModel, GradientCheckpointingLayer)


class PlainList(torch.nn.ModuleList):
    """A list of modules of which a slice is a plain list: models take one on each forward, and run
    through it.
    """

    def __getitem__(self, index: int | slice) -> Any:
        return list(self)[index] if isinstance(index, slice) else super().__getitem__(index)


def call_plainly(model: torch.nn.Module) -> None:
    """Make calls within `model`, which is complete and in evaluation mode, go to the modules' own
    forwards, in place.

    A module that has hooks by now keeps them; those that are registered later are not called.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is torch.nn.ModuleList:
                setattr(module, name, PlainList(child))
        if not has_hooks(module):
            call_instead(module, _bare_forward(module))


def _bare_forward(module: torch.nn.Module) -> Any:
    if isinstance(module, WRAPPED):
        return MethodType(inspect.unwrap(type(module).forward), module)
    return module.forward
