"""One picture looks the same to every part of the program, whichever way it comes in.

Path, bytes, open file, Pillow image, array, dataset, HTTP service, ONNX, TorchScript and a real browser, over every
orientation, colour, range and container, none of them square.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.browsing import CHROMIUM, DRIVER, NO_BROWSER, browser
from helpers.deployed_model import DeployedModel
from helpers.service import Service, service
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from test_decoding import ORIENTATION, STORED
from test_prepare import SIZE, store
from test_web import choose, says, served, shares, squares, visit

from fer_core.artifacts import MANIFEST, make_artifact, open_artifact
from fer_core.data.crops import cut_out, middle_square
from fer_core.data.dataset import open_dataset
from fer_core.data.views import Views
from fer_core.errors import ExportError
from fer_core.evaluation.calibration import probabilities
from fer_core.export.export import _run_torchscript, export
from fer_core.export.onnx_model import OnnxModel
from fer_core.export.web_page import write_web
from fer_core.models.checkpoint import load_checkpoint, read_card, save_card
from fer_core.models.logits import predict_logits
from fer_core.predict import Predictor
from fer_core.progress import JsonLines
from openface.decoding import Picture, UnreadableImage, rgb_pixels

HEIGHT, WIDTH = 72, 101
TEMPERATURE = 0.5


@dataclass(frozen=True)
class Brought:
    """A picture as somebody brings it: its bytes, what is to be seen in it, and how closely."""

    name: str
    content: bytes
    seen: np.ndarray
    atol: float = 0.0
    lossy: bool = False
    """Its bytes change the picture a little, as a JPEG's or an ink model's do."""
    browser: str = ""
    """What the page says instead of reading it."""

    def __str__(self) -> str:
        return self.name


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **how)  # type: ignore[arg-type]
    return out.getvalue()


def scene() -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8: stripes and spots of all colours, different in every corner, smooth as a photograph."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colours = [128 + 100 * np.sin(x / 9), 128 + 90 * np.cos((x + 2 * y) / 15), 40 + 1.8 * y + 60 * (x > 60)]
    return np.clip(np.dstack(colours), 0, 255).astype(np.uint8)


def brought() -> Iterator[Brought]:
    colour = scene()
    image = Image.fromarray(colour)
    grey = np.asarray(image.convert("L"))
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    exif = Image.Exif()
    for orientation, turn in STORED.items():
        exif[ORIENTATION] = orientation
        stored = Image.fromarray(np.ascontiguousarray(turn(colour)))
        yield Brought(f"{orientation}.png", saved(stored, "PNG", exif=exif), colour)
        jpeg = saved(stored, "JPEG", exif=exif, quality=98, subsampling=0)
        yield Brought(f"{orientation}.jpg", jpeg, colour, lossy=True)
        yield Brought(f"{orientation}.webp", saved(stored, "WEBP", exif=exif, lossless=True), colour)
    # A copy, since Pillow takes the orientation out of what it is given.
    yield Brought("turned.avif", saved(stored, "AVIF", exif=exif.tobytes(), quality=95), colour, lossy=True)
    yield Brought("bitmap.bmp", saved(image, "BMP"), colour)
    unread = "no picture that this browser can read"
    yield Brought("turned.tif", saved(stored, "TIFF", exif=exif), colour, browser=unread)
    yield Brought("grey.png", saved(Image.fromarray(grey), "PNG"), as_rgb)
    yield Brought("bits.png", saved(Image.fromarray(grey > 127), "PNG"), (as_rgb > 127) * np.uint8(255))
    palette = image.quantize(64)
    yield Brought("palette.gif", saved(palette, "GIF"), np.asarray(palette.convert("RGB")))
    alpha = np.where(np.arange(WIDTH) < 60, 255, 0).astype(np.uint8) * np.ones((HEIGHT, 1), np.uint8)
    seen = np.where(alpha[..., None] > 0, colour, 255).astype(np.uint8)
    yield Brought("cut out.png", saved(Image.fromarray(np.dstack([colour, alpha])), "PNG"), seen)
    glass = np.dstack([colour, np.full((HEIGHT, WIDTH), 128, np.uint8)])
    seen = np.round(colour * (128 / 255) + 255 * (127 / 255)).astype(np.uint8)
    yield Brought("glass.png", saved(Image.fromarray(glass), "PNG"), seen, 0.01)
    deep = grey.astype(np.uint16)
    yield Brought("16 bits.png", saved(Image.fromarray(deep * 257), "PNG"), as_rgb)
    dark = "shows black; save it in 8 bits"
    yield Brought("12 of 16 bits.png", saved(Image.fromarray(deep << 4 | deep >> 4), "PNG"), as_rgb, browser=dark)
    hot, told = deep << 4 | deep >> 4, as_rgb.copy()
    hot[:2, 0], told[:2, 0] = 2**16 - 1, 255
    yield Brought("12 of 16 bits and two hot pixels.png", saved(Image.fromarray(hot), "PNG"), told, browser=dark)
    unused = saved(Image.fromarray(np.dstack([colour, np.zeros_like(grey)])), "PNG")
    yield Brought("unused alpha.png", unused, colour, browser="a browser forgets such colours")
    yield Brought("ink.jpg", saved(image.convert("CMYK"), "JPEG", quality=98, subsampling=0), colour, lossy=True)


PICTURES = list(brought())
every_picture = pytest.mark.parametrize("picture", PICTURES, ids=str)


@pytest.fixture(scope="module")
def model(model: DeployedModel, tmp_path_factory: pytest.TempPathFactory) -> DeployedModel:
    """The checkpoint at a temperature at which no probability is all but 0 or 1, whatever processor trained it."""

    def soften(out: Path) -> None:
        for file in model.checkpoint.iterdir():
            if file.name != MANIFEST:
                shutil.copy(file, out)
        save_card(out, replace(read_card(model.checkpoint), temperature=TEMPERATURE))

    folder, inputs = tmp_path_factory.mktemp("softened"), {"prepare-0": open_artifact(model.dataset)}
    return DeployedModel(make_artifact(folder / "m", "distill", "softened", {}, inputs, soften).path, model.dataset)


@pytest.fixture(scope="module")
def exported(model: DeployedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model.checkpoint, "onnx", tmp_path_factory.mktemp("export"), None, JsonLines())


@pytest.fixture(scope="module")
def read(exported: Path) -> Callable[[Picture], np.ndarray]:
    """What `Predictor` reads in a picture that is a face already."""
    predictor = Predictor(exported, detector=None)

    def probabilities(picture: Picture) -> np.ndarray:
        (((face,),)) = predictor([picture])
        return np.array(list(face.probabilities.values()))

    return probabilities


@pytest.fixture(scope="module")
def tolerated(read: Callable[[Picture], np.ndarray]) -> Callable[[Brought], float]:
    """How far a probability may be: half as far as of the most alike wrong picture, .05 at most, if it is lossy."""
    wrong = (np.rot90(scene()), scene()[::-1], scene()[:, ::-1], scene() // 16, 255 - scene(), scene()[:, :72])
    upright = read(scene())
    nearest = min(np.abs(read(np.ascontiguousarray(picture)) - upright).max() for picture in wrong)
    return lambda picture: min(nearest / 2, 0.05) if picture.lossy else picture.atol


def test_the_pictures_tell_a_turn_or_a_crop_from_none(tolerated: Callable[[Brought], float]) -> None:
    # A JPEG moves a probability by .003. How far a wrong picture does, the network's last bits decide: .04 and more.
    assert tolerated(Brought("lossy", b"", scene(), lossy=True)) > 0.005


@pytest.mark.filterwarnings("ignore:.*(bits are used|alpha that is not used)")
@every_picture
def test_path_bytes_file_pillow_and_array_are_one_picture(
    picture: Brought, read: Callable[[Picture], np.ndarray], tolerated: Callable[[Brought], float], tmp_path: Path
) -> None:
    path = tmp_path / picture.name
    path.write_bytes(picture.content)
    expected = read(picture.seen)
    with path.open("rb") as file, Image.open(path) as image, Image.open(path) as loaded:
        loaded.load()
        ways: list[Picture] = [path, str(path), picture.content, bytearray(picture.content), file, image, loaded]
        found = [read(way) for way in ways]
    for other in found:
        np.testing.assert_array_equal(other, found[0])
    np.testing.assert_allclose(found[0], expected, atol=tolerated(picture), rtol=0)


@every_picture
def test_a_dataset_stores_the_same_picture(picture: Brought, tmp_path: Path) -> None:
    stored = store(tmp_path, lambda path: path.write_bytes(picture.content), picture.name.rpartition(".")[2])
    seen = rgb_pixels(picture.content)
    np.testing.assert_array_equal(stored, cut_out(seen, middle_square(seen), SIZE, grey=False))
    assert np.abs(seen.astype(int) - picture.seen).max() <= (40 if picture.lossy or picture.atol else 0)


def test_onnx_and_torchscript_see_the_same_crop(
    read: Callable[[Picture], np.ndarray], model: DeployedModel, exported: Path, tmp_path: Path
) -> None:
    faces = np.stack([scene(), scene()[:, ::-1]])
    expected = [read(face) for face in faces]
    script = _run_torchscript(export(model.checkpoint, "torchscript", tmp_path, None, JsonLines()))
    for found in (OnnxModel(exported)(faces), script(faces)):
        # Pillow rounds to bytes on the way, the network does not.
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_stored_image_is_judged_as_it_is_predicted(
    read: Callable[[Picture], np.ndarray], model: DeployedModel
) -> None:
    network, card = load_checkpoint(model.checkpoint)
    dataset = open_dataset(model.dataset)
    views = Views(dataset.images, card.mean, card.std, card.input_size, torch.device("cpu"))
    judged = probabilities(predict_logits(network, views, np.arange(4)), card.temperature)
    for row in range(4):
        np.testing.assert_allclose(read(dataset.images[row]), judged[row], atol=1e-5)


@pytest.fixture(scope="module")
def running(exported: Path) -> Iterator[Service]:
    with service(exported) as started:
        yield started


def test_the_service_answers_what_the_predictor_reads(running: Service, read: Callable[[Picture], np.ndarray]) -> None:
    files = []
    for first in range(0, len(PICTURES), 16):
        sent = [(picture.name, picture.content) for picture in PICTURES[first : first + 16]]
        answer = running.predict(*sent, params={"aligned": "true"})
        assert answer.status_code == 200, answer.text
        files += answer.json()["files"]
    for picture, file in zip(PICTURES, files, strict=True):
        (face,) = file["faces"]
        expected = read(rgb_pixels(picture.content))
        np.testing.assert_allclose(list(face["probabilities"].values()), expected, atol=2e-6, err_msg=picture.name)
        assert (file["width"], file["height"]) == (WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def visitor(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """A browser on the page of the exported model, told that pictures are faces already."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(NO_BROWSER)
    folder = tmp_path_factory.mktemp("page")
    try:
        write_web(exported, folder / "page")
    except ExportError as error:
        pytest.skip(str(error))
    with served(folder / "page") as address, browser(folder / "profile") as driver:
        visit(driver, address)
        driver.find_element(By.ID, "aligned").click()
        yield driver


def test_the_browser_reads_what_the_predictor_reads(
    visitor: WebDriver,
    exported: Path,
    tmp_path: Path,
    read: Callable[[Picture], np.ndarray],
    tolerated: Callable[[Brought], float],
) -> None:
    for picture in PICTURES:
        (tmp_path / picture.name).write_bytes(picture.content)
        choose(visitor, tmp_path / picture.name)
        if picture.browser:
            says(visitor, picture.browser)
            assert shares(visitor) is None
            continue
        says(visitor, "Taken as a face.")
        box = middle_square(picture.seen)
        assert squares(visitor) == [(box.left, box.top, box.side)]
        found = shares(visitor)
        assert found is not None
        square = picture.seen[box.top : box.top + box.side, box.left : box.left + box.side]
        (same,) = OnnxModel(exported)(np.ascontiguousarray(square)[None])
        np.testing.assert_allclose(found, same, atol=max(tolerated(picture), 2e-4), err_msg=picture.name)
        np.testing.assert_allclose(found, read(picture.seen), atol=max(tolerated(picture), 0.02), err_msg=picture.name)
        choose(visitor, Path(__file__))  # No picture, so that the next answer is its own.
        says(visitor, "is no picture")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_that_ends_in_zeros_is_refused_everywhere(visitor: WebDriver, tmp_path: Path, kind: str) -> None:
    content = saved(Image.fromarray(scene()), kind)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    choose(visitor, path)
    says(visitor, "ends in zeros, and its end is missing")
    with pytest.raises(UnreadableImage, match="its end is missing, with zeros in its place"):
        rgb_pixels(path)
    # What phones append stands behind the end.
    path.write_bytes(content + bytes(64))
    choose(visitor, path)
    says(visitor, "Taken as a face.")
    assert rgb_pixels(path).shape == (HEIGHT, WIDTH, 3)
