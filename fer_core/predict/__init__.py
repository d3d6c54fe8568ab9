"""Predictions from a checkpoint or an exported model: `Predictor(path)(images)`.

Nothing here loads torch before a checkpoint is opened.
"""

from fer_core.predict.predictor import FacePrediction, Predictor

__all__ = ["FacePrediction", "Predictor"]
