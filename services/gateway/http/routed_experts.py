"""Routed experts as vLLM encodes them: a file of numpy's of int16 [tokens, layers, experts], in
base64.
"""

import base64
import struct
import sys
from array import array
from collections.abc import Sequence

from moesaic.v1 import common_pb2

_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGNMENT = 64


def encoded_experts(tokens: Sequence[common_pb2.RoutedExperts]) -> str:
    """The experts of each token, layer by layer; all have as many."""
    num_layers = len(tokens[0].layers) if tokens else 0
    per_layer = len(tokens[0].layers[0].experts) if num_layers else 0
    numbers = array("h", (one for token in tokens for each in token.layers for one in each.experts))
    if sys.byteorder == "big":
        numbers.byteswap()
    shape = (len(tokens), num_layers, per_layer)
    header = f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(len(_MAGIC) + 2 + len(header) + 1) % _ALIGNMENT
    header += " " * padding + "\n"
    file = _MAGIC + struct.pack("<H", len(header)) + header.encode() + numbers.tobytes()
    return base64.b64encode(file).decode()
