"""Facial landmarks as shapes: what is left of them when place, size and turn are taken out.

References:
    Gower, "Generalized Procrustes Analysis", Psychometrika 1975; here with the mean shape of some faces as reference.
"""

import numpy as np

_ALIGNMENTS = 5
"""Rounds of aligning to the mean shape and taking it again."""


def aligned_shapes(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Move, scale and turn each face's points onto the mean shape of the reference faces (Procrustes).

    Args:
        points: (N, P, 2); no face has all its points in one place.
        reference: (M,) row numbers of the faces whose mean shape is taken, M > 0.

    Returns:
        (N, 2P): x of all points, then y, centred on 0, the root of the sum of their squares 1.
    """
    shapes = points[..., 0] + 1j * points[..., 1]  # (N, P): a turn is a product with a complex number
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    shapes = shapes / np.linalg.norm(shapes, axis=1, keepdims=True)
    mean = shapes[reference[0]]
    for _ in range(_ALIGNMENTS):
        turn = (shapes.conj() * mean).sum(axis=1)
        shapes = shapes * (turn / np.abs(turn))[:, None]
        mean = shapes[reference].mean(axis=0)
    return np.concatenate((shapes.real, shapes.imag), axis=1)
