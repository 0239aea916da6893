"""What a gateway tells Prometheus of its requests, as far as it is shown here."""

from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from services.cli.top.quantiles import Buckets

FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds_bucket"
WAITING = "moesaic_gateway_waiting_requests"


@dataclass(frozen=True)
class GatewayMetrics:
    """Requests that wait for a router, and times to the first token in seconds since it began."""

    num_waiting: int = 0
    first_token: Buckets = field(default_factory=dict)


async def gateway_metrics(address: str, *, timeout_seconds: float) -> GatewayMetrics | None:
    """What it tells; None where it does not."""
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{address}/metrics") as response,
        ):
            return parse(await response.text()) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def parse(text: str) -> GatewayMetrics:
    """Out of Prometheus' text format. Raises ValueError for what is none."""
    waiting = 0.0
    cumulative: dict[float, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == WAITING:
                waiting += sample.value
            elif sample.name == FIRST_TOKEN:
                bound = float(sample.labels["le"])
                cumulative[bound] = cumulative.get(bound, 0.0) + sample.value
    buckets, below = {}, 0.0
    for bound, count in sorted(cumulative.items()):
        buckets[bound], below = count - below, count
    return GatewayMetrics(max(0, int(waiting)), buckets)
