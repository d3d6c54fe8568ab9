"""The benchmarks: the reference computes what ours does, and the fast paths what the slow ones do.

The GPU's benchmark is run whole, at tiny sizes, where nothing but torch, torchvision, numpy and pandas can be imported.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
FORBIDDEN = ("pydantic", "annoy", "prefect", "rich", "safetensors", "pyarrow", "typer", "matplotlib")
BLOCK = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ModuleNotFoundError(f"{{name}} is not there", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def trained(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The logits of a batch, after a backward pass and in training mode."""
    logits: torch.Tensor = model.train()(images)
    logits.square().sum().backward()
    return logits.detach()


def test_the_reference_network_computes_what_ours_does() -> None:
    """In float64: where a ReLU's input is so near 0 that rounding decides its sign, float32 is off by percents."""
    from reference import PublishedEfficientFace

    from fer_core.models.architectures import build

    ours, published = build("efficientface", 7, seed=3).double(), PublishedEfficientFace(7).double()
    published.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # The longest sum is over the places of the first convolution, 4 images of 32 × 32; n terms are rounded n times.
    rounding = 4 * 32 * 32 * 2.0**-53
    torch.testing.assert_close(trained(published, images), trained(ours, images), rtol=0, atol=rounding)
    pairs = list(zip(published.named_parameters(), ours.parameters(), strict=True))
    largest = max(float(theirs.grad.abs().max()) for (_, theirs), _ in pairs if theirs.grad is not None)
    for (name, theirs), parameter in pairs:
        torch.testing.assert_close(theirs.grad, parameter.grad, rtol=0, atol=rounding * largest, msg=name)
    torch.testing.assert_close(published.eval()(images), ours.eval()(images), rtol=0, atol=rounding)


def test_the_reference_reads_files_as_the_original_does(tmp_path: Path) -> None:
    from inputs import smooth_images
    from reference import image_loader, write_files

    paths = write_files(tmp_path, smooth_images(5))
    batches = [images for images, _ in image_loader(paths, 32, 4, torch.device("cpu"), workers=0)]
    assert [tuple(images.shape) for images in batches] == [(4, 3, 32, 32), (1, 3, 32, 32)]
    assert batches[0].dtype == torch.float32
    assert -4 < float(batches[0].min()) < float(batches[0].max()) < 4


def busy(seconds: float) -> Callable[[], object]:
    """Counts for some seconds."""
    return lambda: all(time.process_time() >= 0 for _ in iter(partial(passed, time.monotonic() + seconds), True))


def passed(moment: float) -> bool:
    return time.monotonic() >= moment


def test_a_kind_in_a_process_of_its_own_tells_its_own_seconds() -> None:
    from turns import elsewhere, take_turns

    with elsewhere(busy, 0.2) as call:
        taken = take_turns({"there": call, "here": lambda: None}, 2)
    assert len(taken["there"]) == 2
    for seconds in taken["there"]:
        assert seconds.clock >= 0.2
        assert seconds.processor > 0.005
    assert max(seconds.clock for seconds in taken["here"]) < 0.2


def failing() -> Callable[[], object]:
    raise SystemExit(1)


def test_a_kind_that_fails_in_its_process_is_waited_for_no_longer() -> None:
    from turns import elsewhere

    with pytest.raises(RuntimeError, match="failed there"), elsewhere(failing) as call:
        call()


def test_how_busy_the_gpu_is_counts_overlaps_once() -> None:
    from gpu import busy_share

    assert busy_share([(0, 4), (2, 3), (3, 5), (8, 10)]) == pytest.approx(0.7)
    assert busy_share([]) == 0


def test_rows_say_whether_the_target_is_met() -> None:
    from writing import row

    assert row("rate", 8, 4, 2, judged="times faster", unit="images/s")["ratio"] == 4
    assert row("rate", 7.9, 4, 2, judged="times faster", unit="images/s")["met"] is False
    assert row("time", 2, 4, 8, judged="times faster", unit="s")["met"] is True
    assert row("share", 95.1, 95, judged="at least", unit="%")["met"] is True
    assert row("seconds", 5.1, 5, judged="at most", unit="s")["met"] is False


def test_rows_are_shown_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import writing

    monkeypatch.setattr(writing, "RESULTS", tmp_path / "results")
    rows = [writing.row("an epoch", 2.0, 6, 14.0, judged="times faster", unit="s", rounds=3)]
    writing.show(rows)
    writing.write_results("epoch", rows, "a device")
    told = capsys.readouterr().out.splitlines()[-1]
    assert " ".join(told.split()) == "an epoch 14 s 2 s 7 ≥ 6 × yes"
    documents = json.loads((tmp_path / "results" / "epoch.json").read_text(encoding="utf-8"))
    assert documents["a device"]["rows"] == rows
    assert documents["a device"]["machine"].startswith("a device, ")
    assert documents["a device"]["commit"]


def test_results_of_two_kinds_of_processor_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import writing

    from fer_core.devices import processor_of

    monkeypatch.setattr(writing, "RESULTS", tmp_path)
    for rounds in (1, 2):
        writing.write_results("epoch", [writing.row("an epoch", 2.0, 6, 14.0, judged="times faster", rounds=rounds)])
    writing.write_results("epoch", [], "NVIDIA H100")
    documents = json.loads((tmp_path / "epoch.json").read_text(encoding="utf-8"))
    here = processor_of(torch.device("cpu")).kind
    assert list(documents) == [here, "NVIDIA H100"]
    assert [row["rounds"] for row in documents[here]["rows"]] == [2]


def test_the_table_has_a_column_for_each_kind_of_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import table
    import writing

    monkeypatch.setattr(writing, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "REASONS", {("student epoch", "AVX2"): "bound by memory"})
    table.main()
    assert "AVX2" not in capsys.readouterr().out
    epochs = {
        kind: writing.row(f"student epoch, {precision}", ours, 6, 14.0, judged="times faster", unit="s")
        for kind, precision, ours in (("AVX-512 + bfloat16", "bfloat16", 2.0), ("AVX2", "float32", 3.5))
    }
    for kind, row in epochs.items():
        writing.write_results("student", [row], kind)
    projected = writing.row("the paper's table", 10.0, None, 40.0, judged="times faster", unit="days")
    writing.write_results("paper_table", [projected], "AVX2")
    other = writing.row("something else", 3.0, 2, judged="at most", unit="s")
    writing.write_results("gpu", [other], "NVIDIA H100")
    table.main()
    shown = capsys.readouterr().out.splitlines()
    assert "| | AVX2 | AVX-512 + bfloat16 | NVIDIA H100 |" in shown
    assert (
        "| student epoch, float32 / student epoch, bfloat16 | 14 s → 3.5 s, 4 × (≥ 6 ×: no, bound by memory) "
        "| 14 s → 2 s, 7 × (≥ 6 ×: yes) |  |"
    ) in shown
    assert "| the paper's table | 40 days → 10 days, 4 × |  |  |" in shown
    assert "| something else |  |  | 3 s (≤ 2: no) |" in shown


def test_the_gpus_column_needs_torch_torchvision_numpy_and_pandas_alone(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")
    written = BENCHMARKS / "results" / "gpu.json"
    before = written.read_bytes() if written.exists() else None
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    refused = subprocess.run([sys.executable, "-c", "import rich"], env=environment, capture_output=True, text=True)
    assert "rich is not there" in refused.stderr
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--quick"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    for said in ("LDG-AUs step ÷ LDG step", "student epoch", "EfficientFace training step", "the paper's table"):
        assert said in done.stdout
    assert (written.read_bytes() if written.exists() else None) == before
