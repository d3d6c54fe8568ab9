"""A multipart body, read and held to its limits while it arrives; nothing of it touches the disk."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fer_core.service.limits import Held, Limits

FILES, ALIGNED = "files", "aligned"
_LONGEST_NAME = 255
_LONGEST_VALUE = 16
_MOST_VALUES = 8
_ENCODED_NAME = re.compile(rb";\s*filename\*=\"?utf-8'[^']*'([^;\"\s]+)", re.IGNORECASE)
"""How clients such as requests on urllib3 1 name a file whose name is not ASCII, and no other way (RFC 5987)."""
_TRUTHS = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}


class Refused(Exception):
    """A body that is not taken; an HTTP status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class UploadedFile:
    """A file's name as the client gave it, and its bytes."""

    name: str
    content: bytearray = field(default_factory=bytearray)


@dataclass
class Upload:
    """The files of a request body, and whether it said `aligned`."""

    files: list[UploadedFile]
    aligned: bool | None


async def read_upload(
    content_type: str, declared: str | None, body: AsyncIterator[bytes], limits: Limits, held: Held
) -> Upload:
    """The files of a multipart body.

    Args:
        declared: the Content-Length, which is only believed where it is too large.

    Raises:
        Refused: 413 too large, 415 not multipart, 422 anything else that is wrong with it.
        Full: no room for it at the moment.
    """
    if declared is not None and declared.isdecimal() and int(declared[:20]) > limits.request_bytes:
        raise _too_large(limits)
    parts = _Parts(_boundary(content_type), limits.request_files)
    arrived = 0
    async for chunk in body:
        arrived += len(chunk)
        if arrived > limits.request_bytes:
            raise _too_large(limits)
        held.take(len(chunk))
        parts.write(chunk)
    return parts.upload()


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the request has more than {limits.request_bytes:,} bytes; send fewer or smaller files")


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise Refused(415, f"send multipart/form-data, with one or many files as `{FILES}`")
    if not options.get(b"boundary"):
        raise Refused(422, "the Content-Type header names no boundary")
    return options[b"boundary"]


class _Parts:
    """The parts of a multipart body, as its bytes come in."""

    def __init__(self, boundary: bytes, most_files: int) -> None:
        self._most_files = most_files
        self._files: list[UploadedFile] = []
        self._values: list[bytearray] = []
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._part: bytearray | None = None
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin_part,
                    "on_part_data": self._more,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Refused(422, f"the body is no multipart/form-data: {error}") from error

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refused(422, f"the body is no multipart/form-data: {error}") from error

    def upload(self) -> Upload:
        if not self._ended:
            raise Refused(422, "the body ends before its last boundary")
        if not self._files:
            raise Refused(422, f"no files in the body; send one or many as `{FILES}`")
        return Upload(self._files, _truth(bytes(self._values[-1])) if self._values else None)

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _begin_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename") or _encoded_name(self._disposition)
        self._disposition = b""
        field_name = options.get(b"name", b"").decode(errors="replace")
        if field_name == FILES:
            self._part = self._begin_file(name.decode(errors="replace")).content
        elif field_name == ALIGNED and len(self._values) < _MOST_VALUES:
            self._part = bytearray()
            self._values.append(self._part)
        else:
            raise Refused(422, f"unknown field {field_name[:80]!r}; send files as `{FILES}`, and `{ALIGNED}` at most")

    def _begin_file(self, name: str) -> UploadedFile:
        if len(self._files) == self._most_files:
            raise Refused(413, f"the request has more than {self._most_files} files; send fewer at a time")
        self._files.append(UploadedFile(name[:_LONGEST_NAME] or f"file {len(self._files) + 1}"))
        return self._files[-1]

    def _more(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        if self._values and self._part is self._values[-1] and len(self._part) + end - start > _LONGEST_VALUE:
            raise Refused(422, f"`{ALIGNED}` must be true or false")
        self._part += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _encoded_name(disposition: bytes) -> bytes:
    found = _ENCODED_NAME.search(disposition)
    return unquote_to_bytes(found[1]) if found else b""


def _truth(text: bytes) -> bool:
    try:
        return _TRUTHS[text.decode(errors="replace").strip().lower()]
    except KeyError:
        raise Refused(422, f"`{ALIGNED}` must be true or false") from None
