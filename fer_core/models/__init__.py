"""The networks, one file each, and the code that reads and writes their weights."""

from typing import Literal

Architecture = Literal["efficientface", "resnet18", "resnet50"]
