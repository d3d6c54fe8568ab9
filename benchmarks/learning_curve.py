"""How many labels action units are worth: FER+ with few labelled faces and the others without, on one GPU.

    PYTHONPATH=. python benchmarks/curve_data.py FERPLUS_FOLDER ferplus_slim.npz
    PYTHONPATH=. python benchmarks/learning_curve.py ferplus_slim.npz OUT --seconds 240
    PYTHONPATH=. python benchmarks/curve_summary.py ferplus_slim.npz OUT

Needs torch, torchvision, numpy and pandas alone. First come the trials, which choose each way's strength on 500
validation faces by hard labels; then rounds of two seeds, each round the whole curve, so that it can end at any time
with paired seeds; then students of what the networks at 500 labels say. A group of cells that does not fit into the
time left is not begun. Every cell leaves a line in `cells.jsonl` and its logits; `run.json` has the strengths that were
chosen and what was skipped.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curve_cells import Faces, Slot, Structure, faces_from, fresh, labelled_rows, lesson, schedule
from torch import Tensor

ALL = 0
"""Stands for all labels."""
LABELS = (500, 250, 1000, 2500, ALL)
"""In order of worth within a round."""
ROUNDS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10))
"""Seeds; those beyond the fifth only up to 1,000 labels."""
TUNING = {500: (101, 102), 2500: (103,)}
"""Seeds of the trials. What they choose at 500 labels holds up to 1,000, and at 2,500 beyond."""
CHOOSING = 500
"""Validation faces that strengths and temperatures are fitted on."""
STEPS = (600, 800, 1000, 1300, 1700)
_LABELLED, _UNLABELLED = 64, 128
_LABELS_ALONE = Structure(_LABELLED, 0)
_WITH_OTHERS = Structure(_LABELLED, _UNLABELLED)
_WITH_OMEGA = Structure(_LABELLED, _UNLABELLED, neighbours=True)
_WITH_OWN = Structure(_LABELLED, _UNLABELLED, own=True)
_ALL_LABELS = Structure(_LABELLED + _UNLABELLED, 0)
_ALL_LABELS_OMEGA = Structure(_LABELLED + _UNLABELLED, 0, neighbours=True)
_STUDENT = Structure(_LABELLED + _UNLABELLED, 0, architecture="efficientface")
STRUCTURES = {
    "ldg": _LABELS_ALONE,
    "smoothing": _LABELS_ALONE,
    "mixed": _LABELS_ALONE,
    "mixed_random": _LABELS_ALONE,
    "votes": _LABELS_ALONE,
    "omega": _WITH_OMEGA,
    "omega_random": _WITH_OMEGA,
    "propagated": _WITH_OTHERS,
    "propagated_random": _WITH_OTHERS,
    "linear": _WITH_OTHERS,
    "pseudo": _WITH_OWN,
    "fixmatch": _WITH_OWN,
    "propagated_pseudo": _WITH_OWN,
    "propagated_fixmatch": _WITH_OWN,
}
WITH_FEW = tuple(way for way in STRUCTURES if way != "mixed_random")
WITH_ALL = ("ldg", "smoothing", "mixed", "mixed_random", "votes", "omega", "omega_random")
"""Ways that need no unlabelled face."""
TRIALS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("ldg", {"rate": rate}) for rate in (0.05, 0.1, 0.2)),
    *(("smoothing", {"share": share}) for share in (0.1, 0.2, 0.4)),
    *(("mixed", {"share": share}) for share in (0.2, 0.4)),
    *(("omega", {"pull": pull}) for pull in (0.1, 0.3, 1.0)),
    *(("propagated", {"space": "both", "weight": weight}) for weight in (0.5, 1.0, 2.0)),
    ("propagated", {"space": "intensities", "weight": 1.0}),
    *(("pseudo", {"threshold": threshold}) for threshold in (0.8, 0.95)),
    *(("fixmatch", {"threshold": threshold}) for threshold in (0.8, 0.95)),
    *(("propagated_pseudo", {"weight": 1.0, "threshold": 0.8, "instead": instead}) for instead in (0.0, 1.0)),
)
UNTRIED: dict[str, dict[str, Any]] = {
    "ldg": {"rate": 0.1},
    "smoothing": {"share": 0.1},
    "mixed": {"share": 0.2},
    "omega": {"pull": 0.3},
    "propagated": {"space": "both", "weight": 1.0},
    "pseudo": {"threshold": 0.8},
    "fixmatch": {"threshold": 0.95},
    "propagated_pseudo": {"instead": 0.0},
}
"""Strengths where there was no time for trials."""
TAKES_FROM = {
    "mixed_random": ("mixed",),
    "omega_random": ("omega",),
    "propagated_random": ("propagated",),
    "linear": ("propagated",),
    "propagated_pseudo": ("propagated", "pseudo", "propagated_pseudo"),
    "propagated_fixmatch": ("propagated", "fixmatch", "propagated_pseudo"),
}
"""Ways whose strength is that of others: a control as strong as what it controls. Later ones lay over earlier ones."""
_OWN_KEYS = {"propagated_pseudo": ("instead",)}
"""What is taken over of a trial that held other keys fixed."""
STUDENT_WAYS = (
    "ldg",
    "smoothing",
    "propagated",
    "fixmatch",
    "propagated_fixmatch",
    "votes",
    "omega",
    "propagated_random",
)
STUDENT_LABELS = 500
_SPARE = 1.05
"""What a group may take beyond its estimate."""
_LOOK_EVERY = 50
_MEASURED_STEPS = 20
_CELLS_A_FILE = 200
_LEAST = -100.0
"""The smallest log-probability that is kept, as a half float."""


@dataclass(frozen=True)
class Cell:
    """A network to be trained."""

    stage: str
    """trial, curve or student."""
    labels: int
    seed: int
    way: str
    setting: dict[str, Any]

    @property
    def structure(self) -> Structure:
        if self.stage == "student":
            return _STUDENT
        if self.labels == ALL:
            return _ALL_LABELS_OMEGA if STRUCTURES[self.way].neighbours else _ALL_LABELS
        return STRUCTURES[self.way]


@dataclass
class Laboratory:
    """The faces, the slots that were made so far, and the files that results go into."""

    faces: Faces
    judged: dict[str, np.ndarray]
    out: Path
    steps: int
    ends: float
    labels: np.ndarray
    """(N,) of the training faces, on the CPU."""
    shrink: int = 1
    """What batches are divided by, for a quick look."""
    slots: dict[Structure, list[Slot]] = field(default_factory=lambda: defaultdict(list))
    weights: dict[tuple[str, int], dict[str, Tensor]] = field(default_factory=dict)
    soft: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    """(N, C) what a generator says of all training faces, by way and seed."""
    eager: bool = False
    seconds_an_image: float = 0.0
    done: int = 0
    few: bool = False
    kept: list[np.ndarray] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.ends - time.perf_counter()

    def note(self, text: str) -> None:
        print(f"[{self.left:6.1f} s left] {text}", flush=True)

    def structure(self, cell: Cell) -> Structure:
        whole = cell.structure
        return replace(whole, labelled=whole.labelled // self.shrink, unlabelled=whole.unlabelled // self.shrink)

    def cost(self, cells: Sequence[Cell]) -> float:
        """Images a step."""
        return sum(self.structure(cell).cost for cell in cells)

    def slots_for(self, cells: Sequence[Cell]) -> list[Slot]:
        taken: dict[Structure, int] = defaultdict(int)
        found = []
        for cell in cells:
            structure = self.structure(cell)
            slots = self.slots[structure]
            if taken[structure] == len(slots):
                slots.append(self.new_slot(structure))
            found.append(slots[taken[structure]])
            taken[structure] += 1
        return found

    def new_slot(self, structure: Structure) -> Slot:
        slot = Slot(structure, self.faces, max(self.steps, STEPS[-1]))
        if self.eager:
            return slot
        try:
            slot.capture()
        except RuntimeError as error:
            self.eager = True
            self.note(f"steps cannot be captured, so they are taken one by one: {str(error).splitlines()[0]}")
        return slot

    def load(self, cell: Cell, slot: Slot) -> None:
        device = self.faces.labels.device
        structure, count = self.structure(cell), len(self.labels)
        rows = torch.from_numpy(labelled_rows(self.labels, cell.labels or count, cell.seed)).to(device)
        if cell.stage == "student":
            learnt = lesson("ldg", {}, self.faces, torch.arange(count, device=device), cell.seed)
            learnt.target = self.soft[cell.way, cell.seed]
            rows = torch.arange(count, device=device)
        else:
            learnt = lesson(cell.way, cell.setting, self.faces, rows, cell.seed)
        drawn = schedule(
            structure, rows, count, self.steps, cell.setting["rate"], cell.seed, strong=cell.way.endswith("fixmatch")
        )
        key = structure.architecture, cell.seed
        if key not in self.weights:
            model = fresh(structure.architecture, cell.seed, device)
            self.weights[key] = {name: value.clone() for name, value in model.state_dict().items()}
        slot.load(learnt, drawn, self.weights[key])

    def run(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """Train cells side by side; nothing, where there is no time for all of them, or it ends meanwhile."""
        cost = self.cost(cells) * self.steps
        if cost * self.seconds_an_image * _SPARE > self.left:
            self.skipped.append(described(cells))
            self.note(f"no time for {described(cells)}")
            return []
        begun = time.perf_counter()
        slots = self.slots_for(cells)
        for cell, slot in zip(cells, slots, strict=True):
            self.load(cell, slot)
        synchronise(self.faces)
        loaded = time.perf_counter()
        if not advance(slots, self.steps, self.ends):
            self.skipped.append(described(cells))
            self.note(f"the time ended in {described(cells)}")
            return []
        trained = time.perf_counter()
        self.seconds_an_image = (trained - begun) / cost
        lines = [self.judge(cell, slot) for cell, slot in zip(cells, slots, strict=True)]
        self.write(lines)
        self.note(
            f"{len(cells)} cells of {described(cells)}: "
            f"load {loaded - begun:.1f} s, train {trained - loaded:.1f} s ({cost / (trained - loaded):,.0f} images/s), "
            f"judge {time.perf_counter() - trained:.1f} s"
        )
        return lines

    def judge(self, cell: Cell, slot: Slot) -> dict[str, Any]:
        logits = slot.logits(self.faces.judged)
        log_probabilities = torch.log_softmax(logits, dim=1).clamp(min=_LEAST)
        if cell.stage == "curve" and cell.labels == STUDENT_LABELS and cell.way in STUDENT_WAYS:
            self.soft[cell.way, cell.seed] = slot.logits(self.faces.images).softmax(dim=1)
        values = log_probabilities.cpu().numpy()
        self.kept.append(values.astype(np.float16))
        label, test = self.judged["label"], self.judged["usage"] == 2
        right = values.argmax(axis=1) == label
        chosen_on = np.flatnonzero(~test)[:CHOOSING]
        return {
            **asdict(cell),
            "row": self.done + len(self.kept) - 1,
            "validation_accuracy": float(right[chosen_on].mean()),
            "validation_loss": best_cross_entropy(values[chosen_on], label[chosen_on]),
            "test_accuracy": float(right[test].mean()),
        }

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        """Add a group's lines, and its logits to the last file of them, which is written anew beside and renamed."""
        number = self.done // _CELLS_A_FILE
        path, beside = self.out / f"logits_{number}.npz", self.out / "writing.npz"
        np.savez(beside, first=self.done, log_probabilities=np.array(self.kept))
        beside.replace(path)
        with (self.out / "cells.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        if len(self.kept) >= _CELLS_A_FILE:
            self.done += len(self.kept)
            self.kept.clear()


def described(cells: Sequence[Cell]) -> str:
    return f"{cells[0].stage}, {cells[0].labels or 'all'} labels, seeds {sorted({cell.seed for cell in cells})}"


def synchronise(faces: Faces) -> None:
    if faces.labels.is_cuda:
        torch.cuda.synchronize()


def advance(slots: Sequence[Slot], steps: int, ends: float) -> bool:
    """Let all slots take some steps, side by side; False where the time ended first."""
    main = torch.cuda.current_stream() if slots[0].stream is not None else None
    for slot in slots:
        if slot.stream is not None and main is not None:
            slot.stream.wait_stream(main)
    for step in range(steps):
        for slot in slots:
            if slot.stream is None:
                slot.advance()
            else:
                with torch.cuda.stream(slot.stream):
                    slot.advance()
        if step % _LOOK_EVERY == _LOOK_EVERY - 1 or step == steps - 1:
            synchronise(slots[0].faces)
            if time.perf_counter() > ends:
                return False
    return True


def best_cross_entropy(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy to hard labels at the temperature that makes it least: what ways are chosen by."""
    best = math.inf
    for temperature in np.geomspace(0.25, 8, 61):
        scaled = log_probabilities.astype(np.float64) / temperature
        log_sum = np.log(np.exp(scaled).sum(axis=1))
        best = min(best, float((log_sum - scaled[np.arange(len(labels)), labels]).mean()))
    return best


def trials(labels: int, seed: int) -> list[Cell]:
    return [Cell("trial", labels, seed, way, {"rate": 0.1} | setting) for way, setting in TRIALS]


def chosen(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each way's setting of the least mean validation loss over its trials' seeds; every way takes the LDG's rate."""
    losses: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        losses[line["way"]][json.dumps(line["setting"], sort_keys=True)].append(line["validation_loss"])
    best = {
        way: json.loads(min(settings, key=lambda s: float(np.mean(settings[s])))) for way, settings in losses.items()
    }
    rate = best["ldg"]["rate"]
    settings = {}
    for way in STRUCTURES:
        setting: dict[str, Any] = {}
        for source in TAKES_FROM.get(way, (way,)):
            taken = best.get(source, {})
            setting |= {k: v for k, v in taken.items() if k in _OWN_KEYS.get(source, taken)}
        settings[way] = setting | {"rate": rate}
    return settings


def curve(labels: int, seeds: Sequence[int], settings: dict[str, dict[str, Any]]) -> list[Cell]:
    ways = WITH_ALL if labels == ALL else WITH_FEW
    return [Cell("curve", labels, seed, way, settings[way]) for seed in seeds for way in ways]


def seeds_of(labels: int, seeds: Sequence[int]) -> list[int]:
    few = labels != ALL and labels <= 1000
    return [seed for seed in seeds if few or seed <= 5]


def planned_cost() -> float:
    """Images a step of the trials and of the first two rounds, which the number of steps is chosen by."""
    cells = [cell for labels, seeds in TUNING.items() for seed in seeds for cell in trials(labels, seed)]
    settings = {way: {"rate": 0.1} for way in STRUCTURES}
    for seeds in ROUNDS[:2]:
        cells += [cell for labels in LABELS for cell in curve(labels, seeds, settings)]
    return sum(cell.structure.cost for cell in cells)


def measured_steps(laboratory: Laboratory) -> int:
    """The most steps of STEPS with which trials and two rounds fit into nine tenths of the time; at least the least."""
    cells = trials(500, TUNING[500][0])
    slots = laboratory.slots_for(cells)
    laboratory.note(f"{len(slots)} slots captured")
    for cell, slot in zip(cells, slots, strict=True):
        laboratory.load(cell, slot)
    advance(slots, 3, laboratory.ends)
    begun = time.perf_counter()
    advance(slots, _MEASURED_STEPS, laboratory.ends)
    cost = laboratory.cost(cells) * _MEASURED_STEPS
    laboratory.seconds_an_image = (time.perf_counter() - begun) / cost
    affordable = 0.9 * laboratory.left / laboratory.seconds_an_image / planned_cost()
    laboratory.note(f"{1 / laboratory.seconds_an_image:,.0f} images/s, {affordable:.0f} steps affordable")
    return max((steps for steps in STEPS if steps <= affordable), default=STEPS[0])


def study(
    laboratory: Laboratory,
    tuning: Mapping[int, Sequence[int]],
    labels: Sequence[int],
    rounds: Sequence[Sequence[int]],
) -> None:
    """Trials, then the curve round by round, then the students; each as far as the time goes."""
    settings: dict[int, dict[str, dict[str, Any]]] = {}
    untried = chosen([{"way": way, "setting": setting, "validation_loss": 0.0} for way, setting in UNTRIED.items()])
    for at, seeds in tuning.items():
        lines = [line for seed in seeds for line in laboratory.run(trials(at, seed))]
        settings[at] = chosen(lines) if lines else untried
        laboratory.note(f"{'chosen' if lines else 'untried'} at {at} labels: {json.dumps(settings[at])}")
    few, many = settings.get(500, untried), settings.get(2500, untried)
    write_run(laboratory, settings)
    for seeds in rounds:
        for count in labels:
            here = seeds_of(count, seeds)
            if here:
                laboratory.run(curve(count, here, few if count and count <= 1000 else many))
    for seed in sorted({seed for _, seed in laboratory.soft}):
        ways = [way for way in STUDENT_WAYS if (way, seed) in laboratory.soft]
        laboratory.run([Cell("student", STUDENT_LABELS, seed, way, {"rate": 0.1}) for way in ways])
    write_run(laboratory, settings)


def write_run(laboratory: Laboratory, settings: dict[int, dict[str, dict[str, Any]]]) -> None:
    cuda = laboratory.faces.labels.is_cuda
    document = {
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "few": laboratory.few,
        "steps": laboratory.steps,
        "batch": {"labelled": _LABELLED, "unlabelled": _UNLABELLED},
        "training_faces": len(laboratory.labels),
        "with_action_units": int(laboratory.faces.usable.sum()),
        "images_per_second": 1 / max(laboratory.seconds_an_image, 1e-9),
        "settings": settings,
        "skipped": laboratory.skipped,
        "seconds_left": laboratory.left,
    }
    (laboratory.out / "run.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0, help="from the start of this program")
    parser.add_argument("--steps", type=int, default=0, help="of every training; 0 measures how many fit")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few faces: that it runs, and no more")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments.out.mkdir(parents=True, exist_ok=True)
    faces, judged = faces_from(str(arguments.data), device, few=arguments.quick)
    steps = arguments.steps or (2 if arguments.quick else STEPS[-1])
    laboratory = Laboratory(
        faces,
        judged,
        arguments.out,
        steps,
        begun + arguments.seconds,
        faces.labels.cpu().numpy(),
        shrink=16 if arguments.quick else 1,
        few=arguments.quick,
    )
    laboratory.note(f"{len(faces.labels)} training faces, {int(faces.usable.sum())} with action units, on {device}")
    if not arguments.steps and not arguments.quick:
        laboratory.steps = measured_steps(laboratory)
    laboratory.note(f"{laboratory.steps} steps a training")
    if arguments.quick:
        study(laboratory, {}, (500, ALL), ((1,),))
    else:
        study(laboratory, TUNING, LABELS, ROUNDS)
    laboratory.note("done")


if __name__ == "__main__":
    main()
