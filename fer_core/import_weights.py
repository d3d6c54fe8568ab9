"""Turn the original authors' published file into a checkpoint of ours, which says its class order and normalisation."""

from pathlib import Path

from fer_core.artifacts import Artifact, fingerprint, make_artifact, signature
from fer_core.dataset import EMOTIONS
from fer_core.errors import CheckpointError
from fer_core.model_card import licence_of, write_cards
from fer_core.models import Architecture
from fer_core.models.architectures import build
from fer_core.models.checkpoint import ModelCard, save_weights
from fer_core.models.published import PUBLISHED_MEAN, PUBLISHED_STD, load_published

_INPUT_SIZE = 224
_LABELS = EMOTIONS[:7]
_PROTOCOL = "As its authors published it; not trained here."


def import_weights(published: Path, architecture: Architecture, out: Path) -> Artifact:
    """A checkpoint that stands where `fer distill` or `fer train-ldg` would have made one.

    Raises:
        CheckpointError: the file is not of the architecture, or its head is not of the seven emotions.
    """
    step = "distill" if architecture == "efficientface" else "train-ldg"
    model = build(architecture, len(_LABELS), seed=0)
    if not load_published(published, model, _LABELS):
        raise CheckpointError(
            f"{published}: its head is not of the seven emotions; "
            f"it can start a training, with --set ldg.weights={published}"
        )
    card = ModelCard(
        architecture,
        _LABELS,
        PUBLISHED_MEAN,
        PUBLISHED_STD,
        _INPUT_SIZE,
        None,
        name=published.name,
        seed=0,
        epochs=0,
        selected_epoch=0,
        trained_on={"source": "rafdb", "protocol": _PROTOCOL, "licence": licence_of("rafdb")},
    )

    def write(folder: Path) -> None:
        for choice in ("selected", "last"):
            save_weights(folder / f"{choice}.safetensors", model)
        write_cards(folder, card)

    mark = fingerprint(step, 1, {"architecture": architecture}, {}, {"published": signature(published)})
    return make_artifact(out, step, mark, {"published": published.name}, {}, write)
