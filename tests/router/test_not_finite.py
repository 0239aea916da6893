"""Rows that are not finite are taken out of what came back, whoever they were for."""

import numpy as np
import torch

from services.router.dispatch.combine import Returned
from services.router.dispatch.frame_pairs import FramePairs
from services.router.dispatch.not_finite import take_out_not_finite
from services.router.dispatch.scatter import Outgoing


def test_a_sum_of_pairs_that_were_not_computed_is_zeroed_and_fails_no_other_pair() -> None:
    outgoing = Outgoing(3, torch.ones(2, 4), np.array([0, 1]), None, 1)
    rows, numbers = np.array([0, 1], np.uint32), np.array([0, 1])
    pairs = FramePairs(0, numbers, numbers, rows, rows, 2)
    sums = torch.tensor([[1.0] * 4, [float("nan")] * 4])
    # The second pair was not hosted; a row came back for its token all the same.
    returned = [
        Returned(pairs, np.array([0]), memoryview(sums.numpy().tobytes()), torch.float32, "a:1")
    ]
    assert take_out_not_finite(returned, outgoing, are_sums=True) == []
    assert returned[0].rows(4).tolist() == [[1.0] * 4, [0.0] * 4]
