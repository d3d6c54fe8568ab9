"""The method: datasets, action-unit graph, label distributions, models, training and evaluation.

Public for programs: `fer_core.predict.Predictor`. All else is the command `fer`, and the files that it writes.
"""

import os

# ONNX Runtime would write an identifier into the home folder as it is loaded, and report its use to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenMP's threads, which meet a thousand times in a training step, would spin while they wait: on cores that others use
# too, a step of two threads took 85 times as long (benchmarks/oversubscribed.py). They read this as torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
