"""What `fer predict` does, as an HTTP API: images in, faces and their emotions out. ONNX Runtime alone, no torch."""

from fer_core.service.limits import Limits
from fer_core.service.server import serve

__all__ = ["Limits", "serve"]
