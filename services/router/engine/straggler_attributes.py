"""What a layer's span says of its straggler: the terminal and the page make words of it."""

from services.router.times.blame import Blame


def straggler_attributes(blamed: Blame | None) -> dict[str, str | int]:
    """Address and cost, and how and by whom it was done where the service did not."""
    if blamed is None:
        return {"moesaic.straggler": ""}
    attributes: dict[str, str | int] = {
        "moesaic.straggler": blamed.service,
        "moesaic.straggler_nanos": blamed.nanos,
    }
    if blamed.failing is not None:
        attributes["moesaic.straggler_failing"] = blamed.failing
        attributes["moesaic.straggler_instead"] = blamed.instead
    return attributes
