"""How far the linear model of action units gets by itself, without a network: the control for what it teaches.

    PYTHONPATH=. python benchmarks/curve_data.py ~/ferplus ferplus_slim.npz
    PYTHONPATH=. python benchmarks/teacher_alone.py ferplus_slim.npz

The labelled faces of each seed are those of the learning curve. It is judged on the test faces with usable action
units, and on all of them, where the others get the commonest label. Writes results/learning_curve/teacher.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from curve_cells import labelled_rows
from curve_data import CLASSES, standardised
from writing import RESULTS

from fer_core.graph.propagation import SHRINKAGE, linear_discriminant

LABELS = (250, 500, 1000, 2500, 10**9)
SEEDS = (1, 2, 3, 4, 5)
SPACES = {"intensities": ("intensities",), "intensities and landmarks": ("intensities", "landmarks")}
_TRAIN, _TEST = 0, 2


def accuracies(vectors: np.ndarray, arrays: dict[str, np.ndarray], count: int, seed: int) -> dict[str, float]:
    """Test accuracy in percent, fitted to the `count` faces that keep their label."""
    train, test = (np.flatnonzero(arrays["usage"] == part) for part in (_TRAIN, _TEST))
    label, usable = arrays["label"].astype(np.int64), arrays["usable"]
    labelled = train[labelled_rows(label[train], count, seed)]
    fitted = labelled[usable[labelled]]
    space = torch.from_numpy(vectors.astype(np.float64))
    weights, biases = linear_discriminant(space[fitted], torch.eye(CLASSES).double()[label[fitted]], SHRINKAGE)
    said = (space[test] @ weights + biases).argmax(dim=1).numpy()
    everywhere = np.where(usable[test], said, np.bincount(label[labelled]).argmax())
    right = said == label[test]
    return {
        "accuracy_with_aus": 100 * float(right[usable[test]].mean()),
        "accuracy": 100 * float((everywhere == label[test]).mean()),
        "images_with_aus": int(usable[test].sum()),
        "images": len(test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slim", type=Path)
    arrays = dict(np.load(parser.parse_args().slim))
    rows = []
    for name, parts in SPACES.items():
        vectors = np.concatenate([standardised(arrays[part]) for part in parts], axis=1)
        for count in LABELS:
            # All labels are the same whatever the seed.
            for seed in SEEDS if count < len(arrays["label"]) else SEEDS[:1]:
                labels = min(count, int((arrays["usage"] == _TRAIN).sum()))
                rows.append({"space": name, "labels": labels, "seed": seed, **accuracies(vectors, arrays, count, seed)})
    table = pd.DataFrame(rows)
    table.round(3).to_csv(RESULTS / "learning_curve" / "teacher.csv", index=False)
    means = table.groupby(["space", "labels"], sort=False).mean(numeric_only=True)
    print(means.drop(columns="seed").round(1).to_string())


if __name__ == "__main__":
    main()
