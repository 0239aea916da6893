"""How long those who look after hosting wait: before they look or try again, and before they give
something up.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Waits:
    """Seconds of each wait."""

    # Between two look-ups of the names.
    look_up_seconds: float = 2.0
    # Before a name that is not known yet is looked up again.
    unknown_name_seconds: float = 0.5
    # A service that does not answer may be back at once; after so long it is planned without.
    suspect_grace_seconds: float = 0.3
    # Before further replicas of experts that have one are loaded elsewhere: a service that was lost
    # may be back.
    coverage_grace_seconds: float = 1.0
    # Before an operation of the router's own that failed or was refused is tried again.
    own_retry_seconds: float = 1.0
    # For so long a replica is held, at most, for the operation that relies on it.
    hold_seconds: float = 4.0
    # Before a service is asked again where another planner was first: at random between the two, so
    # that one of two planners gets ahead.
    conflict_seconds: tuple[float, float] = (0.02, 0.1)
    # Before a service that failed is asked again.
    failure_seconds: float = 0.5
    # For so long a service that cannot load is asked for nothing more; it may be mended without
    # being started again.
    trouble_seconds: float = 5.0
    # How long nothing at all may change while something is left to do: what others have under way
    # has to end.
    stall_seconds: float = 60.0
    # Between two requests to plan for all routers, and for how long each of them is good.
    planning_ask_seconds: float = 1.0
    planning_hold_seconds: float = 3.0
    # How long the holds of an operation may take to end, before they are left to lapse.
    release_seconds: float = 2.0

    @property
    def patience_seconds(self) -> float:
        """For how long nothing but failures may come that another planner explains, or a service
        that leaves: longer than holds of a router that is no more last.
        """
        return 2 * self.hold_seconds


WAITS = Waits()
