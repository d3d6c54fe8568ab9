"""Annotate images with OpenFace, however it fails: one row for each image, and finished images are never lost."""

import itertools
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from openface.columns import LANDMARKS
from openface.decoding import UnreadableImage, open_image
from openface.errors import EngineAway, OpenFaceError
from openface.machine import usable_cores
from openface.program import Ending, Program
from openface.reading import DETAILS, FIGURES, best_face
from openface.settings import OpenFaceSettings
from openface.views import Images, ladder

JOURNAL = "findings.jsonl"
DIGESTS = "digests.txt"
"""File of a working folder: for each image, what tells it apart and how it is annotated."""
_VIEWS = "views.json"
Views = dict[int, int]
"""The view, counted from 0, in which each image is to be shown."""
Sizes = dict[int, tuple[int, int]]
"""Width and height in pixels of each image that is shown."""
LAST = -1
"""A finding's view after which no other follows."""
_SECONDS_TO_ENGINE = (1, 2, 4, 8, 15, 30, 60)
"""Waits for an engine that is away, each followed by another try."""
_TRIES_ALONE = 2
_KILLS_FORGIVEN = 3
"""Ends from outside at one image that are no fault of its own; where memory runs out, they go on."""
_TRIES_OF_PORTRAIT = 3
"""A container may be killed from outside; a wrong argument fails every time."""
_PORTRAIT = Path(__file__).with_name("portrait.png")


@dataclass(frozen=True)
class Finding:
    """OpenFace's result for an image in one view, counted from 0."""

    number: int
    view: int
    status: str
    """`ok` and the row's figures; `no_face`, so that the next view is tried; `unreadable` or `failed` and why."""
    figures: dict[str, float]
    reason: str = ""
    landmarks: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """(136,) float32 as `LANDMARKS` has them, in the image's own pixels; empty without a face."""

    def line(self) -> str:
        """The row as a line of JSON."""
        return json.dumps(vars(self) | {"landmarks": self.landmarks.tolist()})

    @classmethod
    def from_line(cls, line: bytes) -> "Finding":
        """What `line` wrote, to the bit."""
        fields = json.loads(line)
        return cls(**fields | {"landmarks": np.array(fields["landmarks"], np.float32)})


class Journal:
    """Findings in a file that is only ever added to, so that a process killed at any point has lost none."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._latest, whole = findings_in(path)
        os.truncate(path, whole)

    def add(self, findings: Iterable[Finding]) -> None:
        """Write them down, for good."""
        found = list(findings)
        if not found:
            return
        with self._lock:
            with self._path.open("ab") as file:
                # One by one, since a hundred thousand lines take 400 MB.
                file.writelines(f"{finding.line()}\n".encode() for finding in found)
                file.flush()
                os.fsync(file.fileno())
            self._latest.update((finding.number, finding) for finding in found)

    def latest(self, number: int) -> Finding | None:
        """The finding of the last view that an image was shown in."""
        return self._latest.get(number)


def findings_in(journal: Path) -> tuple[dict[int, Finding], int]:
    """The last finding for each image, and the bytes up to the last whole line.

    A process that was killed may have left half a line, and after one on a full disk another may have written.

    Raises:
        OSError: there is no journal.
    """
    latest, whole = dict[int, Finding](), 0
    with journal.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            with suppress(ValueError):
                finding = Finding.from_line(line)
                latest[finding.number] = finding
    return latest, whole


class Annotation:
    """The annotation of some images in a working folder, where another one of the same images goes on.

    tell: called with how many images are done, and how many there are.
    digests: by which a later annotation knows each image again, as `openface.earlier` does.
    known: findings of earlier annotations, by the image's number; these images are not shown again.
    """

    def __init__(
        self,
        images: Images,
        program: Program,
        settings: OpenFaceSettings,
        folder: Path,
        tell: Callable[[int, int], None],
        digests: Sequence[str] = (),
        known: Mapping[int, Finding] = MappingProxyType({}),
    ) -> None:
        self._images, self._program, self._settings, self._folder = images, program, settings, folder
        self._tell = tell
        self._journal = Journal(folder / JOURNAL)
        self._journal.add(finding for number, finding in known.items() if self._journal.latest(number) is None)
        (folder / DIGESTS).write_text("\n".join(digests), encoding="ascii")
        self._runs = itertools.count()
        self._workers = settings.workers or usable_cores()
        self._slots = threading.Semaphore(self._workers)
        self._stopping = threading.Event()
        self._checked: Future[None]

    def __call__(self) -> pd.DataFrame:
        """One row an image: id, status, confidence, 17 intensities, 18 presences, 68 landmarks in its own pixels.

        Raises:
            OpenFaceError: the program does not annotate even a portrait.
            EngineAway: its engine stays away.
        """
        self._take_leftovers()
        pending = self._pending()
        if pending:
            with ThreadPoolExecutor(1) as beside:
                self._checked = beside.submit(self._check_program)
                while pending:
                    self._show(pending)
                    pending = self._pending()
        return self._table()

    def summary(self) -> dict[str, int]:
        """Images by status; those with a face by the view, counted from 1, in which it was found."""
        found = (self._journal.latest(number) for number in range(len(self._images.ids)))
        return dict(sorted(Counter(_in_words(finding) for finding in found if finding).items()))

    def failures(self) -> list[str]:
        """Id and reason of each image that is unreadable or failed."""
        found = (self._journal.latest(number) for number in range(len(self._images.ids)))
        return [f"{self._images.ids[f.number]}: {f.reason}" for f in found if f and f.reason]

    def _pending(self) -> Views:
        """Images that are not done, and the view in which each is to be shown next."""
        following = ((number, self._next_view(number)) for number in range(len(self._images.ids)))
        return {number: view for number, view in following if view is not None}

    def _next_view(self, number: int) -> int | None:
        finding = self._journal.latest(number)
        if finding is None:
            return 0
        return finding.view + 1 if finding.status == "no_face" and finding.view != LAST else None

    def _show(self, pending: Views) -> None:
        """Show every pending image in its next view, in batches, several at a time, with one more being drawn."""
        batches = [
            batch
            for view in sorted(set(pending.values()))
            for batch in _batches([n for n in pending if pending[n] == view], self._settings.batch, self._workers)
        ]
        with ThreadPoolExecutor(self._workers + 1) as pool:
            try:
                for done in as_completed([pool.submit(self._settle, batch, pending) for batch in batches]):
                    done.result()
                    self._tell(len(self._images.ids) - len(self._pending()), len(self._images.ids))
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._program.stop()
                raise

    def _settle(self, batch: Sequence[int], views: Views) -> None:
        """Show a batch until there is a finding for each image; an image that ends the program is found by halving."""
        suspects, rest = list(batch), list[int]()
        tries, kills = Counter[int](), Counter[int]()
        while suspects:
            ending = self._attempt(suspects, views)
            left = [number for number in suspects if self._next_view(number) == views[number]]
            if self._stopping.is_set():
                raise OpenFaceError("stopped")
            # Images are shown in order, so whatever ended the run did it at the first that is left.
            if left and ending.from_outside and kills[left[0]] < _KILLS_FORGIVEN:
                kills[left[0]] += 1
                suspects = left
                continue
            tries.update(left[:1])
            if not left:
                suspects, rest = rest, []
            elif len(left) > 1:
                half = (len(left) + 1) // 2
                suspects, rest = left[:half], left[half:] + rest
            elif tries[left[0]] < _TRIES_ALONE:
                suspects = left
            else:
                self._journal.add([Finding(left[0], LAST, "failed", {}, ending.told())])
                suspects, rest = rest, []

    def _attempt(self, numbers: Sequence[int], views: Views) -> Ending:
        """One run of the program; what it finished is written down, and how it ended is returned."""
        folder = self._folder / f"run-{os.getpid()}-{next(self._runs):06d}"
        pictures, out = _fresh(folder)
        left = self._draw(numbers, views, pictures)
        # The first batches are drawn meanwhile.
        self._checked.result()
        ending = self._run(pictures, out, left, views) if left else Ending("")
        shutil.rmtree(folder)
        return ending

    def _draw(self, numbers: Sequence[int], views: Views, pictures: Path) -> list[int]:
        """Write the images' views as numbered PNGs; those that cannot be, or have no such view, are written down."""
        drawn, sizes, found = [], Sizes(), []
        for number in numbers:
            if self._stopping.is_set():
                raise OpenFaceError("stopped")
            try:
                image = open_image(self._images.read(number))
            except UnreadableImage as unreadable:
                found.append(Finding(number, LAST, "unreadable", {}, str(unreadable)))
                continue
            rungs = ladder(*image.size)
            if views[number] < len(rungs):
                rungs[views[number]].of(image).save(pictures / f"{number:08d}.png", compress_level=1)
                drawn.append(number)
                sizes[number] = image.size
            else:
                found.append(Finding(number, LAST, "no_face", {}))
        (pictures / _VIEWS).write_text(json.dumps({n: (views[n], *sizes[n]) for n in drawn}), encoding="utf-8")
        self._journal.add(found)
        return drawn

    def _run(self, pictures: Path, out: Path, left: list[int], views: Views) -> Ending:
        """The program on the pictures, again and again where its engine goes away meanwhile."""
        for wait in (*_SECONDS_TO_ENGINE, None):
            seconds = self._settings.seconds_to_start + self._settings.seconds_per_image * len(left)
            try:
                with self._slots:
                    ending = self._program(pictures, out, seconds)
                self._take(out, left, views, ended_well=not ending.failed)
                # After a good end, the reason of images that are left without a row.
                return ending if ending.failed else replace(ending, failed=_without_csv(out))
            except EngineAway as away:
                if wait is None or self._stopping.wait(wait):
                    raise EngineAway(f"{away}; see that it runs, and run again") from away
                for number in self._take(out, left, views, ended_well=False):
                    (pictures / f"{number:08d}.png").unlink()
                    left.remove(number)
            if views and not left:
                return Ending("")
        raise AssertionError

    def _take(self, out: Path, shown: Sequence[int], views: Views, ended_well: bool) -> list[int]:
        """Write down what the program finished of the images shown to it, and tell which they are.

        An image without a CSV had no face in it, unless it is the one at which the program ended badly.
        """
        touched = [n for n in shown if any((out / f"{n:08d}{end}").exists() for end in (".csv", DETAILS))]
        sizes, found = _shown(out.with_name("in"))[1], []
        for number in touched:
            csv = out / f"{number:08d}.csv"
            if (face := best_face(csv)) is not None:
                landmarks = _in_image(face.landmarks, views[number], *sizes[number])
                found.append(Finding(number, views[number], "ok", face.figures, landmarks=landmarks))
            elif not csv.exists() and (ended_well or number != touched[-1]):
                found.append(Finding(number, views[number], "no_face", {}))
        self._journal.add(found)
        return [finding.number for finding in found]

    def _check_program(self) -> None:
        """See that a portrait is annotated, so that no wrong argument is taken for a fault of every image."""
        for _ in range(_TRIES_OF_PORTRAIT):
            pictures, out = _fresh(self._folder / "portrait")
            shutil.copyfile(_PORTRAIT, pictures / "portrait.png")
            ending = self._run(pictures, out, [], {})
            found = best_face(out / "portrait.csv")
            if found is not None:
                break
        shutil.rmtree(self._folder / "portrait")
        if found is None:
            raise OpenFaceError(
                f"OpenFace does not annotate even a portrait ({ending.told()}); see openface.arguments, and that its "
                "models are there"
            )

    def _take_leftovers(self) -> None:
        """Results that a killed annotation's last runs had finished, except the very last image of each."""
        for folder in sorted(self._folder.glob("run-*")):
            views, _ = _shown(folder / "in")
            shown = [number for number in views if self._next_view(number) == views[number]]
            self._take(folder / "out", shown, views, ended_well=False)
            shutil.rmtree(folder, ignore_errors=True)

    def _table(self) -> pd.DataFrame:
        found = [self._journal.latest(number) for number in range(len(self._images.ids))]
        assert all(finding is not None for finding in found)
        rows = [[f.figures.get(name, np.nan) for name in FIGURES] for f in found if f]
        table = pd.DataFrame(np.array(rows, np.float32).reshape(-1, len(FIGURES)), columns=list(FIGURES))
        # None where OpenFace's image is from before it was asked for them.
        if any(f.landmarks.size for f in found if f):
            nothing = np.full(len(LANDMARKS), np.nan, np.float32)
            landmarks = np.stack([f.landmarks if f.landmarks.size else nothing for f in found if f])
            table = pd.concat([table, pd.DataFrame(landmarks, columns=list(LANDMARKS))], axis=1)
        table.insert(0, "status", [f.status for f in found if f])
        table.insert(0, "id", list(self._images.ids))
        return table


def _in_words(finding: Finding) -> str:
    if finding.status != "ok":
        return finding.status
    return "ok before" if finding.view == LAST else f"ok in view {finding.view + 1}"


def _shown(pictures: Path) -> tuple[Views, Sizes]:
    """Which images a run's pictures show, as `_draw` wrote it down; none where it did not come so far."""
    try:
        shown = json.loads((pictures / _VIEWS).read_text(encoding="utf-8")).items()
        return {int(n): view for n, (view, _, _) in shown}, {int(n): (w, h) for n, (_, w, h) in shown}
    except (OSError, ValueError):
        return {}, {}


def _in_image(landmarks: np.ndarray | None, view: int, width: int, height: int) -> np.ndarray:
    """(136,) float32 of what OpenFace found in a view, in the image's own pixels; empty where one is no number."""
    if landmarks is None or not np.isfinite(landmarks).all():
        return np.empty(0, np.float32)
    return ladder(width, height)[view].back(landmarks.reshape(2, -1), width, height).ravel()


def _fresh(folder: Path) -> tuple[Path, Path]:
    """A run's folders for pictures and for what the program writes; the program is another user."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in (folder / "in", folder / "out"):
        part.mkdir(parents=True)
        part.chmod(0o755)
    return folder / "in", folder / "out"


def _without_csv(out: Path) -> str:
    """Reason for images without output after a run that ended well."""
    empty = any(csv.lstat().st_size == 0 for csv in out.glob("*.csv"))
    return "wrote an empty CSV; is the disk full?" if empty else "ended well, and wrote no whole CSV"


def _batches(numbers: Sequence[int], size: int, workers: int) -> list[Sequence[int]]:
    """Parts of at most `size`, and of about equal length, so that no worker sits idle at the end."""
    if not numbers:
        return []
    count = -(-len(numbers) // size)
    if len(numbers) >= workers:
        count = -(-count // workers) * workers
    return [part.tolist() for part in np.array_split(np.array(numbers), count) if len(part)]
