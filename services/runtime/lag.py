"""Measures how long the event loop keeps whoever is ready waiting, and how many tasks it has."""

import asyncio
import time

from opentelemetry import metrics

LOOP_LAG = "moesaic.loop.lag"
LOOP_TASKS = "moesaic.loop.tasks"
INTERVAL_SECONDS = 0.25
BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


async def measure_loop_lag(interval_seconds: float = INTERVAL_SECONDS) -> None:
    """Record, until cancelled, how much later than asked for the loop wakes a sleeper,
    in seconds, and its tasks.
    """
    meter = metrics.get_meter(__name__)
    tasks = meter.create_gauge(LOOP_TASKS, unit="{task}", description="tasks of the event loop")
    histogram = meter.create_histogram(
        LOOP_LAG,
        unit="s",
        description="how late the event loop woke a sleeper",
        explicit_bucket_boundaries_advisory=BUCKETS_SECONDS,
    )
    while True:
        asked = time.monotonic() + interval_seconds
        await asyncio.sleep(interval_seconds)
        histogram.record(max(0.0, time.monotonic() - asked))
        tasks.set(len(asyncio.all_tasks()))
