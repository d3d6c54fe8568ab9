"""The networks: one file a model, and what reads and writes their weights."""

from typing import Literal

Architecture = Literal["efficientface", "resnet18", "resnet50"]
