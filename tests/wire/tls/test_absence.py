"""Where TLS was not built, the rest of the native wire is as ever."""

import subprocess
import sys

import pytest

from services.wire import connections

SAY = """
import sys
sys.modules["services.wire.tls._tls"] = None
from services.runtime import native_server, tls_contexts
from services.router.peers import native_transport
from services.expert import plane
print(native_server.AVAILABLE, native_transport.AVAILABLE, plane.is_available())
print(tls_contexts.AVAILABLE)
"""


@pytest.mark.skipif(not connections.AVAILABLE, reason="native streams were not built")
def test_streams_are_native_without_it() -> None:
    said = subprocess.check_output([sys.executable, "-c", SAY], text=True, timeout=60)
    assert said.split() == ["True", "True", "True", "False"]
