"""The paper's whole table on this machine's CPU, projected from measured steps: 5 models, 5 seeds, its epochs, 224 px.

The reference is float32 with neighbours forwarded, and a teacher that is asked about every view; ours is in the
precision that the processor is fastest in, with the bank, and soft labels made once. Steps of both take turns, the
students' on batches of 64, where the paper's are of 128 and 256. Prints a table and writes
`benchmarks/results/paper_table.json`.
"""

import argparse
import tempfile
from pathlib import Path

import neighbours
import numpy as np
import torch
from inputs import CLASSES, distributions, smooth_images
from reference import PublishedEfficientFace, distil_batch, distil_epoch, image_loader, teacher, write_files
from student import BATCH, CPU, SIZE, Student
from turns import CLOCK, fastest
from writing import row, show, write_results

from fer_core.devices import choose_precision, processor_of

IMAGES, SEEDS, LDG_BATCH = 12_271, 5, 16
EPOCHS = {"LDG": 100, "LDG-AUs": 35, "EF SLL": 100, "EF + LDG": 100, "EF + LDG-AUs": 100}


def generators(rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds that an image takes in a step of LDG and LDG-AUs: the reference's, and ours."""
    slow = neighbours.seconds_of_steps(SIZE, LDG_BATCH, rounds, "float32", CPU)
    precision = choose_precision("auto", "resnet50", SIZE, processor_of(CPU))
    fast = slow if precision == "float32" else neighbours.seconds_of_steps(SIZE, LDG_BATCH, rounds, precision, CPU)
    return (
        {"LDG": slow["LDG"][CLOCK] / LDG_BATCH, "LDG-AUs": slow["forward"][CLOCK] / LDG_BATCH},
        {"LDG": fast["LDG"][CLOCK] / LDG_BATCH, "LDG-AUs": fast["bank"][CLOCK] / LDG_BATCH},
    )


def students(rounds: int) -> tuple[dict[str, float], dict[str, float], float]:
    """Seconds that an image takes in an epoch of a student: the reference's, ours; and in the pass of the teacher."""
    images, asked = smooth_images(2 * BATCH), teacher(CLASSES, CPU)
    published, target = PublishedEfficientFace(CLASSES).train(), distributions(len(images))
    optimiser = torch.optim.SGD(published.parameters(), 0.01, momentum=0.9, weight_decay=4e-4)
    student = Student(images, choose_precision("auto", "efficientface", SIZE, processor_of(CPU)))
    plain = Student(images, "float32").views().plain(np.arange(BATCH))
    with tempfile.TemporaryDirectory() as folder:
        loader = image_loader(write_files(Path(folder), images), SIZE, BATCH, CPU)
        seconds = fastest(
            {
                "alone": lambda: [distil_batch(published, optimiser, batch, target[:BATCH]) for batch, _ in loader],
                "taught": lambda: distil_epoch(loader, published, asked, optimiser, CPU),
                "ours": student.pass_over(student.step(target)),
                "soft labels": torch.inference_mode()(lambda: asked(plain)),
            },
            rounds,
        )
    seconds["soft labels"] *= len(images) / BATCH
    each = {name: taken / len(images) for name, taken in seconds.items()}
    reference = {"EF SLL": each["alone"], "EF + LDG": each["taught"], "EF + LDG-AUs": each["taught"]}
    return reference, dict.fromkeys(reference, each["ours"]), each["soft labels"]


def days(seconds_of_an_image: dict[str, float]) -> dict[str, float]:
    """Days that all seeds of each model take."""
    return {name: SEEDS * EPOCHS[name] * IMAGES * each / 86_400 for name, each in seconds_of_an_image.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    rounds = parser.parse_args().rounds
    (slow, fast), (taught, cached, labels) = generators(rounds), students(rounds)
    reference = days(slow | taught)
    ours = days(fast | cached) | {"soft labels": 2 * SEEDS * IMAGES * labels / 86_400}
    name = f"the paper's table, {len(EPOCHS)} models × {SEEDS} seeds, {IMAGES:,} images, {SIZE} px, projected"
    total = [sum(each.values()) for each in (ours, reference)]
    both = {"days": ours, "days_of_reference": reference}
    rows = [row(name, total[0], None, total[1], judged="times faster", unit="days", **both)]
    show(rows)
    write_results("paper_table", [line | {"threads": torch.get_num_threads()} for line in rows])


if __name__ == "__main__":
    main()
