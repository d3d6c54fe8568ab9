"""Drawn faces, whose emotion distributions and action units are known exactly."""

import pandas as pd
from PIL import Image

from fer_core.data.dataset import EMOTIONS
from fer_core.data.drawn.faces import draw_faces
from fer_core.data.readers.source import Source
from fer_core.experiment import DatasetSettings
from fer_core.progress import Reporter


def read(settings: DatasetSettings, report: Reporter | None) -> Source:
    """Draw `settings.count` faces from `settings.seed`, with AU rows as OpenFace would write them."""
    faces = draw_faces(settings.count, settings.image_size, settings.seed, report)
    return Source(
        name="sample",
        labels=EMOTIONS[:7],
        records=pd.DataFrame(
            {"id": [f"drawn{row:06d}" for row in range(settings.count)], "label": faces.labels, "split": ""}
        ),
        distributions=faces.distributions,
        truth="true distribution",
        protocol=(
            f"{settings.count} drawn faces, seed {settings.seed}; each shows a mixture of the "
            "seven emotions' action-unit prototypes, its true distribution; its label is drawn from it."
        ),
        read_image=lambda row: Image.fromarray(faces.images[row]),
        au_rows=faces.au_rows,
    )
