"""A static web page that recognises expressions in the browser: the page, the model, and its runtime."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

from fer_core.artifacts import replace_folder
from fer_core.digests import cache_folder
from fer_core.errors import ExportError

ONNXRUNTIME_WEB = "1.30.0"
JSFEAT = "0.0.8"
_VERSIONS = {"onnxruntime-web": ONNXRUNTIME_WEB, "jsfeat": JSFEAT}
_PAGE = Path(__file__).parent / "web"
_JSON_FIELDS = ("labels", "accuracy")
"""Keys of the model's metadata; the rest are sentences and figures, read as they are."""
_PATIENCE = 600
"""Seconds for npm to fetch 34 MB."""

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page says the same of itself; as a header it also holds for the worker, and keeps the page out of frames."""


@dataclass(frozen=True)
class _Wanted:
    """A file of an npm package, where the page has it, and what it must be."""

    package: str
    path: str
    place: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.package}/{self.path}"


_WANTED = (
    # The build for WebAssembly alone, and the one wasm file that it loads; WebGPU's would be twice as large.
    _Wanted(
        "onnxruntime-web",
        "dist/ort.wasm.min.mjs",
        "vendor/ort.wasm.min.mjs",
        "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    ),
    _Wanted(
        "onnxruntime-web",
        "dist/ort-wasm-simd-threaded.mjs",
        "vendor/ort-wasm-simd-threaded.mjs",
        "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    ),
    _Wanted(
        "onnxruntime-web",
        "dist/ort-wasm-simd-threaded.wasm",
        "vendor/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
    _Wanted(
        "jsfeat",
        "build/jsfeat-min.js",
        "vendor/jsfeat-min.js",
        "49c74ca5820afd44c76abd1bf5c59e2e90fbef7fe2ca3ffa317935a83cd54b08",
    ),
    _Wanted(
        "jsfeat",
        "cascades/frontalface.js",
        "vendor/frontalface.js",
        "a5500c515fb51b18c8118b2ede1f9dbf47bfd1f0be34c34b08492b1c477d7dee",
    ),
    _Wanted(
        "jsfeat",
        "LICENSE",
        "licences/jsfeat.txt",
        "20c20cb25e05181e3b6c7d68814a3484858422d6fb3745a3a75787256d30cc72",
    ),
)


def write_web(onnx_model: Path, folder: Path, packages: Path | None = None) -> None:
    """Assemble the page around a model; any static server can then serve the folder, and no other host is asked.

    Args:
        onnx_model: `images` (N, H, W, 3) uint8 in, `probabilities` (N, classes) out, with labels in its metadata.
        folder: made new, or in place of an earlier page.
        packages: a folder with onnxruntime-web and jsfeat unpacked, such as a node_modules; without it they are
            fetched by npm, once, into the user's cache.

    Raises:
        ExportError: the model is none of ours, the folder holds something else, or a package is not to be had.
    """
    card = _model_card(onnx_model)
    _refuse_to_replace(folder)
    packages = _cached_packages() if packages is None else packages
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        page = Path(beside) / "page"
        shutil.copytree(_PAGE, page)
        (page / "vendor").mkdir()
        for wanted in _WANTED:
            (page / wanted.place).write_bytes(_checked(packages, wanted))
        shutil.copyfile(onnx_model, page / "model.onnx")
        (page / "model.json").write_text(json.dumps(card, ensure_ascii=False, indent=1), encoding="utf-8")
        replace_folder(page, folder)


def serve_web(folder: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page on this machine's loopback until interrupted.

    Args:
        port: 0 takes any that is free.
        tell: is given the page's address in a sentence, once it answers.

    Raises:
        ExportError: the folder holds no page, or the port is taken, or is none.
    """
    if not (folder / "index.html").is_file():
        raise ExportError(f"{folder}: no page here (no index.html); make one with `fer export … --to web`")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_PageRequest, directory=str(folder)))
    except OverflowError as error:
        raise ExportError(f"port {port} is none; choose one from 0 to 65535 with --port") from error
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        what = "is in use" if error.errno == errno.EADDRINUSE else "may not be opened by this user"
        raise ExportError(f"port {port} {what}; choose another one with --port") from error
    with server:
        tell(f"The page is at http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class _PageRequest(SimpleHTTPRequestHandler):
    """Files alone: no listings, no log, types that browsers insist on."""

    # The system's own table may lack these, and browsers start neither a module nor WebAssembly of another type.
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
        ".onnx": "application/octet-stream",
    }

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Permissions-Policy", "camera=(self), microphone=(), geolocation=()")
        # A page that was exported again is to be seen at the next reload.
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
        try:
            super().copyfile(source, outputfile)
        except (BrokenPipeError, ConnectionResetError):
            # The reader left while the wasm was on its way; that is no error of ours.
            self.close_connection = True


def _model_card(onnx_model: Path) -> dict[str, object]:
    """The model's metadata as the page reads it, since onnxruntime-web does not show it."""
    import onnx  # Serving a page needs none of it.

    try:
        model = onnx.load(onnx_model, load_external_data=False)
    except FileNotFoundError as error:
        raise ExportError(f"{onnx_model}: no such file; make it with `fer export … --to onnx`") from error
    except Exception as error:  # The parser of protocol buffers raises its own on any bytes that are none.
        raise ExportError(f"{onnx_model}: is no ONNX model; make one with `fer export … --to onnx`") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    names = ({tensor.name for tensor in side} for side in (model.graph.input, model.graph.output))
    if [{"images"}, {"probabilities"}] != list(names) or "labels" not in metadata:
        raise ExportError(
            f"{onnx_model}: is not of our making (images in, probabilities out, labels in its metadata); "
            "make one with `fer export … --to onnx`"
        )
    try:
        return {key: json.loads(value) if key in _JSON_FIELDS else value for key, value in metadata.items()}
    except ValueError as error:
        raise ExportError(f"{onnx_model}: labels or accuracy in its metadata are not JSON; export it again") from error


def _refuse_to_replace(folder: Path) -> None:
    """Replace only an earlier page, so that a mistyped folder is never deleted."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: is a file; the page is a folder, choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model.json").is_file():
        raise ExportError(f"{folder}: holds something that is no exported page; choose another folder")


def _checked(packages: Path, wanted: _Wanted) -> bytes:
    """A package's file, byte for byte as the page was tried with."""
    file = packages / str(wanted)
    version = f"{wanted.package} {_VERSIONS[wanted.package]}"
    if not file.is_file():
        raise ExportError(f"{file}: not there; {packages} must hold {version}, unpacked as npm does")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != wanted.sha256:
        raise ExportError(f"{file}: not the file of {version}; delete {packages / wanted.package} and get that version")
    return content


def _cached_packages() -> Path:
    """The folder where the packages are kept for this user; fetched where they are not yet."""
    cache = cache_folder()
    packages = cache / f"web-{ONNXRUNTIME_WEB}-{JSFEAT}"
    if not all((packages / str(wanted)).is_file() for wanted in _WANTED):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".web-", dir=cache) as beside:
            fetched = _fetch(Path(beside))
            for wanted in _WANTED:
                place = packages / str(wanted)
                place.parent.mkdir(parents=True, exist_ok=True)
                (fetched / str(wanted)).replace(place)
    return packages


def _fetch(folder: Path) -> Path:
    """Fetch the packages with npm, which checks them against its registry, and unpack what the page needs."""
    npm = shutil.which("npm")
    instead = f"or give a folder that holds onnxruntime-web {ONNXRUNTIME_WEB} and jsfeat {JSFEAT} unpacked"
    if npm is None:
        raise ExportError(f"npm, which fetches the page's packages once, is not there: install Node.js, {instead}")
    names = [f"{package}@{version}" for package, version in _VERSIONS.items()]
    command = [npm, "pack", *names, "--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"npm did not fetch {' and '.join(names)} in {_PATIENCE} s; try again, {instead}") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and "complete log" not in line]
        reason = said[0].removeprefix("npm error ").strip() if said else f"exit code {done.returncode}"
        raise ExportError(f"npm could not fetch {' and '.join(names)} ({reason}); look at the network, {instead}")
    for package, version in _VERSIONS.items():
        _unpack(folder / f"{package}-{version}.tgz", package, folder)
    return folder


def _unpack(archive: Path, package: str, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        for wanted in _WANTED:
            if wanted.package == package:
                content = packed.extractfile(f"package/{wanted.path}")
                if content is None:
                    raise ExportError(f"{archive.name}: {wanted.path} is no file in it")
                place = folder / str(wanted)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content.read())
