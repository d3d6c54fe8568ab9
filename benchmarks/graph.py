"""The graph over a million AU-like vectors, k = 4: ours, and Annoy as it comes, one process and one query at a time.

Ours is run twice, in processes of their own, so that memory and bytes can be compared. The reference answers a sample
of the queries, and its time for all is projected from that. Prints a table and writes `benchmarks/results/graph.json`.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from annoy import AnnoyIndex
from scipy.spatial import cKDTree
from writing import row, show, write_results

from fer_core.experiment import GraphSettings
from fer_core.graph.action_units import ActionUnits
from fer_core.graph.neighbours import link_neighbours
from fer_core.progress import reporter

K, DIMENSIONS, EXPRESSIONS = 4, 17, 7
REFERENCE_QUERIES, RECALL_QUERIES = 20_000, 500


def au_like(count: int) -> np.ndarray:
    """(count, 17) intensities in 0..5 by hundredths: expressions of some strength in noise, a sixth of them copies."""
    generator = np.random.default_rng(1)
    prototypes = np.where(generator.random((EXPRESSIONS, DIMENSIONS)) < 0.3, 2.0, 0.0)
    strength = generator.random((count, 1)) * prototypes[generator.integers(0, EXPRESSIONS, count)]
    vectors = np.clip(strength + generator.normal(0, 0.4, (count, DIMENSIONS)), 0, 5).round(2).astype(np.float32)
    copies = generator.choice(count, count // 6, replace=False)
    vectors[copies] = vectors[generator.integers(0, count, len(copies))]
    vectors[generator.choice(count, count // 50, replace=False)] = 0
    return vectors


def peak_of_all() -> list[float]:
    """Watches the proportional memory of this process and its children; the list holds the highest yet, in GB."""
    peak = [0.0]

    def watch() -> None:
        while True:
            children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()
            kilobytes = sum(_proportional(process) for process in ("self", *children))
            peak[0] = max(peak[0], kilobytes * 1024 / 1e9)
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    return peak


def _proportional(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (OSError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def ours(count: int) -> dict[str, Any]:
    """Seconds, memory, recall and bytes of the graph, in this process."""
    vectors = au_like(count)
    everyone = np.ones(count, bool)
    units = ActionUnits(tuple(f"AU{c}" for c in range(DIMENSIONS)), vectors, everyone, {})
    peak = peak_of_all()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch, reporter() as report:
        graph, card = link_neighbours(units, np.arange(count), GraphSettings(k=K), Path(scratch), report)
    seconds = time.perf_counter() - started
    content = graph.neighbours.tobytes() + graph.distance.tobytes() + graph.similarity.tobytes()
    return {
        "seconds": seconds,
        "gigabytes": peak[0],
        "gigabytes_of_one_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "recall": card.recall,
        "nodes": card.nodes_searched,
        "distinct": card.distinct_vectors,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def reference(count: int) -> dict[str, float]:
    """Seconds for all images, projected, and recall by distance of Annoy with 50 trees and its own search depth."""
    vectors = au_like(count)
    started = time.perf_counter()
    index = AnnoyIndex(DIMENSIONS, "euclidean")
    for item, vector in enumerate(vectors):
        index.add_item(item, vector)
    index.build(50, n_jobs=1)
    built = time.perf_counter() - started
    queries = np.random.default_rng(2).choice(count, min(count, REFERENCE_QUERIES), replace=False).tolist()
    started = time.perf_counter()
    found = [index.get_nns_by_item(query, K + 1, include_distances=True) for query in queries]
    answered = (time.perf_counter() - started) * count / len(queries)
    asked = queries[:RECALL_QUERIES]
    exact, _ = cKDTree(vectors).query(vectors[asked], k=K + 1, workers=-1)
    hits = []
    for query, (items, distance), limit in zip(asked, found[: len(asked)], exact[:, -1], strict=True):
        others = [apart for item, apart in zip(items, distance, strict=True) if item != query][:K]
        hits.append(sum(apart <= limit + 1e-4 for apart in others) / K)
    return {"seconds": built + answered, "recall": float(np.mean(hits))}


def in_a_process(what: str, count: int) -> dict[str, Any]:
    """Run a part of this benchmark by itself."""
    command = [sys.executable, __file__, "--count", str(count), "--part", what]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--part", choices=("ours", "reference"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps({"ours": ours, "reference": reference}[options.part](options.count)))
        return
    first, second, annoy = (in_a_process(part, options.count) for part in ("ours", "ours", "reference"))
    name = f"graph, {options.count:,} × {DIMENSIONS}, {first['distinct']:,} distinct, k = {K}"
    slower = max(first["seconds"], second["seconds"])
    rows = [
        row(name, slower / 60, 8, annoy["seconds"] / 60, judged="at most", unit="min", nodes=first["nodes"]),
        row("its recall by distance", first["recall"], 0.99, annoy["recall"], judged="at least"),
        row(
            "its memory, all processes together",
            max(first["gigabytes"], second["gigabytes"]),
            2,
            judged="at most",
            unit="GB",
        ),
        row("bytes differ between two runs", float(first["sha256"] != second["sha256"]), 0, judged="at most"),
    ]
    show(rows)
    write_results("graph", rows)


if __name__ == "__main__":
    main()
