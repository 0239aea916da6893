"""The tiny model that services in this process host, as the tests of hosting have it."""

from tests.router.hosting.conftest import checkpoint, model

__all__ = ["checkpoint", "model"]
