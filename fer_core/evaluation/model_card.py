"""The model card of every checkpoint: training data, quality, and what the model is not for.

References:
    Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import nn

from fer_core import __version__
from fer_core.artifacts import replace_file
from fer_core.data.dataset import Dataset
from fer_core.data.views import Views
from fer_core.evaluation.calibration import probabilities, supported_temperature
from fer_core.evaluation.judge import judge
from fer_core.evaluation.metrics import CLIPPING
from fer_core.models.checkpoint import ModelCard, save_card
from fer_core.models.facts import LIMITS
from fer_core.models.logits import predict_logits

MODEL_CARD = "MODEL_CARD.md"
_ACTION_UNITS = (
    "; its action units under the terms of what measured them, which of OpenFace are academic, non-commercial use"
)
_LICENCES: Mapping[str, str] = {
    "sample": "drawn faces, of no restriction",
    "ferplus": "FER+ votes under the MIT licence, FER2013's photographs under its contest's terms for research",
    "fer2013": "FER2013's photographs and labels, under its contest's terms for research",
    "rafdb": "RAF-DB, for non-commercial research",
    "affectnet": "AffectNet, for non-commercial research",
    "caers": "CAER-S, for non-commercial research",
    "folder": "the licence of the images in the folder",
    "csv": "the licence of the images in the list",
}
_RESAMPLES = 1000
_TEMPLATES = Path(__file__).parent / "templates"


def licence_of(source: str, *, measured: bool = False) -> str:
    """Terms of use that a model inherits from its training data.

    Args:
        measured: action units were, by OpenFace or another program.
    """
    return _LICENCES.get(source, "the licence of its training data") + (_ACTION_UNITS if measured else "")


def trained_on(
    dataset: Dataset, rows: np.ndarray, au_coverage: Mapping[str, Mapping[str, int]] | None
) -> dict[str, Any]:
    """What a card says of the data.

    Args:
        rows: row numbers of the images that were learnt from.
        au_coverage: images by split and by what became of their action units, where any were used.
    """
    card, unlabelled = dataset.card, int(np.isin(dataset.rows("unlabelled"), rows).sum())
    return {
        "source": card.source,
        "protocol": card.protocol,
        "truth": card.truth,
        "images": {split: len(dataset.rows(split)) for split in ("train", "validation", "test")}
        | ({"unlabelled": unlabelled} if unlabelled else {}),
        "au_coverage": au_coverage,
        "licence": licence_of(card.source, measured=au_coverage is not None and card.source != "sample"),
        "code": f"fer {__version__}",
        "commit": _commit(),
    }


def _commit() -> str:
    """The code's commit, with `-dirty` where files differ from it; nothing where the code is in no repository."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe(card: ModelCard, model: nn.Module, views: Views, dataset: Dataset) -> ModelCard:
    """The card with the temperature that validation supports, and the figures of validation and test.

    Args:
        model: with the weights of the selected epoch.
    """
    # As `fer evaluate` judges, whatever the precision of the training was.
    views = replace(views, dtype=torch.float32)
    validation, test = dataset.rows("validation"), dataset.rows("test")
    of_validation, of_test = (predict_logits(model, views, rows) for rows in (validation, test))
    fitted = supported_temperature(of_validation, dataset.labels()[validation])
    temperature = fitted.value
    figures = {
        "validation": judge(dataset, validation, probabilities(of_validation), _RESAMPLES),
        "test": judge(dataset, test, probabilities(of_test), _RESAMPLES),
        "calibrated": judge(dataset, test, probabilities(of_test, temperature), _RESAMPLES),
        "temperature": asdict(fitted),
    }
    return replace(card, temperature=temperature, figures=figures)


def judged_as(card: ModelCard, dataset: Dataset, predicted: np.ndarray, *, elsewhere: bool) -> ModelCard:
    """The card with an export's own figures on the test images in place of the checkpoint's.

    Args:
        predicted: (N, classes) probabilities that the export gives, at the card's temperature.
        elsewhere: they are other test images than the card tells of, which `judged_on` then says.
    """
    rows = dataset.rows("test")
    as_trained = probabilities(np.log(np.maximum(predicted, np.finfo(np.float32).tiny)), 1 / card.temperature)
    figures = {
        "test": judge(dataset, rows, as_trained, _RESAMPLES),
        "calibrated": judge(dataset, rows, predicted, _RESAMPLES),
    }
    told = {name: getattr(dataset.card, name) for name in ("source", "protocol", "truth")}
    return replace(card, figures=card.figures | figures | ({"judged_on": told} if elsewhere else {}))


def write_cards(folder: Path, card: ModelCard) -> None:
    """Write `model.json` for programs, and `MODEL_CARD.md` for people."""
    save_card(folder, card)
    replace_file(folder / MODEL_CARD, markdown(card).encode())


def markdown(card: ModelCard, precision: str = "float32", file: str = "") -> str:
    """The card as a page of Markdown; of an export in another precision, whose figures the card then has.

    Args:
        file: an export's name, since others may lie beside it.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    recipe = {
        name.rstrip("_"): _as_it_is(value) if isinstance(value, str) else value
        for name, value in card.recipe.items()
        if value != ""
    }
    means, deviations = (", ".join(f"{value:.4f}" for value in values) for values in (card.mean, card.std))
    return environment.get_template("model_card.md.j2").render(
        asdict(card)
        | {"labels": [_as_it_is(label) for label in card.labels]}
        | {"recipe": recipe, "limits": LIMITS, "precision": precision, "means": means, "deviations": deviations}
        | {"clipping": CLIPPING, "file": file}
    )


def _as_it_is(text: str) -> str:
    """Markdown that shows a text as it is, in a table's cell too: a class may be called anything."""
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", " ".join(text.split()))
