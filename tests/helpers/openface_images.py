"""Pictures that make the stand-in for OpenFace do each thing that the real one does, and the stand-in itself."""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

STAND_IN = Path(__file__).parents[1] / "openface" / "FaceLandmarkImg"


def _cues() -> dict[str, tuple[int, int, int]]:
    loader = importlib.machinery.SourceFileLoader("stand_in", str(STAND_IN))
    spec = importlib.util.spec_from_loader("stand_in", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return dict(module.CUES)


CUES = _cues()


def picture(seed: int, cue: str = "", side: int = 100) -> Image.Image:
    """Coarse blocks of colour, different for each seed, with the cue in the middle; no edge is of one colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    blocks[4:6, 4:6] = CUES[cue] if cue else (90, 90, 90)
    blocks[:, 0], blocks[:, 1] = 10, 240
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Pictures:
    """Images of some cues, in the driver's terms."""

    cues: Sequence[str]
    side: int = 100

    @property
    def ids(self) -> list[str]:
        return [f"{number:04d} {cue}".strip() for number, cue in enumerate(self.cues)]

    def read(self, number: int) -> Image.Image:
        return picture(number, self.cues[number], self.side)


def local_program(folder: Path) -> Path:
    """The stand-in as a program of this machine, its model beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "main_ceclm_general.txt").write_text("landmarks")
    (folder / "stand_in.py").write_text(STAND_IN.read_text())
    program = folder / "FaceLandmarkImg"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P "{folder}/stand_in.py" "$@"\n')
    program.chmod(0o755)
    return program
