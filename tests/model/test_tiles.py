"""A row's bits depend on the row alone: not on its neighbours, their number, nor its place."""

import pytest
import torch

from services.model.tiles import TILE_ROWS, Tiled, pad_rows, tile_linears, tile_rows

SIZES = [
    (32, 1),
    (32, 6),
    (32, 64),
    (24, 32),
    (192, 384),
    (192, 16),
    (96, 192),
    (192, 4096),
    (256, 8),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_a_tiled_linear_gives_a_row_the_same_bits_anywhere(
    inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = Tiled(torch.nn.Linear(inputs, outputs), outputs).to(dtype)
    row = torch.randn(inputs).to(dtype)
    expected = layer(row[None])[0]
    for num_rows in (1, 2, 15, 16, 17, 40):
        for place in {0, num_rows // 2, num_rows - 1}:
            rows = torch.randn(num_rows, inputs).to(dtype)
            rows[place] = row
            assert torch.equal(layer(rows)[place], expected), (num_rows, place)


@pytest.mark.parametrize(("width", "rows"), [(4096, 16), (4, 16), (6, 32), (1, 64)])
def test_a_tiles_elements_are_whole_vectors(width: int, rows: int) -> None:
    assert tile_rows(width) == rows


def test_an_activation_of_a_narrow_layer_gives_a_row_the_same_bits_anywhere() -> None:
    layer = Tiled(torch.nn.Linear(32, 1), 1)
    row = torch.randn(32)
    multiple = layer.rows_per_tile
    expected = torch.sigmoid(layer(row.expand(multiple, 32)))[0]
    for num_rows in (multiple, 3 * multiple):
        for place in (0, multiple // 2, num_rows - 1):
            rows = torch.randn(num_rows, 32)
            rows[place] = row
            assert torch.equal(torch.sigmoid(layer(rows))[place], expected)


def test_leading_dimensions_come_back() -> None:
    layer = Tiled(torch.nn.Linear(4, 6), 6)
    assert layer(torch.randn(2, 9, 4)).shape == (2, 9, 6)


def test_no_rows_at_all_come_back_as_none() -> None:
    assert Tiled(torch.nn.Linear(4, 6), 6)(torch.empty(1, 0, 4)).shape == (1, 0, 6)


def test_a_module_that_returns_tensors_returns_them_row_by_row() -> None:
    class Gate(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            values, indices = rows.topk(2)
            return values, indices

    rows = torch.randn(21, 5)
    values, indices = Tiled(Gate(), 5)(rows)
    assert torch.equal(values, rows.topk(2).values)
    assert torch.equal(indices, rows.topk(2).indices)


def test_attributes_of_the_wrapped_layer_are_still_there() -> None:
    layer = torch.nn.Linear(4, 6)
    assert Tiled(layer, 6).weight is layer.weight


def test_every_linear_of_a_model_is_wrapped_once() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sequential(torch.nn.Linear(4, 4)))
    tile_linears(model)
    assert sum(isinstance(module, Tiled) for module in model.modules()) == 2


def test_rows_are_padded_with_zeros_to_whole_tiles() -> None:
    padded = pad_rows(torch.ones(3, 2))
    assert padded.shape == (TILE_ROWS, 2)
    assert padded.sum() == 6
