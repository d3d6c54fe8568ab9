"""The report's sentences and number formats; every claim in words is computed from the metrics."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_core.evaluation.common_ground import judged_on_in_words
from fer_core.evaluation.metrics import CLIPPING
from fer_core.evaluation.paired import SEEDS_FOR_AN_INTERVAL, decided
from fer_core.report.evidence import MODELS, Evidence
from fer_core.report.face_sheets import mistaken_model, shown_generators
from fer_core.report.plots import loss_is_cut
from fer_core.report.results import SECTIONS, neighbour_counts, neighbours_row

_PERCENT = "\N{NO-BREAK SPACE}%"
_IN_THE_DATASET = ("read", "unreadable", "duplicates kept", "train", "validation", "test", "unlabelled")
"""Counts of a dataset's card that are not of images left out; what is unreadable is named by itself."""
_COPIES = "copies of earlier images, pixel by pixel"
_SMALLEST_P = 0.001
_SIGNIFICANT = 0.05
_TEST_SET = (
    "The test images are judged more than once, at the selected epoch and at the last, here and for each model's card; "
    "none of these judgements chooses anything."
)


def percent(share: float | None) -> str:
    """A share of 1 as a percentage with two decimals."""
    return points(None if share is None else 100 * share)


def points(value: float | None) -> str:
    """A percentage with two decimals."""
    return "–" if value is None else f"{value:.2f}"


def fine(value: float | None) -> str:
    """A measure with three decimals."""
    return "–" if value is None else _minus(f"{value:.3f}")


def count(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def place(value: float) -> str:
    """A place on an axis: a count from a hundred on, else three digits of what may be a share."""
    return count(value) if value >= 100 else f"{value:.3g}"


def p_value(value: float) -> str:
    """A probability with three decimals, or that it is below the smallest of these."""
    return f"< {_SMALLEST_P}" if value < _SMALLEST_P else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: int | None) -> str:
    """Bytes as gigabytes."""
    return "–" if size is None else f"{size / 1e9:.2f} GB"


def signed(value: float, digits: int) -> str:
    """A number with its sign, a true minus."""
    return _minus(f"{value:+.{digits}f}")


def interval(bounds: Mapping[str, float] | None, digits: int) -> str:
    """Two bounds in brackets."""
    return "–" if bounds is None else f"[{signed(bounds['low'], digits)}, {signed(bounds['high'], digits)}]"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _unbroken(text: str) -> str:
    """Keep a line from ending inside a model's name."""
    for name in MODELS:
        text = text.replace(name, name.replace(" ", "\N{NO-BREAK SPACE}"))
    return text


def listed(words: list[str]) -> str:
    """Words as a sentence lists them."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "points": points,
    "fine": fine,
    "count": count,
    "place": place,
    "p_value": p_value,
    "duration": duration,
    "memory": memory,
    "signed": signed,
    "interval": interval,
    "listed": listed,
}


def captions(results: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The page's sentences by the name that its template knows them under."""
    return {
        "headlines": [_unbroken(sentence) for sentence in headlines(results)],
        "notices": [_unbroken(sentence) for sentence in _notices(results)],
        "left_out": _left_out(results["dataset"]["counts"]),
        "test_set": _TEST_SET,
        "clipping": CLIPPING if results["dataset"]["truth"] else "",
        "clipping_elsewhere": CLIPPING if any(e["judged_on"]["truth"] for e in results["on_other_data"]) else "",
        "on_other_data": [list(judged_on_in_words(e["judged_on"])) for e in results["on_other_data"]],
        "seeds": _seeds(results),
        "curves": _curves(evidence),
        "selected_epochs": _unbroken(_selected_epochs(results)),
        "confusion": _most_confused(evidence),
        "reliability": _calibration(results),
        "neighbour_rows": [neighbours_row(k) for k in neighbour_counts(evidence)],
        "measures": _measures(results["distribution_measures"]),
        "soft_labels": _soft_labels(results["soft_labels_against_truth"]),
        "paired": [_paired(pair) for pair in results["paired"]],
        "coverage": _coverage(results["au_coverage"]),
        "graph": _graph(results["graph"], "unlabelled" in results["au_coverage"]),
        "soft_label_seed": [g.seed for g in shown_generators(evidence)][:1],
        "mistakes": _mistakes(evidence),
    }


def headlines(results: dict[str, Any]) -> list[str]:
    """The findings, in the order in which a reader asks."""
    return [
        *_accuracies(results),
        *_nearness(results),
        *_soft_labels(results["soft_labels_against_truth"]),
        *_distillation(results),
        *_control(results),
    ]


def _left_out(counts: Mapping[str, int]) -> str:
    """How many images are not in the dataset, by reason, and how many copies are; a published test set has all."""
    names = {"duplicates dropped": _COPIES}
    out = [f"{count(n)} {names.get(name, name)}" for name, n in counts.items() if n and name not in _IN_THE_DATASET]
    kept = counts.get("duplicates kept", 0)
    told = [f"Left out: {', '.join(out)}."] if out else []
    return " ".join([*told, *([f"Kept: {count(kept)} {_COPIES}."] if kept else [])])


def _notices(results: dict[str, Any]) -> list[str]:
    """Sentences that a reader needs before any figure."""
    return [
        *_own_vectors(results["experiment"]["action_units"]["vectors"]),
        *_trained_otherwise(results["trained_otherwise"]),
        *_from_scratch(results["from_scratch"]),
    ]


def _own_vectors(path: str) -> list[str]:
    if not path:
        return []
    return [f"Vectors of {Path(path).name} stand in for action units here; where this page says AUs, it means them."]


def _from_scratch(models: Mapping[str, str]) -> list[str]:
    """Which models do not start where their recipe's source starts, and the settings that would have them do so."""
    if not models:
        return []
    settings = dict.fromkeys(f"--set {SECTIONS[name]}.weights=FILE" for name in models)
    return [
        f"Started from scratch: {listed(list(models))}. Their recipe's source starts from weights pre-trained on "
        f"{listed(list(dict.fromkeys(models.values())))}; {' '.join(settings)} gives them."
    ]


def _trained_otherwise(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which trainings do not follow the experiment's recipe, and in what."""
    if not models:
        return []
    told = []
    for model in models:
        settings = [f"{key.rstrip('_')} {had} instead of {said}" for key, (said, had) in model["settings"].items()]
        told.append(f"{model['name']} · seed {model['seed']} ({listed(settings)})")
    why = " A training that runs out of memory is tried again with half the batch and half the learning rate."
    halved = any("batch" in model["settings"] for model in models)
    return [f"Trained with other settings than this experiment's: {'; '.join(told)}.{why if halved else ''}"]


def _accuracies(results: dict[str, Any]) -> list[str]:
    rows, columns = results["table"]["rows"], results["table"]["columns"]
    there = [(rows["median"][i], name) for i, name in enumerate(columns) if rows["median"][i] is not None]
    if not there:
        return ["No model was evaluated."]
    words = [f"{name} {points(accuracy)}{_PERCENT}" for accuracy, name in sorted(there, reverse=True)]
    images = count(results["models"][0]["selected"]["test"]["images"])
    numbers = sorted({len(model["seeds"]) for model in results["models_over_seeds"]})
    over = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
    what = "Test accuracy, one seed" if numbers == [1] else f"Median test accuracy over {over} seeds"
    return [f"{what}, {images} images: {listed(words)}."]


def _nearness(results: dict[str, Any]) -> list[str]:
    """Does LDG-AUs come nearer to the true distribution than LDG?"""
    pairs = [p for p in results["paired"] if (p["first"], p["second"]) == ("LDG-AUs", "LDG")]
    if not pairs or pairs[0]["kl_difference"] is None:
        return []
    (pair,) = pairs
    figures, truth = pair["kl_difference"], results["dataset"]["truth"]
    verdict = {
        -1: f"LDG-AUs comes nearer to the {truth} than LDG",
        1: f"LDG-AUs stays farther from the {truth} than LDG",
        0: f"Whether LDG-AUs comes nearer to the {truth} than LDG is left open",
    }[decided(figures)]
    first, second = (_mean_divergence(results, pair[role], pair["seeds"]) for role in ("first", "second"))
    return [
        f"{verdict}: mean KL {fine(first)} against {fine(second)}, a difference of {signed(figures['mean'], 3)} "
        f"({_intervals(figures, 3, len(pair['seeds']))}).{_at_temperature(pair, results['models'])}"
    ]


def _at_temperature(pair: dict[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """The same with both calibrated, where that changes anything: to be less sure is no merit of neighbours."""
    names = (pair["first"], pair["second"])
    if all(m["temperature"] == 1 for m in models if m["name"] in names and m["seed"] in pair["seeds"]):
        return ""
    figures = pair["kl_difference_at_temperature"]
    verdict = {-1: "LDG-AUs is nearer", 1: "LDG-AUs is farther", 0: "this is left open"}[decided(figures)]
    return (
        f" With each at its temperature, so that none gains by being less sure, {verdict}: "
        f"{signed(figures['mean'], 3)} ({_intervals(figures, 3, len(pair['seeds']))})."
    )


def _mean_divergence(results: dict[str, Any], name: str, seeds: list[int]) -> float:
    models = [m for m in results["models"] if m["name"] == name and m["seed"] in seeds]
    return float(np.mean([m["selected"]["test"]["distribution"]["kl"] for m in models]))


def _distillation(results: dict[str, Any]) -> list[str]:
    return [_more_accurate(pair) for pair in results["paired"] if pair["first"].startswith("EF")]


def _more_accurate(pair: dict[str, Any]) -> str:
    first, second, figures = pair["first"], pair["second"], pair["accuracy_difference_points"]
    doubt = _intervals(figures, 2, len(pair["seeds"]))
    outcome = decided(figures)
    if outcome == 0:
        return (
            f"{first} and {second} cannot be distinguished by accuracy: {signed(figures['mean'], 2)} points ({doubt})."
        )
    more = "more" if outcome > 0 else "less"
    return f"{first} is {abs(figures['mean']):.2f} points {more} accurate than {second} ({doubt})."


def _intervals(figures: dict[str, Any], digits: int, seeds: int) -> str:
    """A difference's intervals, and what they are of."""
    text = f"{_range(figures['over_images'], digits)} over test images"
    if figures["over_seeds"] is None:
        return text
    return f"{text}, {_range(figures['over_seeds'], digits)} over {seeds} seeds"


def _range(bounds: Mapping[str, float], digits: int) -> str:
    return f"{signed(bounds['low'], digits)} to {signed(bounds['high'], digits)}"


def _control(results: dict[str, Any]) -> list[str]:
    if results["graph"]["control"] != "random":
        return []
    dealt = ", and the linear model's labels dealt out at random" if results["beside_linear_teacher"] else ""
    drawn = "neighbours were drawn at random, at the similarities of AU neighbours"
    return [f"This is the control experiment: {drawn}{dealt}."]


def _seeds(results: dict[str, Any]) -> str:
    """Tell what the intervals leave out, of pairs with few seeds in common."""
    few = sorted({len(pair["seeds"]) for pair in results["paired"]} & set(range(SEEDS_FOR_AN_INTERVAL)))
    if not few:
        return ""
    counted = f"{' or '.join(map(str, few))} seed{'s' if few[-1] > 1 else ''}"
    return (
        f"With {counted} the intervals are over test images alone: they do not tell how "
        f"much another training would change, for which it takes {SEEDS_FOR_AN_INTERVAL} seeds."
    )


def _curves(evidence: Evidence) -> str:
    ceiling = loss_is_cut(evidence) if evidence.models else None
    return "" if ceiling is None else f"Losses above {ceiling:.1f}, twice that of an even prediction, are cut off."


def _selected_epochs(results: dict[str, Any]) -> str:
    models = results["models_over_seeds"]
    words = [f"{m['name']} {', '.join(map(str, m['selected_epochs']))} of {m['epochs']}" for m in models]
    return f"Selected epochs by seed: {'; '.join(words)}." if words else ""


def _most_confused(evidence: Evidence) -> str:
    """The largest off-diagonal share of a row, of each model."""
    labels, sentences = evidence.dataset.card.labels, []
    for name in evidence.names():
        tests = [m.figures["selected"]["test"]["confusion"] for m in evidence.seeds_of(name)]
        counts = np.mean(tests, axis=0)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(shares, 0)
        row, column = np.unravel_index(shares.argmax(), shares.shape)
        told = f"{100 * shares[row, column]:.0f}{_PERCENT} of {labels[row]} as {labels[column]}"
        sentences.append(f"{name}: {told if shares.any() else 'none'}")
    return f"The most frequent confusion of each model: {'; '.join(sentences)}." if sentences else ""


def _calibration(results: dict[str, Any]) -> str:
    words = [_error_and_temperature(model) for model in results["models_over_seeds"]]
    return f"Expected calibration error on test: {'; '.join(words)}." if words else ""


def _error_and_temperature(model: dict[str, Any]) -> str:
    """The calibration error as trained and at the temperature, and which is the smaller."""
    before, after = model["calibration_error"], model["calibration_error_at_temperature"]
    said = f"{model['name']} {percent(before)}{_PERCENT}"
    if all(temperature == 1 for temperature in model["temperatures"]):
        return f"{said}, at a temperature of 1, which changes nothing"
    worse = ", which is worse" if after > before else ""
    return f"{said}, {percent(after)}{_PERCENT} at its temperature{worse}"


def _measures(measures: dict[str, Any] | None) -> str:
    """Say how good the uniform prediction looks by the most lenient metrics."""
    if measures is None:
        return ""
    even = next(row for row in measures["rows"] if row["name"] == "uniform")
    clark = min((row["clark"] for row in measures["rows"] if row["per_seed"]), default=None)
    best = "" if clark is None else f", and the best model's {fine(clark)}"
    return (
        "Read every figure beside the uniform prediction's, which knows nothing and looks deceptively good: its cosine "
        f"is {fine(even['cosine'])}, its Clark distance {fine(even['clark'])}{best}."
    )


def _soft_labels(against: dict[str, Any] | None) -> list[str]:
    if against is None:
        return []
    smoothing = next(row for row in against["rows"] if "share" in row)
    sentences = []
    for name, nearer in against["soft_labels_nearer_than_smoothing"].items():
        own = next(row for row in against["rows"] if row["name"] == name)
        sentences.append(
            f"The soft labels of {name} are {'nearer to' if nearer else 'farther from'} the {against['truth']} of the "
            f"training images than hard labels smoothed at their best (share {smoothing['share']:.2f}): "
            f"KL {fine(own['kl'])} against {fine(smoothing['kl'])}."
        )
    return sentences


def _paired(pair: dict[str, Any]) -> str:
    significant = sum(test["p"] < _SIGNIFICANT for test in pair["mcnemar"])
    tests = len(pair["mcnemar"])
    return (
        f"{pair['first']} against {pair['second']}: McNemar's test finds a difference at p < {_SIGNIFICANT} "
        f"in {significant} of {tests} seed{'s' if tests > 1 else ''}."
    )


def _coverage(coverage: dict[str, dict[str, int]]) -> str:
    words = [
        f"{count(c['usable'])} of {count(c['images'])} {split} images ({100 * c['usable'] / c['images']:.1f}{_PERCENT})"
        for split, c in coverage.items()
        if c["images"]
    ]
    return f"Usable action units: {listed(words)}." if words else ""


def _graph(graph: dict[str, Any], unlabelled: bool) -> list[str]:
    agreement = graph["label_agreement"]
    what = "neighbours drawn at random" if graph["control"] == "random" else "neighbours in AU space"
    copies = graph["identical_neighbours"]
    return [
        f"{count(graph['images'])} training images with {count(graph['distinct_vectors'])} distinct AU vectors are "
        f"linked to {graph['k']} neighbours each; σ² = {fine(graph['sigma_squared'])}; the search finds "
        f"{percent(graph['recall'])}{_PERCENT} of the true neighbours, by distance, {_measured_on(graph)}.",
        _agreement(agreement, what, "labelled " if unlabelled else ""),
        *([f"{percent(copies)}{_PERCENT} of the links join two files with the same pixels."] if copies else []),
    ]


def _agreement(agreement: dict[str, Any], what: str, labelled: str) -> str:
    if agreement["neighbours"] is None:
        return f"None of the {what} of a labelled image has a label, so how far labels agree is not known."
    return (
        f"{percent(agreement['neighbours'])}{_PERCENT} of the {labelled}{what} have the image's own hard label; "
        f"by chance it would be {percent(agreement['chance'])}{_PERCENT}."
    )


def _measured_on(graph: dict[str, Any]) -> str:
    whole = graph["recall_images"] == graph["images"]
    return "over all images" if whole else f"over a sample of {count(graph['recall_images'])} images"


def _mistakes(evidence: Evidence) -> str:
    model = mistaken_model(evidence)
    if model is None:
        return ""
    labels = evidence.dataset.labels()[evidence.dataset.rows("test")]
    wrong = model.probabilities.argmax(axis=1) != labels
    sure = wrong & (model.probabilities.max(axis=1) >= 0.9)
    return (
        f"{model.name}, seed {model.seed}, gets {count(wrong.sum())} of {count(len(labels))} test images wrong, "
        f"{count(sure.sum())} of them with a confidence of 90{_PERCENT} or more."
    )
