"""The kinds of transports that streams are carried by, as parameters of tests."""

import pytest

from services.router.peers.native_transport import AVAILABLE

NATIVE = pytest.mark.skipif(not AVAILABLE, reason="native streams were not built")
TRANSPORTS = ["gRPC", pytest.param("native", marks=NATIVE)]
