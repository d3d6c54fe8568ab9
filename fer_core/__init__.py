"""The method: datasets, action-unit graph, label distributions, models, training and evaluation."""

__version__ = "0.1.0"
