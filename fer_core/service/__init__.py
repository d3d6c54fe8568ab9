"""`fer predict` as an HTTP API: images in, faces and their emotions out. ONNX Runtime alone, no torch."""

import os

# ONNX Runtime would write an identifier into the home folder as it is loaded, and report its use to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from fer_core.service.limits import Limits
from fer_core.service.server import serve

__all__ = ["Limits", "serve"]
