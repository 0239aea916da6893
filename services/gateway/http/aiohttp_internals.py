"""What aiohttp does not promise to keep: each name with its reason, used here alone.

`tests/runtime/test_internals.py` says at once when one of them is gone.
"""

from aiohttp import web


def hold_headers(response: web.StreamResponse) -> None:
    """Let a response's headers leave with the first of its body, as a `web.Response`'s do. A stream
    has no public way to that; where this one is gone they leave by themselves, one write earlier.
    """
    response._send_headers_immediately = False
