"""RAF-DB's basic emotions: the official layout, or the class folders that EfficientFace's users have."""

from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.dataset import EMOTIONS
from fer_core.datasets.folder import ClassFolder, find_class_folders
from fer_core.datasets.source import Source, image_files, image_stem, read_text, unique_ids
from fer_core.errors import DatasetError
from fer_core.experiment import DatasetSettings
from openface.images import open_image

LABELS_FILE = Path("EmoLabel", "list_patition_label.txt")
"""The misspelling is the dataset's own."""
DISTRIBUTIONS_FILE = Path("EmoLabel", "distribution_basic.txt")
IMAGES = Path("Image", "aligned")

OFFICIAL_ORDER = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""What RAF-DB's labels 1 to 7 mean."""
EFFICIENTFACE_ORDER = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger")
"""What the folders 0 to 6 of EfficientFace's users mean."""

_CLASSES = EMOTIONS[:7]
_PROTOCOL = (
    "RAF-DB basic emotions (Li et al. 2017), aligned images, the official train and test parts; the label is "
    "the crowd's most frequent answer."
)


def read(settings: DatasetSettings, folder: Path) -> Source:
    """RAF-DB's images with labels, and the crowd's distributions where their file is there.

    Raises:
        DatasetError: it is neither layout, or both; a label or a distribution is out of its range.
    """
    basic = folder / "basic" if (folder / "basic").is_dir() else folder
    official, by_folders = (basic / LABELS_FILE).is_file(), (folder / "train").is_dir()
    if official and by_folders:
        raise DatasetError(
            f"{folder}: holds both {LABELS_FILE} and class folders under train; move one of them elsewhere"
        )
    if official:
        return _read_official(basic)
    if by_folders:
        return _read_class_folders(folder)
    raise DatasetError(
        f"{folder}: not RAF-DB; looked for basic/{LABELS_FILE} with basic/{IMAGES}, and for train/0…6 with "
        "test/0…6; give the folder that holds one of them with --data"
    )


def _read_official(basic: Path) -> Source:
    if not (basic / IMAGES).is_dir():
        raise DatasetError(f"{basic / IMAGES}: no such folder; unpack RAF-DB's aligned images there")
    records = _read_labels(basic / LABELS_FILE)
    distributions = None
    if (basic / DISTRIBUTIONS_FILE).is_file():
        distributions = _read_distributions(basic / DISTRIBUTIONS_FILE, records)
    paths = [basic / IMAGES / f"{name}_aligned.jpg" for name in records["id"]]
    return Source(
        name="rafdb",
        labels=_CLASSES,
        records=records,
        distributions=distributions,
        truth="" if distributions is None else "crowd votes",
        protocol=_PROTOCOL,
        read_image=lambda row: open_image(paths[row]),
    )


def _read_labels(path: Path) -> pd.DataFrame:
    """id, label and split of lines such as `train_00001.jpg 5`."""
    rows = []
    seen: set[str] = set()
    for number, line in _lines(path):
        place = f"{path}, line {number}"
        match line.split():
            case [name, label] if name.startswith(("train", "test")) and "/" not in name:
                stem = image_stem(Path(name))
            case _:
                raise DatasetError(f"{place}: {line!r}; it must be such as 'train_00001.jpg 5'")
        if label not in tuple("1234567"):
            raise DatasetError(f"{place}: label {label}; it must be 1 to 7 ({', '.join(OFFICIAL_ORDER)})")
        if stem in seen:
            raise DatasetError(f"{place}: {name} is listed twice; keep one of its lines")
        seen.add(stem)
        split = "train" if name.startswith("train") else "test"
        rows.append((stem, _CLASSES.index(OFFICIAL_ORDER[int(label) - 1]), split))
    if not rows:
        raise DatasetError(f"{path}: lists no images; restore RAF-DB's own file")
    return pd.DataFrame(rows, columns=["id", "label", "split"])


def _read_distributions(path: Path, records: pd.DataFrame) -> np.ndarray:
    """(N, 7) float32 of lines such as `train_00001.jpg 0.1 0 0 0.7 0 0.2 0`, in the official order."""
    shares = {
        image_stem(Path(line.split()[0])): _parse_shares(f"{path}, line {number}", line)
        for number, line in _lines(path)
    }
    missing = [name for name in records["id"] if name not in shares]
    if missing:
        raise DatasetError(
            f"{path}: no distribution for {missing[0]} and {len(missing) - 1} more of {len(records)} images; "
            "complete the file, or move it away to go without distributions"
        )
    official = np.array([shares[name] for name in records["id"]], np.float32)
    distributions = official[:, [OFFICIAL_ORDER.index(name) for name in _CLASSES]]
    _check_order(path, distributions, records["label"].to_numpy())
    return distributions


def _parse_shares(place: str, line: str) -> np.ndarray:
    try:
        shares = np.array(line.split()[1:], np.float64)
    except ValueError:
        shares = np.empty(0)
    if shares.shape != (7,) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise DatasetError(f"{place}: {line!r}; it must be an image's name and 7 shares, none of them negative")
    normalised: np.ndarray = shares / shares.sum()
    return normalised


def _check_order(path: Path, distributions: np.ndarray, labels: np.ndarray) -> None:
    """The label is the crowd's top answer, so columns in another order show."""
    agreeing = float((distributions.argmax(axis=1) == labels).mean())
    if agreeing < 0.5:
        raise DatasetError(
            f"{path}: the top of the distribution is the label for only {agreeing:.0%} of the images; its "
            f"columns must be {', '.join(OFFICIAL_ORDER)}"
        )


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _read_class_folders(folder: Path) -> Source:
    class_folders = find_class_folders(folder)
    emotion_of = _meaning({part.path.name for part in class_folders}, folder)
    # RAF-DB has two parts: without a folder `test`, one called `valid` or `val` is the official test part.
    has_test = any(part.split == "test" for part in class_folders)
    files = [(part, path) for part in class_folders for path in image_files(part.path)]
    paths = [path for _, path in files]
    return Source(
        name="rafdb",
        labels=_CLASSES,
        records=pd.DataFrame(
            {
                "id": unique_ids(
                    [image_stem(path) for path in paths],
                    [path.relative_to(folder).as_posix() for path in paths],
                ),
                "label": [_CLASSES.index(emotion_of[part.path.name]) for part, _ in files],
                "split": [_official_part(part, has_test) for part, _ in files],
            }
        ),
        distributions=None,
        truth="",
        protocol=_PROTOCOL,
        read_image=lambda row: open_image(paths[row]),
    )


def _official_part(part: ClassFolder, has_test: bool) -> str:
    return "test" if part.split == "validation" and not has_test else part.split


def _meaning(names: set[str], folder: Path) -> dict[str, str]:
    """The emotion of each class folder, by whether they are 0 to 6 or 1 to 7."""
    efficientface = {str(number): emotion for number, emotion in enumerate(EFFICIENTFACE_ORDER)}
    official = {str(number): emotion for number, emotion in enumerate(OFFICIAL_ORDER, start=1)}
    both = f"0…6 are {', '.join(EFFICIENTFACE_ORDER)} and 1…7 are {', '.join(OFFICIAL_ORDER)}"
    if not names <= efficientface.keys() | official.keys():
        stray = min(names - efficientface.keys() - official.keys())
        raise DatasetError(
            f"{folder}: class folder {stray} is no RAF-DB label, where {both}; rename it, or set "
            "dataset.source = 'folder'"
        )
    if ("0" in names) == ("7" in names):
        raise DatasetError(
            f"{folder}: class folders {', '.join(sorted(names)) or '(none)'} fit both orders or neither, "
            f"where {both}; have one folder for each of the seven classes"
        )
    return efficientface if "0" in names else official
