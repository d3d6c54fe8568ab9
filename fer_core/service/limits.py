"""Limits of one request, and of all requests together."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields

from fer_core.errors import ServiceError
from openface.decoding import LARGEST

PREFIX = "FER_SERVICE_"
_OPERATORS = ("request_bytes", "request_files", "image_pixels", "request_seconds", "requests")
"""The others follow from these, or from what a batch costs."""


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of all requests together."""

    request_bytes: int = 20_000_000
    """Bytes of a request's body."""
    request_files: int = 32
    """Files in one request."""
    image_pixels: int = LARGEST
    """Pixels that an image may claim; a small file that claims more is taken for a decompression bomb."""
    request_seconds: float = 30.0
    """Seconds from a request's headers to its answer, the body's arrival included."""
    requests: int = 64
    """Requests answered or waiting at once; those beyond are asked to come again."""
    bodies_bytes: int = 200_000_000
    """Bytes of all bodies that are held at once."""
    batch_faces: int = 32
    """Faces that go through the model in one call."""
    batch_seconds: float = 0.004
    """Seconds that a face waits for others."""


def limits_from(environment: Mapping[str, str]) -> Limits:
    """The defaults, or what FER_SERVICE_REQUEST_BYTES and the like say where they are not empty.

    Raises:
        ServiceError: one that is no number above 0.
    """
    types = {field.name: int if field.type is int else float for field in fields(Limits)}
    given = {}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name in _OPERATORS and text:
            given[name] = _number(variable, text, types[name])
    # Else one that is larger than all that may be held would be asked to come again for ever.
    bodies = max(Limits.bodies_bytes, given.get("request_bytes", 0))
    return Limits(**given, bodies_bytes=bodies)  # type: ignore[arg-type]


def _number(variable: str, text: str, of: type[int] | type[float]) -> float:
    try:
        number = of(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise ServiceError(f"{variable}={text}: must be a {'whole ' if of is int else ''}number above 0")
    return number


class Full(Exception):
    """There is no room for another request, or for more of its body."""


class Room:
    """Requests and bytes of bodies that are held at the moment. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def admit(self) -> Iterator["Held"]:
        """Room for a request, until it is answered.

        Raises:
            Full: as many as may be are there already.
        """
        if self.requests >= self._limits.requests:
            raise Full
        self.requests += 1
        held = Held(self, self._limits.bodies_bytes)
        try:
            yield held
        finally:
            self.requests -= 1
            self.bytes -= held.bytes


class Held:
    """What one request holds of the room for bodies."""

    def __init__(self, room: Room, most: int) -> None:
        self._room = room
        self._most = most
        self.bytes = 0

    def take(self, count: int) -> None:
        """So many bytes more.

        Raises:
            Full: there is no room for them.
        """
        if self._room.bytes + count > self._most:
            raise Full
        self._room.bytes += count
        self.bytes += count
