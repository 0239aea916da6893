"""bench.trees: products of two trees are compared, and what is no tree is refused."""

from pathlib import Path

import pytest

from bench.rig.generated import Generated
from bench.trees.__main__ import HERE, Case, main
from bench.trees.products import KINDS, ROWS, SHAPES, measured_products
from services import kernels


@pytest.mark.skipif(not kernels.AVAILABLE, reason="without kernels there is nothing to compare")
async def test_products_of_a_tree_and_itself_are_compared() -> None:
    cases = 0

    def count() -> None:
        nonlocal cases
        cases += 1

    found = await measured_products(HERE, HERE, 1, count, weight_bytes=8 << 20)
    assert cases == len(found) == len(KINDS) * len(SHAPES) * len(ROWS)
    assert all(each.speed_up.median > 0 for each in found)


def test_a_case_has_rates_of_both_trees() -> None:
    slow = Generated(2.0, [[0.5, 1.0, 2.0]], [[1, 2, 3]], {"all": 3.0})
    quick = Generated(1.0, [[0.25, 0.5, 1.0]], [[1, 2, 3]], {"all": 1.0})
    case = Case(1, {"before": [slow], "now": [quick]})
    assert case.rates("now") == [3.0]
    assert case.decode_rates("before") == [pytest.approx(2 / 1.5)]
    assert case.cores("before").median == 1.5


def test_a_folder_that_is_no_tree_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="a bench draws what it measures")
    json = f"--json={tmp_path / 'trees.json'}"
    assert main([f"--before={tmp_path}", json]) != 0
    assert "is no tree of this project" in capsys.readouterr().err
