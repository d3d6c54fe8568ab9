"""The work of each step: one function for each, from artifacts to files in a folder."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fer_core.artifacts import UNFINISHED, Artifact, finished, make_artifact, open_artifact, unattended
from fer_core.errors import ActionUnitError, ArtifactError, DatasetError
from fer_core.experiment import LdgSettings, Recipe
from fer_core.progress import Reporter
from fer_core.steps import Request, action_unit_rows, runs_openface
from openface.settings import OpenFaceSettings

if TYPE_CHECKING:
    import pandas as pd

    from fer_core.data.dataset import Dataset
    from fer_core.graph.action_units import ActionUnits
    from fer_core.train.loop import Run
    from openface.annotation import Finding
    from openface.views import Images

_OPENFACE = "openface"
"""Folder in which the images of an unfinished annotation are worked on."""
_FAILURES_TOLD = 20
_COLUMNS_TOLD = 12
Told = Mapping[str, Any]
"""Further entries of a step's manifest."""


def run_step(request: Request, out: Path, report: Reporter) -> Artifact:
    """Run a step into `out`, unless it is finished there already.

    Raises:
        FerError: whatever the user has to mend.
    """
    work = _WORK[request.step.name]
    if out.is_dir() and finished(out, request.fingerprint()) is None and any(out.iterdir()):
        report.note(f"{out}: what was made there by other settings or inputs will be replaced")
    inputs = {f"{a.step}-{number}": a for number, a in enumerate(request.inputs)}
    return make_artifact(
        out,
        request.step.name,
        request.fingerprint(),
        request.settings(),
        inputs,
        lambda folder: work(request, folder, report),
    )


def _prepare(request: Request, folder: Path, report: Reporter) -> None:
    from fer_core.data.prepare import prepare

    prepare(request.experiment.dataset, request.outside, folder, report)


def _annotate(request: Request, folder: Path, report: Reporter) -> None:
    from fer_core.data.dataset import AU_TABLE, open_dataset

    dataset = open_dataset(request.input("prepare").path)
    rows = action_unit_rows(request)
    if runs_openface(request):
        table = _run_openface(request, dataset, folder, report)
    else:
        table = _no_rows(dataset) if rows is None else _import_rows(rows, dataset, report)
    table.to_parquet(folder / AU_TABLE, index=False)
    # Not before, since whatever keeps the table from being written would cost all findings.
    if (folder / _OPENFACE).is_dir():
        shutil.rmtree(folder / _OPENFACE)
    counts = {str(status): int(count) for status, count in table["status"].value_counts().items()}
    (folder / "aus.json").write_text(json.dumps(counts), encoding="utf-8")
    report.metrics(**counts)


def _no_rows(dataset: "Dataset") -> "pd.DataFrame":
    """The AU table of images that are linked by vectors of the user's own, and so need no action units."""
    import numpy as np
    import pandas as pd

    from openface.reading import FIGURES

    ids = dataset.manifest["id"]
    table = pd.DataFrame(np.nan, index=ids, columns=list(FIGURES), dtype=np.float32)
    table.insert(0, "status", "not annotated")
    return table.reset_index()


def _import_rows(source: Path, dataset: "Dataset", report: Reporter) -> "pd.DataFrame":
    """One row an image of what OpenFace wrote before."""
    from fer_core.data.dataset import BOX, PHOTOGRAPH
    from openface.cut_out import CutOut
    from openface.errors import TableError
    from openface.reading import read_openface
    from openface.table import one_row_per_image, remarks

    manifest = dataset.manifest
    ids, cut_out = list(manifest["id"]), None
    if PHOTOGRAPH in manifest:
        cut_out = CutOut(ids, list(manifest[PHOTOGRAPH]), manifest[list(BOX)].to_numpy())
    if not source.exists():
        raise ActionUnitError(
            f"{source}: no AU table there; give --aus, a folder of FaceLandmarkImg's CSVs, one CSV, or a parquet"
        )
    try:
        rows = read_openface(source, ids if cut_out is None else cut_out.named)
    except TableError as error:
        raise ActionUnitError(str(error)) from error
    try:
        table = one_row_per_image(rows, ids, cut_out)
    except TableError as error:
        raise ActionUnitError(f"{source}: {error}") from error
    for remark in remarks(rows, ids, str(source), cut_out):
        report.note(remark)
    return table


def _run_openface(request: Request, dataset: "Dataset", folder: Path, report: Reporter) -> "pd.DataFrame":
    """Annotate the stored images, which are what the models see; those that were annotated before are not shown again.

    So another label, split or number of classes costs no image its seconds with OpenFace.
    """
    from openface.earlier import digests_of
    from openface.views import StoredImages

    images = StoredImages(list(dataset.manifest["id"]), dataset.images)
    way = f"{request.way()} {dataset.images.shape[1:]}"
    digests = digests_of((pixels.tobytes() for pixels in dataset.images), way)
    known = _settled_before(request, digests, folder)
    return annotate_images(images, request.experiment.openface, folder / _OPENFACE, report, digests, known)


def _settled_before(request: Request, digests: Sequence[str], folder: Path) -> "dict[int, Finding]":
    """Findings of the annotations in and beside `folder`, finished or broken off; not of those at work."""
    from fer_core.data.dataset import AU_TABLE
    from openface.earlier import Earlier

    earlier = Earlier(digests)
    # This one may have been killed when its table was written.
    earlier.read_table(folder / AU_TABLE)
    for beside in sorted(set(folder.parent.iterdir()) - {folder}):
        # What cannot be read, or is taken away meanwhile, tells nothing.
        with suppress(ArtifactError, OSError, ValueError):
            if beside.name.endswith(UNFINISHED):
                with unattended(beside):
                    earlier.read_work(beside / _OPENFACE)
            else:
                earlier.read_table(open_artifact(beside, request.step.name).file(AU_TABLE))
    return earlier.known


def openface_build(settings: OpenFaceSettings) -> str:
    """Which build of OpenFace these settings run.

    Raises:
        ActionUnitError: OpenFace cannot be run.
    """
    from openface.errors import OpenFaceError
    from openface.program import build_of

    try:
        return build_of(settings)
    except OpenFaceError as error:
        raise ActionUnitError(str(error)) from error


def annotate_images(
    images: "Images",
    settings: OpenFaceSettings,
    work: Path,
    report: Reporter,
    digests: Sequence[str],
    known: "Mapping[int, Finding]",
) -> "pd.DataFrame":
    """One row an image by running OpenFace, in a working folder that is to be cleared away once the table is written.

    Args:
        digests: by which a later annotation knows each image again.
        known: findings of earlier annotations, by the image's number; these images are not shown again.

    Raises:
        ActionUnitError: OpenFace cannot be run, or was replaced by another build meanwhile.
    """
    from openface.annotation import Annotation
    from openface.earlier import with_digests
    from openface.errors import OpenFaceError
    from openface.program import open_program

    def tell(done: int, total: int) -> None:
        report.progress("annotate", done, total)

    if known:
        report.note(f"{len(known):,} of {len(images.ids):,} images were annotated before; they keep their rows")
    build = openface_build(settings)
    try:
        with open_program(settings, work) as program:
            annotation = Annotation(images, program, settings, work, tell, digests, known)
            table = with_digests(annotation(), digests)
    except OpenFaceError as error:
        raise ActionUnitError(str(error)) from error
    if openface_build(settings) != build:
        # Nothing tells which findings are whose.
        shutil.rmtree(work)
        raise ActionUnitError("OpenFace was replaced by another build while it annotated; run again")
    report.metrics(**annotation.summary())
    for failure in annotation.failures()[:_FAILURES_TOLD]:
        report.note(f"no action units: {failure}")
    return table


def _open_to_train_on(request: Request) -> "Dataset":
    """The prepared dataset; one of test images alone is there to judge on."""
    from fer_core.data.dataset import open_dataset

    artifact = request.input("prepare")
    dataset = open_dataset(artifact.path)
    if not len(dataset.rows("train")):
        raise DatasetError(
            f"{artifact.path}: has no training images, so nothing can be learnt from it; judge a model on it with "
            "`fer evaluate`"
        )
    return dataset


def _columns_in_words(columns: Sequence[str]) -> str:
    """All of a few columns; of many, the first and the last of each kind, so that one that is no component shows."""
    if len(columns) <= _COLUMNS_TOLD:
        return ", ".join(columns)
    by_kind: dict[str, list[str]] = {}
    for column in columns:
        by_kind.setdefault(re.sub(r"\d+", "", column), []).append(column)
    kinds = [f"{same[0]} to {same[-1]}" if len(same) > 1 else same[0] for same in by_kind.values()]
    more = len(kinds) - _COLUMNS_TOLD
    return ", ".join(kinds[:_COLUMNS_TOLD]) + (f" and {more} others" if more > 0 else "")


def _graph(request: Request, folder: Path, report: Reporter) -> None:
    from fer_core.data.dataset import AU_TABLE
    from fer_core.graph.action_units import action_units, read_au_table
    from fer_core.graph.neighbours import TO_LABELLED, link_neighbours, save_graph, save_links, save_teacher
    from fer_core.report.step_plots import save_au_figure, save_graph_figure

    dataset = _open_to_train_on(request)
    chosen = request.experiment.action_units
    table = read_au_table(request.input("annotate").file(AU_TABLE), dataset, landmarks="landmarks" in chosen.features)
    units = action_units(dataset, table, chosen)
    what = "vectors" if units.own else "AU vectors"
    report.note(f"{what} of {len(units.columns)} columns: {_columns_in_words(units.columns)}")
    what = "vectors" if units.own else "AU coverage"
    for split, counts in units.coverage.items():
        report.note(f"{what} of {split}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    settings, trained_on = request.experiment.graph, dataset.rows("train", "unlabelled")
    graph, card = link_neighbours(units, trained_on, settings, folder, report)
    save_graph(folder, graph, card)
    if len(dataset.rows("unlabelled")):
        # torch, which a graph needs for nothing else
        from fer_core.graph.unlabelled import linear_teacher, link_to_labelled, shuffled

        labelled = dataset.rows("train")
        if settings.teacher == "linear":
            teacher = linear_teacher(units, labelled, dataset.labels(), len(dataset.card.labels))
            save_teacher(
                folder, shuffled(teacher, trained_on, settings.seed) if settings.control == "random" else teacher
            )
        else:
            save_links(folder / TO_LABELLED, link_to_labelled(units, labelled, settings))
        _tell_untaught(dataset, units, report)
    annotated = trained_on[units.usable[trained_on] & (table["status"].to_numpy()[trained_on] == "ok")]
    if len(annotated):
        save_au_figure(folder, table.iloc[annotated])
    save_graph_figure(folder, graph, dataset.labels())


def _tell_untaught(dataset: "Dataset", units: "ActionUnits", report: Reporter) -> None:
    """Warn where no unlabelled face can be given a label, or none that of a class."""
    labels, labelled, usable, what = dataset.labels(), dataset.rows("train"), units.usable, units.called
    known = set(labels[labelled[usable[labelled]]])
    untaught = [name for index, name in enumerate(dataset.card.labels) if index not in known]
    if untaught:
        report.note(
            f"no labelled image of {', '.join(untaught)} has {what}, so no image without a label is taught to be that"
        )
    if not usable[dataset.rows("unlabelled")].any():
        report.note(f"no image without a label has {what}, so none is given one by them")


def _train_ldg(request: Request, folder: Path, report: Reporter) -> Told:
    from fer_core.graph.neighbours import TO_LABELLED, load_graph, load_links, load_teacher
    from fer_core.train.ldg import train_ldg

    dataset = _open_to_train_on(request)
    graph, coverage = None, None
    for artifact in request.inputs_of("graph"):
        graph, card = load_graph(artifact.path)
        # Vectors of one's own are no action units, and have terms of their own.
        coverage = None if "vectors" in artifact.settings()["action_units"] else card.coverage
    links = next((load_links(artifact.path / TO_LABELLED) for artifact in request.inputs_of("graph")), None)
    _tell_start("ldg", request.experiment.ldg, report)
    _tell_nothing_to_teach(request.experiment.ldg, dataset, report)
    teacher = next((load_teacher(artifact.path) for artifact in request.inputs_of("graph")), None)
    run = _run(request, folder, report)
    train_ldg(request.experiment, dataset, _labels(request), graph, run, coverage, links, teacher)
    return _finish_checkpoint(folder, dataset)


def _run(request: Request, folder: Path, report: Reporter) -> "Run":
    from fer_core.devices import choose_device
    from fer_core.train.loop import Run

    assert request.seed is not None, "a step that trains is seeded"
    settings = request.experiment.run
    return Run(request.seed, folder, choose_device(settings.device), report, settings.capture)


def _tell_start(section: str, recipe: Recipe, report: Reporter) -> None:
    """Warn if a recipe whose source starts from pre-trained weights is run without any."""
    if recipe.pretrained_on and not recipe.weights:
        report.note(
            f"starts from scratch; the recipe's source starts from weights pre-trained on {recipe.pretrained_on}: "
            f"give them with --set {section}.weights=FILE"
        )


def _tell_nothing_to_teach(recipe: LdgSettings, dataset: "Dataset", report: Reporter) -> None:
    """Warn of settings for faces without a label where every face has one."""
    for_unlabelled = {"propagated": recipe.propagated, "pseudo_labels": recipe.pseudo_labels}
    unused = [f"ldg.{name}" for name, weight in for_unlabelled.items() if weight]
    if unused and not len(dataset.rows("unlabelled")):
        report.note(
            f"{' and '.join(unused)} had no effect: every training image has a label; those without one lie in a "
            "folder called unlabelled, or have an empty label in their list"
        )


def _finish_checkpoint(folder: Path, dataset: "Dataset") -> Told:
    """What lies beside the weights: the curves, and the marks of the images that they know.

    Returns:
        What it was trained on, for the manifest.
    """
    from fer_core.models.checkpoint import read_card, save_training_images
    from fer_core.report.plots import History
    from fer_core.report.step_plots import save_curves
    from fer_core.train.loop import RESUME

    card = read_card(folder)
    save_training_images(folder, dataset, unlabelled="unlabelled" in card.trained_on["images"])
    history = History(card.history, card.selected_epoch)
    save_curves(folder, card.name, card.seed, history, len(dataset.card.labels))
    # Not before, since whatever keeps one of these from being written would cost all epochs.
    (folder / RESUME).unlink()
    return {"hardware": card.trained_on["hardware"]}


def _labels(request: Request) -> Literal["majority", "distribution"]:
    """The rule by which the dataset was prepared, whatever the experiment says now."""
    rule: Literal["majority", "distribution"] = request.input("prepare").settings()["dataset"]["labels"]
    return rule


def _soft_labels(request: Request, folder: Path, report: Reporter) -> None:
    from fer_core.data.dataset import open_dataset
    from fer_core.devices import choose_device
    from fer_core.models.checkpoint import read_card
    from fer_core.train.soft_labels import make_soft_labels

    dataset = open_dataset(request.input("prepare").path)
    generator = request.input("train-ldg")
    device = choose_device(request.experiment.run.device)
    make_soft_labels(request.experiment, dataset, generator.path, folder, device, report)
    card = read_card(generator.path)
    made_by = {"generator": card.name, "seed": card.seed, "au_coverage": card.trained_on.get("au_coverage")}
    (folder / "soft_labels.json").write_text(json.dumps(made_by), encoding="utf-8")


def _distill(request: Request, folder: Path, report: Reporter) -> Told:
    from fer_core.train.efficientface import train_efficientface
    from fer_core.train.soft_labels import objective_from

    dataset, run = _open_to_train_on(request), _run(request, folder, report)
    taught, name, coverage = None, "EF SLL", None
    for artifact in request.inputs_of("soft-labels"):
        taught = objective_from(artifact.path, dataset, request.experiment.distill.input_size, run.device)
        made_by = json.loads(artifact.file("soft_labels.json").read_text(encoding="utf-8"))
        name, coverage = f"EF + {made_by['generator']}", made_by["au_coverage"]
    section = "sll" if taught is None else "distill"
    _tell_start(section, getattr(request.experiment, section), report)
    train_efficientface(request.experiment, dataset, _labels(request), taught, name, run, coverage)
    return _finish_checkpoint(folder, dataset)


def _evaluate(request: Request, folder: Path, report: Reporter) -> None:
    from fer_core.data.dataset import open_dataset
    from fer_core.devices import choose_device
    from fer_core.evaluation.evaluate import evaluate, evaluate_elsewhere

    prepared = request.input("prepare")
    (checkpoint,) = [artifact for artifact in request.inputs if artifact.step in ("train-ldg", "distill")]
    device = choose_device(request.experiment.run.device)
    judge = evaluate if prepared.fingerprint in checkpoint.made_from("prepare") else evaluate_elsewhere
    judge(request.experiment.evaluation, open_dataset(prepared.path), checkpoint.path, folder, device, report)


def _report(request: Request, folder: Path, report: Reporter) -> None:
    if request.experiment.comparison is None:
        from fer_core.report.page import write_report

        write_report(request, folder, report)
    else:
        from fer_core.report.comparison_page import write_comparison

        write_comparison(request, folder, report)


_WORK: Mapping[str, Callable[[Request, Path, Reporter], Told | None]] = {
    "prepare": _prepare,
    "annotate": _annotate,
    "graph": _graph,
    "train-ldg": _train_ldg,
    "soft-labels": _soft_labels,
    "distill": _distill,
    "evaluate": _evaluate,
    "report": _report,
}
