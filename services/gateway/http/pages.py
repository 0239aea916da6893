"""Keeps pages of strangers out, which could call by the browsers of those who are let in."""

from collections.abc import Collection, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from services.gateway.http.cors import ANY
from services.gateway.http.errors import PageRefused, WrongType
from services.runtime.host_port import is_loopback
from services.wire.quoting import quoted

JSON, JSON_SUFFIX = "application/json", "+json"
# What curl and its like say of a body of which nobody told them what it is. Pages say so, too, and
# their browsers add whose they are.
UNTOLD = ("", "application/x-www-form-urlencoded", "application/octet-stream")
# By which browsers say that a page calls. Pages cannot leave them out.
OF_PAGES = (hdrs.ORIGIN, "Sec-Fetch-Site")


class Pages(Protocol):
    """Of one HTTP port."""

    def check(self, request: web.BaseRequest) -> None:
        """Raises PageRefused where a page calls that may not."""


class AllPages:
    """Where a key is asked for, which no stranger's page has."""

    def check(self, request: web.BaseRequest) -> None:
        """All may call."""


class NamedPages:
    """By the origins that are allowed; `*` is all of them. Requests without an origin are of no
    page, or of one with the same origin: where `has_local_names` alone, one that calls its host by
    another name was led here by that name's address (DNS rebinding).
    """

    def __init__(self, origins: Collection[str], *, has_local_names: bool) -> None:
        self._origins = frozenset(origins)
        self._hosts = frozenset(_host_in(origin) for origin in origins)
        self._has_local_names = has_local_names

    def check(self, request: web.BaseRequest) -> None:
        if ANY in self._origins:
            return
        for origin in request.headers.getall(hdrs.ORIGIN, ()):
            if origin not in self._origins:
                raise PageRefused(
                    f"pages of {quoted(origin)} may not call here; --cors-origin names those that "
                    "may"
                )
        if self._has_local_names:
            for host in request.headers.getall(hdrs.HOST, ()):
                self._check_host(host)

    def _check_host(self, host: str) -> None:
        name = _host_in(f"//{host}")
        if not is_loopback(name) and name not in self._hosts:
            raise PageRefused(
                f"this machine is called localhost here, and not {quoted(host)}; --cors-origin "
                "names origins whose hosts are further names"
            )


def check_type(headers: Mapping[str, str]) -> None:
    """Of a body. Raises WrongType where it is no JSON by its type: a page may send some types to
    whomever it likes, and a browser asks before it sends JSON.
    """
    kind = headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if kind == JSON or kind.endswith(JSON_SUFFIX):
        return
    if kind in UNTOLD and not any(name in headers for name in OF_PAGES):
        return
    raise WrongType(f"the body must be {JSON}, and its Content-Type says {quoted(kind)}")


def _host_in(url: str) -> str:
    """Empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
