"""The sandbox in which chat templates run: what they do is metered, so that none runs for good or
fills the memory.
"""

import re
from collections.abc import Callable, Mapping
from functools import wraps
from threading import local
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

# Characters that one rendering may make; a turn of a loop and the call of a macro count as some.
MAX_WORK = 1 << 28
TURN_WORK = 256
# Of a list.
ELEMENT_WORK = 8
MAX_INTEGER_BITS = 1 << 12
_LARGE_WIDTH = re.compile(r"\d{6}")


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """Refuses with SecurityError a template that does too much. It meters operators, loops, macros
    and output.

    That stops mistakes and the usual traps; it is no jail for who is set on wasting memory.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, *, filters: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        super().__init__(**options, finalize=self.put_out)
        self._work = local()
        known = {**self.filters, **filters, "format": self._format}
        self.filters = {
            name: self._with_small_numbers(function) for name, function in known.items()
        }

    def compiled(self, tree: nodes.Template) -> Any:
        """The template of a parsed source, with its loops metered."""
        return self.from_string(_Metering().visit(tree))

    def begin(self) -> None:
        """A rendering starts in this thread."""
        self._work.left = MAX_WORK

    def spend(self, work: int) -> None:
        """Count work of this thread's rendering before it is done."""
        self._work.left = getattr(self._work, "left", MAX_WORK) - work
        if self._work.left < 0:
            raise SecurityError("it repeats too much or makes too long a text")

    def put_out(self, value: Any) -> str:
        """What an expression of the template puts out."""
        return self.concatenated(value)

    def concatenated(self, *values: Any) -> str:
        """Jinja's `~`."""
        texts = [str(value) for value in values]
        self.spend(sum(map(len, texts)))
        return "".join(texts)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method for a template."""
        self._check_numbers(*args, *kwargs.values())
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute one of the operators by which values grow."""
        if operator == "%" and isinstance(left, str):
            self._check_format(left, right if isinstance(right, tuple) else (right,))
        elif isinstance(left, int) and isinstance(right, int):
            _check_integers(operator, left, right)
        elif operator == "*":
            self.spend(max(_size(left) * _count(right), _size(right) * _count(left)))
        elif operator == "+":
            self.spend(_size(left) + _size(right))
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """A safe `str.format`, where `value` is that."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            self._check_format(value.__self__, ())
        return wrapped

    def _format(self, pattern: Any, *args: Any, **kwargs: Any) -> str:
        self._check_format(str(pattern), args)
        return str(pattern) % (kwargs or args)

    def _check_format(self, pattern: str, args: tuple[Any, ...]) -> None:
        if _LARGE_WIDTH.search(pattern):
            raise SecurityError("it formats a text with a very large width")
        self._check_numbers(*args)

    def _check_numbers(self, *values: Any) -> None:
        # They are widths, counts and indents, or no larger than such.
        for value in values:
            if isinstance(value, int):
                if abs(value) > MAX_RANGE:
                    raise SecurityError(f"it gives a function a number above {MAX_RANGE}")
                self.spend(abs(value))

    def _with_small_numbers(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self._check_numbers(*args[1:], *kwargs.values())
            return function(*args, **kwargs)

        return checked


class _Metering(NodeTransformer):
    """Has every turn of a loop and every call of a macro spend work: for itself and for the plain
    text within.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._metered(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._metered(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._metered(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("concatenated", node.nodes).set_lineno(node.lineno)

    def _metered(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        work = TURN_WORK + sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.body.insert(
            0, nodes.ExprStmt(_call("spend", [nodes.Const(work)])).set_lineno(node.lineno)
        )
        return node


def _call(method: str, args: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), args, [], None, None)


def _check_integers(operator: str, left: int, right: int) -> None:
    bits = (
        left.bit_length() * abs(right)
        if operator == "**"
        else left.bit_length() + right.bit_length()
    )
    if bits > MAX_INTEGER_BITS:
        raise SecurityError("it computes a number of very many digits")


def _size(value: Any) -> int:
    if isinstance(value, list | tuple):
        return len(value) * ELEMENT_WORK
    return len(value) if isinstance(value, str) else 0


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
