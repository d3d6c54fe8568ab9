"""FER+ for the learning curve, as small as it travels: `python benchmarks/curve_data.py FERPLUS_FOLDER OUT.npz`.

Keeps the images whose label is clear by FER+'s own rule (votes of 1 become 0, one of seven classes has more than half
of the rest), without any that is pixel by pixel another's copy; a thousand of the validation images. Beside each stand
its votes and OpenFace's intensities and landmarks, standardised over the training faces, in 16ths.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fer_core.graph.landmarks import aligned_shapes

CLASSES = 7
VALIDATION = 1000
MIN_CONFIDENCE = 0.5
_STEPS = 16
"""Steps of a standard deviation, in which vectors are kept; beyond eight deviations they are cut off."""


def clear_labels(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FER+'s published rule.

    Args:
        votes: (N, 10).

    Returns:
        (N,) labels, and (N,) whether an image has one among the seven classes.
    """
    kept = np.where(votes <= 1, 0, votes.astype(np.int64))
    top = kept.argmax(axis=1)
    return top, (2 * kept.max(axis=1) > kept.sum(axis=1)) & (top < CLASSES)


def in_steps(columns: np.ndarray, reference_rows: np.ndarray) -> np.ndarray:
    """Standardised over some rows, as int8 in 16ths of a deviation."""
    reference = columns[reference_rows]
    standard = (columns - reference.mean(axis=0)) / reference.std(axis=0)
    return np.clip(np.round(standard * _STEPS), -128, 127).astype(np.int8)


def standardised(steps: np.ndarray) -> np.ndarray:
    """(N, D) float32 of what `in_steps` made."""
    return steps.astype(np.float32) / _STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arrays = np.load(arguments.folder / "ferplus.npz")
    votes, usage = arrays["votes"], arrays["usage"]
    label, clear = clear_labels(votes)
    rows = np.flatnonzero(clear & (arrays["dup_of"] < 0))
    validation = np.random.default_rng(0).permutation(rows[usage[rows] == 1])[:VALIDATION]
    rows = np.sort(np.concatenate((rows[usage[rows] != 1], validation)))

    table = pd.read_parquet(arguments.folder / "openface_aus.parquet")
    landmarks = np.load(arguments.folder / "openface_landmarks.npz")
    assert (landmarks["index"] == table["index"]).all()
    best = table["confidence"].groupby(table["index"]).idxmax()
    best = best[best.index.isin(rows)]
    place = np.searchsorted(rows, best.index.to_numpy())  # position among the images kept, of each annotated one
    sure = table["confidence"].to_numpy()[best] >= MIN_CONFIDENCE
    train = np.flatnonzero(sure & (usage[rows[place]] == 0))
    intensities = [str(name) for name in table if str(name).endswith("_r")]
    vectors = {
        "intensities": in_steps(table[intensities].to_numpy(np.float64)[best], train),
        "landmarks": in_steps(aligned_shapes(landmarks["points_64ths"][best].astype(np.float64) / 64, train), train),
    }
    usable = np.zeros(len(rows), bool)
    usable[place] = sure
    spread = {}
    for name, values in vectors.items():
        spread[name] = np.zeros((len(rows), values.shape[1]), np.int8)
        spread[name][place] = values
    np.savez_compressed(
        arguments.out,
        images_delta2d=arrays["images_delta2d"][rows],
        votes=votes[rows, :CLASSES],
        label=label[rows].astype(np.uint8),
        usage=usage[rows],
        usable=usable,
        **spread,
    )
    print(f"{len(rows)} images, {np.bincount(usage[rows])} by part, {usable.sum()} with usable action units")
    print(f"{arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
