"""The method: datasets, action-unit graph, label distributions, models, training and evaluation."""

import os

# ONNX Runtime would write an identifier into the home folder as it is loaded, and report its use to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
