"""Says to whoever reads metrics what is running."""

from collections.abc import Iterable
from importlib import metadata

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

BUILD_INFO = "moesaic.build_info"

_labels: dict[str, str] = {}


def observe_build(*, kernels: str = "none") -> None:
    """Tell version, torch's version and the level of the `kernels`, `none` where none are used, as
    labels of a gauge that is 1, from now on.
    """
    _labels.update(
        version=metadata.version("moesaic"), torch=metadata.version("torch"), kernels=kernels
    )


def _observe(_: CallbackOptions) -> Iterable[Observation]:
    if _labels:
        yield Observation(1, _labels.copy())


metrics.get_meter(__name__).create_observable_gauge(
    BUILD_INFO, [_observe], description="what is running"
)
