"""Packed attention over cached keys equals each sequence's attention by itself."""

import pytest
import torch
import torch.nn.functional as F

from services import kernels
from services.model.attention import AttentionProbe, packed_attention
from services.model.kv_cache import KvCache, LayerShape
from services.model.packed_batch import PackedBatch, Segment
from services.wire.errors import BadState

HEADS, KV_HEADS, WIDTH = 4, 2, 8
CPU = torch.device("cpu")


class Layer(torch.nn.Module):
    layer_idx = 0


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of one whole sequence, written out; query [heads, tokens, width] and so on."""
    tokens = query.shape[1]
    key, value = (
        key.repeat_interleave(HEADS // KV_HEADS, 0),
        value.repeat_interleave(HEADS // KV_HEADS, 0),
    )
    scores = query @ key.transpose(-1, -2) * WIDTH**-0.5
    seen = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    if window is not None:
        seen &= ~torch.ones(tokens, tokens, dtype=torch.bool).tril(-window)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(HEADS, tokens, 1)], -1)
    return F.softmax(scores, -1)[..., :tokens] @ value


@pytest.mark.parametrize("row_by_row", [False, True])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("most_chunk_keys", [0, 10, 1000])
def test_chunks_and_decodes_of_many_sequences_attend_as_whole_sequences_do(
    row_by_row: bool,
    window: int | None,
    with_sinks: bool,
    most_chunk_keys: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever chunks the kernel takes."""
    monkeypatch.setattr(kernels, "most_chunk_keys", lambda _: most_chunk_keys)
    torch.manual_seed(0)
    cache = KvCache({0: LayerShape(KV_HEADS, WIDTH, KV_HEADS, WIDTH)}, 256, torch.float32, CPU)
    lengths, tables = (23, 9, 14), [cache.pool.reserve(length) for length in (23, 9, 14)]
    sinks = torch.randn(HEADS) if with_sinks else None
    whole = [
        [torch.randn(heads, n, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS)] for n in lengths
    ]
    outputs: list[list[torch.Tensor]] = [[], [], []]
    # The first two steps prefill in uneven chunks, the third mixes a chunk with decodes.
    for chunks in (
        [(0, 0, 7), (1, 0, 8)],
        [(0, 7, 12), (2, 0, 13)],
        [(0, 19, 4), (1, 8, 1), (2, 13, 1)],
    ):
        segments, first = [], 0
        for index, start, count in chunks:
            table = tables[index]
            assert table is not None
            segments.append(Segment(first, count, start, table.first_slot))
            first += count
        query, key, value = (
            torch.cat(
                [whole[index][part][:, start : start + count] for index, start, count in chunks], 1
            )[None]
            for part in range(3)
        )
        packed = PackedBatch(cache, segments, CPU, row_by_row)
        output, _ = packed_attention(
            Layer(),
            query,
            key,
            value,
            None,
            packed=packed,
            scaling=WIDTH**-0.5,
            sliding_window=window,
            s_aux=sinks,
        )
        for segment, (index, _, count) in zip(segments, chunks, strict=True):
            outputs[index].append(output[0, segment.first_token : segment.first_token + count])
    for (query, key, value), parts in zip(whole, outputs, strict=True):
        expected = reference(query, key, value, window, sinks).transpose(0, 1)
        assert torch.allclose(torch.cat(parts), expected, atol=1e-5)


def test_padding_tokens_leave_no_trace_in_the_cache() -> None:
    cache = KvCache({0: LayerShape(KV_HEADS, WIDTH, KV_HEADS, WIDTH)}, 32, torch.float32, CPU)
    cache.write(
        0, torch.arange(32), torch.zeros(32, KV_HEADS, WIDTH), torch.zeros(32, KV_HEADS, WIDTH)
    )
    packed = PackedBatch(cache, [Segment(0, 2, 0, 16)], CPU)
    query, key = torch.ones(1, HEADS, 16, WIDTH), torch.ones(1, KV_HEADS, 16, WIDTH)
    output, _ = packed_attention(Layer(), query, key, key, None, packed=packed)
    keys, _ = cache.read(0, 0, 32)
    assert keys[0, 0, :, 0].nonzero().flatten().tolist() == [16, 17]
    assert output[0, 2:].abs().sum() == 0


def test_a_model_that_caps_its_attention_is_refused() -> None:
    tensor = torch.ones(1, HEADS, 1, WIDTH)
    with pytest.raises(BadState, match="softcap"):
        packed_attention(
            Layer(), tensor, tensor, tensor, None, packed=AttentionProbe(), softcap=50.0
        )
