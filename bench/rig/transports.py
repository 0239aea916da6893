"""The transports between routers and expert services that benches compare, and how a service is
told to use one.

A router takes the transport that its service offers: what decides is the service's environment, and
this process, which plays a router in some benches, must be free to follow.
"""

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping, Sequence
from functools import partial

GRPC, NATIVE, TLS = "grpc", "native", "tls"
VARIABLE = "MOESAIC_NATIVE_STREAMS"
# What a process has in its environment beside this one's, and beside certificates.
VARIABLES: Mapping[str, Mapping[str, str]] = {GRPC: {VARIABLE: "off"}, NATIVE: {}, TLS: {}}
RATIO = f"{NATIVE} ÷ {GRPC}"

HELP = (
    "transports to compare, in turn: grpc (grpc.aio, services and routers with "
    f"{VARIABLE}=off) and native (what they use without that variable); ratios need both "
    "(default: %(default)s)"
)
TLS_HELP = f"; {TLS} is native with mutual TLS everywhere"


def add_transports(parser: ArgumentParser, *, has_tls: bool = False) -> None:
    """Add the flag of every bench that compares them; with `has_tls` it takes that too."""
    also = (TLS,) if has_tls else ()
    parser.add_argument(
        "--transports",
        type=partial(transports, also=also),
        metavar="NAME[,NAME]",
        default=f"{GRPC},{NATIVE}",
        help=HELP + (TLS_HELP if has_tls else ""),
    )


def transports(text: str, also: Sequence[str] = ()) -> tuple[str, ...]:
    """The transports of such a flag, each once, in their order; raises what argparse shows when
    one is none, or could not be had in this environment.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    known = (GRPC, NATIVE, *also)
    if not set(names) <= set(known):
        raise ArgumentTypeError(f"{text!r} is no list of {' and '.join(known)}")
    if {NATIVE, TLS} & set(names) and os.environ.get(VARIABLE):
        raise ArgumentTypeError(
            f"{VARIABLE} is set in the environment, and would decide; unset it, or give "
            f"--transports {GRPC}"
        )
    return names
