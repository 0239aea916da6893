"""How the compiled modules take arguments: by name, as their stubs say; and what they refuse."""

import ast
import ctypes
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from services.kernels.level import _native
from services.router.peers.native_transport import _streams
from services.wire.native.messages import _codec

MODULES = {
    module.__name__.split(".")[-1]: module
    for module in (_native, _codec, _streams)
    if module is not None
}
SERVICES = Path(__file__).parents[2] / "services"

pytestmark = pytest.mark.skipif(len(MODULES) < 2, reason="the kernels or the codec were not built")


def signatures(module: ModuleType) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(function)
        for name, function in inspect.getmembers(module, inspect.isbuiltin)
    }


def calls() -> Iterator[tuple[Callable[..., object], list[str]]]:
    """Every compiled function that takes keyword arguments, and their names."""
    for module in MODULES.values():
        for name, signature in signatures(module).items():
            if any(
                parameter.kind is parameter.KEYWORD_ONLY
                for parameter in signature.parameters.values()
            ):
                yield getattr(module, name), list(signature.parameters)


CALLS = list(calls())
each_call = pytest.mark.parametrize(
    ("call", "names"), CALLS, ids=[call.__name__ for call, _ in CALLS]
)
each_module = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)


def zeros(names: list[str]) -> dict[str, object]:
    return dict.fromkeys(names, 0)


@each_module
def test_the_stub_names_every_argument_that_the_module_takes(module: ModuleType) -> None:
    (stub,) = SERVICES.rglob(f"{module.__name__.split('.')[-1]}.pyi")
    said = {
        node.name: [
            (argument.arg, argument in node.args.kwonlyargs)
            for argument in ast.walk(node.args)
            if isinstance(argument, ast.arg)
        ]
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert said == {
        name: [
            (parameter.name, parameter.kind is parameter.KEYWORD_ONLY)
            for parameter in signature.parameters.values()
        ]
        for name, signature in signatures(module).items()
    }


def test_callers_keep_to_the_order_that_needs_no_sorting() -> None:
    passed = {
        node.func.attr: [keyword.arg for keyword in node.keywords]
        for path in SERVICES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id in MODULES and node.keywords
    }
    assert passed == {call.__name__: names for call, names in CALLS}


def test_arguments_come_in_any_order() -> None:
    experts, owners = np.array([2, 0, 1, 2]), np.array([0, 1, 0])

    def scattered(names: list[str]) -> tuple[object, list[int]]:
        results = np.zeros(12, np.int64)
        of: dict[str, Any] = {
            "experts": experts,
            "owners": owners,
            "results": results,
            "num_pairs": 4,
            "num_experts": 3,
            "top_k": 2,
        }
        return _native.scatter(**{name: of[name] for name in names}), results.tolist()

    names = next(names for call, names in CALLS if call.__name__ == "scatter")
    expected = scattered(names)
    assert expected[0] == [(0, 0, 3, 2, 2), (1, 3, 1, 1, 1)]
    for i in range(len(names)):
        assert (
            scattered(names[i:] + names[:i])
            == scattered(names[::-1])
            == scattered(names)
            == expected
        )


@each_call
def test_each_argument_that_is_missing_is_named(
    call: Callable[..., object], names: list[str]
) -> None:
    for missing in names:
        with pytest.raises(TypeError, match=rf"{call.__name__}\(\) wants the argument '{missing}'"):
            call(**zeros([name for name in names if name != missing]))
    with pytest.raises(TypeError, match=rf"wants the argument '{names[0]}'"):
        call()


@each_call
def test_an_unknown_argument_is_named(call: Callable[..., object], names: list[str]) -> None:
    for known in (names, names[1:]):
        with pytest.raises(TypeError, match=rf"{call.__name__}\(\) has no argument 'rowz'"):
            call(**zeros([*known, "rowz"]))
    with pytest.raises(TypeError, match="has no argument 'É'"):
        call(**zeros(["É"]))


@each_call
def test_an_argument_given_twice_is_named(call: Callable[..., object], names: list[str]) -> None:
    # Python itself lets none through; a caller in C may.
    vectorcall = ctypes.pythonapi.PyObject_Vectorcall
    vectorcall.restype = ctypes.py_object
    vectorcall.argtypes = [
        ctypes.py_object,
        ctypes.POINTER(ctypes.py_object),
        ctypes.c_size_t,
        ctypes.py_object,
    ]
    doubled = (*names, names[-1])
    array: Any = ctypes.py_object * len(doubled)  # an array takes objects as they are
    with pytest.raises(TypeError, match=rf"{call.__name__}\(\) was given twice '{names[-1]}'"):
        vectorcall(
            call,
            array(*[0] * len(doubled)),
            0,
            doubled,
        )


@each_call
def test_positional_arguments_are_refused(call: Callable[..., object], names: list[str]) -> None:
    for named in ({}, zeros(names), zeros(names[2:])):
        with pytest.raises(
            TypeError, match=rf"{call.__name__}\(\) takes keyword arguments alone, not 2 positional"
        ):
            call(0, 0, **named)


@pytest.mark.parametrize(
    ("call", "name", "value", "error"),
    [
        ("linear", "rows", "0", TypeError),
        ("linear", "rows", 1 << 63, OverflowError),
        ("linear", "width", 1.0, TypeError),
        ("linear", "width", 1 << 63, OverflowError),
        ("linear", "dtype", None, TypeError),
        ("rms_norm", "epsilon", "0", TypeError),
        ("attend", "query_shape", [1, 2, 3], TypeError),
        ("attend", "query_shape", (1, 2), TypeError),
        ("attend", "query_shape", (1, 2, "3"), TypeError),
        ("gate", "renormalise", np.zeros(2), ValueError),
        ("attention_layer", "layer", 0, ValueError),
        ("attention_layer", "layer", ctypes.pythonapi, ValueError),
    ],
)
def test_a_value_of_another_kind_is_refused(
    call: str, name: str, value: object, error: type[Exception]
) -> None:
    function, names = next(each for each in CALLS if each[0].__name__ == call)
    with pytest.raises(error):
        function(**zeros(names) | {name: value})
