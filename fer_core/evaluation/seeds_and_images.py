"""A bootstrap over seeds and images at once: doubt about other trainings and about other faces, in one interval.

References:
    Davison & Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8, for resampling at two levels.

Needs numpy alone.
"""

import numpy as np

_DRAWS_AT_ONCE = 100
"""Resamples of the images held at a time: 100 × 10,000 images × 8 bytes are 8 MB."""


def means_of_resampled_images(values: np.ndarray, draws: int) -> np.ndarray:
    """Means of each row over the same resamples of the images.

    Args:
        values: (R, N), a row a training, a column an image.

    Returns:
        (draws, R); rows that are compared share an image's luck, so that their differences are paired.
    """
    generator, images = np.random.default_rng(0), values.shape[1]
    even = np.full(images, 1 / images)
    found = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        times = generator.multinomial(images, even, size=min(_DRAWS_AT_ONCE, draws - start))
        found.append(times @ values.T / images)
    return np.concatenate(found)


def mean_over_seeds(means: np.ndarray) -> np.ndarray:
    """Means over the same draws of seeds, with replacement, wherever there are as many.

    Args:
        means: (draws, S), a column a seed, as `means_of_resampled_images` gives them.

    Returns:
        (draws,).
    """
    draws, seeds = means.shape
    chosen = np.random.default_rng(seeds).integers(0, seeds, (draws, seeds))
    over: np.ndarray = np.take_along_axis(means, chosen, axis=1).mean(axis=1)
    return over


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of (draws,) values."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)
