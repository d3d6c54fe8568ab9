"""A small checkpoint beside the dataset that it was trained on, as a run leaves them."""

from dataclasses import dataclass, replace
from pathlib import Path

from conftest import striped_dataset
from test_training import RECIPE, trained

from fer_core.artifacts import make_artifact
from fer_core.data.dataset import EMOTIONS, open_dataset
from fer_core.train.loop import RESUME


@dataclass(frozen=True)
class DeployedModel:
    """The folders of a checkpoint and of its prepared dataset."""

    checkpoint: Path
    dataset: Path


def deployed_model(folder: Path) -> DeployedModel:
    """Trained for a few epochs, so that its probabilities differ from face to face."""
    prepared = make_artifact(folder / "prepare" / "d", "prepare", "d", {}, {}, lambda out: _dataset(out))
    dataset = open_dataset(prepared.path)

    def train(out: Path) -> None:
        made = trained(dataset, folder / "model", replace(RECIPE, epochs=12, schedule="one-cycle", learning_rate=0.05))
        (made / RESUME).unlink()
        for file in made.iterdir():
            file.rename(out / file.name)

    model = make_artifact(folder / "distill" / "m", "distill", "m", {}, {"prepare-0": prepared}, train)
    return DeployedModel(model.path, prepared.path)


def _dataset(out: Path) -> None:
    striped_dataset(out, count=252, labels=EMOTIONS[:7])
