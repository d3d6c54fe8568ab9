"""The method: datasets, action-unit graph, label distributions, models, training and evaluation."""
