"""Sides that images are on: cuts by content hash, duplicates across splits, and a stratified draw of train."""

import hashlib

import numpy as np
import pandas as pd

_PRECEDENCE = {"train": 0, "validation": 1, "test": 2, "unlabelled": 3}


def complete_splits(frame: pd.DataFrame, validation_share: float, test_share: float, seed: int) -> pd.Series:
    """Every row's split: the dataset's own, and cuts of its training images for validation and test it lacks.

    frame: sha256, label, split, and person where it is known; rows whose split is "" are training images unless a cut
    takes them
    """
    cut = _cut_persons if "person" in frame else _cut
    split = frame["split"].where(frame["split"] != "", "train")
    for name, share in (("test", test_share), ("validation", validation_share)):
        if not (frame["split"] == name).any():
            pool = frame[split == "train"]
            split[pool.index[cut(pool, share, seed)]] = name
    return split


def of_judged_people(frame: pd.DataFrame, split: pd.Series) -> np.ndarray:
    """(N,) whether an unlabelled image is of somebody whom a cut has put on the side of validation or test.

    frame: as of `complete_splits`; split: what that made of it
    """
    if "person" not in frame:
        return np.zeros(len(frame), bool)
    cut = frame["split"].isin(("", "train")) & split.isin(("validation", "test"))
    judged = set(frame.loc[cut, "person"]) - {""}
    return (frame["person"].isin(judged) & (split == "unlabelled")).to_numpy(bool)


def is_repeated(sha256: pd.Series, split: pd.Series) -> np.ndarray:
    """(N,) whether an image of validation, test or unlabelled occurs in a split before its own, or earlier in its own.

    Repetitions within train are left alone: they cost nothing but weight.
    """
    rank = split.map(_PRECEDENCE).to_numpy(np.int64)
    order = np.argsort(rank, kind="stable")
    repeated = np.empty(len(order), bool)
    repeated[order] = sha256.iloc[order].duplicated(keep="first").to_numpy()
    outside_train: np.ndarray = repeated & (rank > 0)
    return outside_train


def draw_stratified(sha256: pd.Series, label: pd.Series, count: int, seed: int) -> np.ndarray:
    """Positions, ascending, of `count` rows with classes in proportion; every class keeps one at least."""
    members = [np.flatnonzero(label.to_numpy() == name) for name in sorted(label.unique())]
    order = _hash_order(sha256, seed)
    drawn = [
        rows[np.argsort(order[rows], kind="stable")][:quota]
        for rows, quota in zip(members, _quotas([len(rows) for rows in members], count), strict=True)
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


def _cut(pool: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """(len(pool),) whether the cut takes a row; equal images are taken together."""
    images = pool.drop_duplicates("sha256")
    order = pd.Series(_hash_order(images["sha256"], seed), index=images.index)
    taken: set[str] = set()
    for _, members in images.groupby("label"):
        first = order[members.index].sort_values(kind="stable").index[: _cut_size(len(members), share)]
        taken.update(images.loc[first, "sha256"])
    return pool["sha256"].isin(taken).to_numpy(bool)


def _cut_persons(pool: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """(len(pool),) whether the cut takes a row; all of a person are taken together, and so many people that their
    images are nearest to the share. Classes are as these people have them."""
    who = pool["person"].where(pool["person"] != "", pool["sha256"])  # Nobody known: each image for itself.
    if share in (0, 1) or pool.empty:
        return np.full(len(pool), share == 1)
    images = who.value_counts().sort_index()
    images = images.iloc[np.argsort(_hash_order(images.index.to_series(), seed), kind="stable")]
    nearest = 1 + int(np.abs(images.cumsum().to_numpy() - share * len(pool)).argmin())
    return who.isin(images.index[: min(nearest, len(images) - 1)]).to_numpy(bool)


def _cut_size(count: int, share: float) -> int:
    """Some of every class on both sides, if it has two images; a share of 0 takes none and one of 1 all."""
    if share in (0, 1):
        return count if share else 0
    return min(count - 1, max(1, round(share * count)))


def _quotas(counts: list[int], total: int) -> list[int]:
    """One for every class, and the rest of `total` in proportion, by largest remainder."""
    others = np.array(counts) - 1
    rest = min(max(0, total - len(counts)), int(others.sum()))
    exact = others * (rest / max(1, others.sum()))
    quotas = np.floor(exact).astype(np.int64)
    quotas[np.argsort(quotas - exact, kind="stable")[: rest - int(quotas.sum())]] += 1
    return [1 + int(quota) for quota in quotas]


def _hash_order(sha256: pd.Series, seed: int) -> np.ndarray:
    """(N,) ranks by the seed and each image alone, so that images added later reshuffle nothing."""
    keys = pd.Series([hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest() for digest in sha256])
    return keys.rank(method="dense").to_numpy(np.int64)
