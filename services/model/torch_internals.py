"""What torch does not promise to keep: each name with its reason, and used here alone.

`tests/model/test_internals.py` says at once when one of them is gone.
"""

from typing import Any

from torch import nn

# A hook changes what a call does, and torch has no question for whether there is one.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module runs more than its forward."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def call_instead(module: nn.Module, forward: Any) -> None:
    """Have a call of the module call `forward` and nothing else. A compiled module has its compiled
    call there, and torch looks for it before anything else; `compile` is the only public way to it.
    """
    module._compiled_call_impl = forward
