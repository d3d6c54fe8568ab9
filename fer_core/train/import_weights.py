"""Turn the original authors' published file into a checkpoint of ours, which says its class order and normalisation."""

import shlex
from pathlib import Path

from fer_core.artifacts import Artifact, fingerprint, make_artifact
from fer_core.contents import signature
from fer_core.data.dataset import EMOTIONS
from fer_core.errors import CheckpointError
from fer_core.evaluation.model_card import licence_of, write_cards
from fer_core.models import Architecture
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, save_weights
from fer_core.models.published import PUBLISHED, TrainedOn, load_published, read_published

_INPUT_SIZE = 224
_PROTOCOL = "As its authors published it for {dataset}; not trained here."
_VERSION = 1


def import_weights(
    published: Path, architecture: Architecture, out: Path, trained_on: TrainedOn | None = None
) -> Artifact:
    """A checkpoint that stands where `fer distill` or `fer train-ldg` would have made one.

    Args:
        trained_on: the dataset that the file was published for, which decides normalisation and classes. Without it,
            RAF-DB, unless the file's name or the size of its head says otherwise.

    Raises:
        CheckpointError: the file is not of the architecture, its head is not of the dataset's classes, or its name
            says that it is of another dataset than RAF-DB while `trained_on` says nothing.
    """
    step = "distill" if architecture == "efficientface" else "train-ldg"
    weights, classes = read_published(published)
    head = len(weights["fc.bias"]) if "fc.bias" in weights else 0
    named = trained_on or _presumed(published, head)
    dataset = PUBLISHED[named]
    labels = EMOTIONS[: dataset.classes]
    model = build(architecture, dataset.classes, seed=0)
    if not load_published(published, model, labels):
        raise CheckpointError(_wrong_head(published, architecture, head, classes, named))
    card = ModelCard(
        architecture,
        labels,
        dataset.mean,
        dataset.std,
        _INPUT_SIZE,
        None,
        name=published.name,
        seed=0,
        epochs=0,
        selected_epoch=0,
        trained_on={
            "source": dataset.source,
            "protocol": _PROTOCOL.format(dataset=dataset.title),
            "licence": licence_of(dataset.source),
        },
    )

    def write(folder: Path) -> None:
        for choice in ("selected", "last"):
            save_weights(folder / f"{choice}.safetensors", model)
        write_cards(folder, card)

    settings: dict[str, str] = {"architecture": architecture, "trained_on": named}
    if classes:  # What was made of a file that names none still counts.
        settings["classes"] = " ".join(classes)
    mark = fingerprint(step, _VERSION, settings, {}, {"published": signature(published)})
    return make_artifact(out, step, mark, {"published": published.name} | settings, {}, write)


def presumption(made: Artifact) -> str:
    """Say which dataset was assumed for a file whose dataset was not given."""
    dataset = PUBLISHED[made.settings()["trained_on"]]
    mean = ", ".join(f"{value:.3f}" for value in dataset.mean)
    return f"taken as trained on {dataset.title}: {dataset.classes} classes, mean {mean}; --trained-on names another"


def _presumed(published: Path, head: int) -> TrainedOn:
    """Assume RAF-DB, unless the file's name or head says otherwise."""
    if head == PUBLISHED["affectnet8"].classes:
        return "affectnet8"
    name = "".join(letter for letter in published.name.lower() if letter.isalnum())
    for spelling, meant in (("affectnet8", "affectnet8"), ("affectnet", "affectnet7"), ("caer", "caers")):
        if spelling in name:
            raise CheckpointError(
                f"{published}: named after another dataset than RAF-DB, whose normalisation it would be given; "
                f"say --trained-on {meant}, or --trained-on rafdb"
            )
    return "rafdb"


def _wrong_head(
    published: Path, architecture: Architecture, head: int, classes: tuple[str, ...], named: TrainedOn
) -> str:
    """Explain why a file is no emotion model, and give settings that can use it."""
    wanted = PUBLISHED[named].classes
    if not classes and head in {dataset.classes for dataset in PUBLISHED.values()}:
        fitting = ", ".join(name for name, dataset in PUBLISHED.items() if dataset.classes == head)
        return (
            f"{published}: its head has {head} classes, {PUBLISHED[named].title} {wanted}; say --trained-on {fitting}"
        )
    what = f"its head is of {head:,} classes, not of {wanted} emotions" if head else "it has no head"
    if classes:
        what = f"its classes are {', '.join(classes)}, not the {wanted} emotions of {PUBLISHED[named].title}"
    if architecture == "efficientface":
        settings = (f"sll.weights={published}", f"distill.weights={published}")
    else:
        settings = (f"ldg.architecture={architecture}", f"ldg.weights={published}")
    return f"{published}: {what}; it can start a training, with --set {' --set '.join(map(shlex.quote, settings))}"
