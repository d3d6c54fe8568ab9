"""Lists of faces, for tests."""

from pathlib import Path

from helpers.dataset_files import save_image, write_rows

FACES = ("faces/a.png", "faces/b.png", "faces/c.png")
TWELVE = [f"{number}.png" for number in range(12)]
WORDS = ["happy", "sad", "angry"] * 4


def write_list(folder: Path, *lines: str) -> Path:
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_faces(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        save_image(folder / name, 10 * number + 10)


def with_columns(folder: Path, **columns: list[object]) -> Path:
    """A list of twelve images that are there, with further columns."""
    for name in TWELVE:
        save_image(folder / name)
    table = {"path": list[object](TWELVE), "label": list[object](WORDS)} | columns
    write_rows(folder / "labels.csv", tuple(table), *zip(*table.values(), strict=True))
    return folder
