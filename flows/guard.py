"""Keeps pages of other origins away from a server of this machine: Host and Origin are looked at before anything else.

A browser here sends requests to 127.0.0.1 for whatever page it has open. It names that page's origin in `Origin` or
`Sec-Fetch-Site`; and a page whose own name was made to point to 127.0.0.1 (DNS rebinding) gives that name as `Host`.
Programs send neither a foreign Host nor an Origin.
"""

import ipaddress
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

ADDRESS = "FER_URL"
"""Environment: where a browser finds the server, if not on this machine alone."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
Headers = Sequence[tuple[str, str]]
"""Names in small letters, with their values."""


def own_names(*more: str) -> frozenset[str]:
    """The names that a server may be called by: this machine's loopback, the one in FER_URL, and more."""
    configured = _address(f"//{urlsplit(configured_address()).netloc}")
    return frozenset((*_LOOPBACK, *([configured[0]] if configured else []), *more))


def configured_address() -> str:
    """FER_URL, or ""; people leave out its `http://`, or copy the slash or the `/api` that browsers show at its end."""
    told = os.environ.get(ADDRESS, "").strip().rstrip("/").removesuffix("/api").rstrip("/")
    return told if not told or "://" in told else f"http://{told.removeprefix('//')}"


def refusal(method: str, headers: Headers, names: frozenset[str], setting: str = ADDRESS) -> str:
    """Why a request is not let through, or "".

    Args:
        method: of the request; `GET` for a web socket.
        headers: all of them.
        names: what the server may be called.
        setting: where a person sets one more.
    """
    hosts, origins = _values(headers, "host"), _values(headers, "origin")
    if len(hosts) != 1 or not (called := _address(f"//{hosts[0]}")) or called[0] not in names:
        return f"not called by a name of this server; set {setting} to the address that you call it by"
    if len(origins) > 1:
        return "from several origins"
    if origins:
        came_from = _address(origins[0])
        if not came_from or came_from[0] not in names or came_from[1] != called[1]:
            return "from a page of another origin"
    elif _foreign(_values(headers, "sec-fetch-site")) and not _opens_a_page(method, headers):
        return "from a page of another origin"
    return ""


class OnlyOwnPages:
    """An ASGI application in front of another one: what `refusal` names does not reach it."""

    def __init__(self, app: App, names: Iterable[str]) -> None:
        self._app, self._names = app, frozenset(names)

    async def __call__(
        self, scope: Scope, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
            if reason := refusal(scope.get("method", "GET"), headers, self._names):
                await _refuse(scope["type"], reason, send)
                return
        await self._app(scope, receive, send)


async def _refuse(kind: str, reason: str, send: Callable[[Message], Awaitable[None]]) -> None:
    if kind == "websocket":
        # Before it is accepted, this is the answer 403.
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = f"refused: {reason}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _values(headers: Headers, name: str) -> list[str]:
    return [value.strip() for key, value in headers if key == name]


def _address(url: str) -> tuple[str, int | None] | None:
    """Host and port of a URL, or of `//host:port`; None where it is none, as `null` is, and for a scheme's own port."""
    try:
        parts = urlsplit(url)
        port = None if parts.port in (80, 443) else parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        return None
    try:
        return str(ipaddress.ip_address(parts.hostname)), port
    except ValueError:
        return parts.hostname, port


def _foreign(sites: list[str]) -> bool:
    return any(site not in ("same-origin", "none") for site in sites)


def _opens_a_page(method: str, headers: Headers) -> bool:
    """True for a link that a person has followed: the page opens by itself, and no other page can read it."""
    return (
        method in ("GET", "HEAD")
        and _values(headers, "sec-fetch-mode") == ["navigate"]
        and _values(headers, "sec-fetch-dest") == ["document"]
    )
