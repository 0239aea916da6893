"""The checksum's kernel against zlib, alone and in a message that is put together."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services import kernels

UINT32 = st.integers(0, 2**32 - 1)
with_kernel = pytest.mark.skipif(not kernels.CHECKSUMS, reason="this processor has no kernel for checksums")


def drawn(num_bytes: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(num_bytes)


@given(st.integers(0, 300) | st.integers(0, 1 << 17), UINT32, UINT32)
def test_it_is_zlib_s_whatever_the_length_and_whatever_came_before(num_bytes: int, seed: int, before: int) -> None:
    data = drawn(num_bytes, seed)
    assert kernels.checksum(data, before) == zlib.crc32(data, before)
    assert kernels.checksum(memoryview(data)[1:], before) == zlib.crc32(data[1:], before)  # wherever it begins


@given(st.binary(), st.binary(min_size=64))
def test_it_goes_on_from_what_came_before(first: bytes, second: bytes) -> None:
    assert kernels.checksum(second, kernels.checksum(first)) == zlib.crc32(first + second)


def test_without_the_kernel_zlib_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(1000, 1)
    with_it = kernels.checksum(data, 7)
    monkeypatch.setitem(kernels.checksum.__globals__, "CHECKSUMS", False)
    monkeypatch.setitem(kernels.checksum.__globals__, "_native", None)
    assert kernels.checksum(data, 7) == with_it


@with_kernel
@given(st.integers(0, 9), st.integers(1, 40), st.lists(st.integers(0, 8), max_size=9) | st.none(), st.data())
def test_a_message_gets_the_checksum_of_the_rows_that_were_copied(
    num_rows: int, width: int, wanted: list[int] | None, draw: st.DataObject
) -> None:
    rows = torch.randn(num_rows, width)
    indices = None if wanted is None else np.array([index for index in wanted if index < num_rows], dtype=np.int64)
    prefix, suffix, before = drawn(draw.draw(st.integers(4, 9)), 1), drawn(3, 2), draw.draw(UINT32)
    at = draw.draw(st.integers(0, len(prefix) - 4))
    plain = kernels.joined(prefix, rows, indices, suffix)
    checksum = zlib.crc32(plain[len(prefix) : len(plain) - len(suffix)], before)
    expected = plain[:at] + checksum.to_bytes(4, "little") + plain[at + 4 :]
    assert kernels.joined(prefix, rows, indices, suffix, checksum_at=at, checksum=before) == expected


@with_kernel
@pytest.mark.parametrize("at", [-2, 3, (1 << 63) - 1, -(1 << 63)])
def test_a_checksum_s_place_outside_of_the_prefix_is_refused(at: int) -> None:
    with pytest.raises(ValueError, match="no room for it"):
        kernels.joined(b"prefix", torch.ones(1, 1), None, checksum_at=at)


@with_kernel
def test_what_is_no_bytes_has_no_checksum() -> None:
    with pytest.raises(TypeError):
        kernels.checksum("text")  # type: ignore[arg-type]
