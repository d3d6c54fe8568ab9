"""What a machine multiplies by itself, by what it has and by what it is told to do without; and the precision taken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_core.devices import Precision, Processor, choose_precision, cpu_kind, warn_of_precision
from fer_core.experiment import bundled_experiments, load_experiment
from fer_core.models import Architecture
from openface.machine import granted_cores, usable_cores

ROOT = Path(__file__).parent.parent
ASK = """
import json, torch
from fer_core.devices import choose_precision, processor_of
found = processor_of(torch.device("cpu"))
print(json.dumps([found.kind, found.bfloat16, choose_precision("auto", "resnet18", 48, found)]))
"""
ZEN5 = {"avx2": True, "avx512_f": True, "avx512_bf16": True}
SAPPHIRE_RAPIDS = ZEN5 | {"amx_bf16": True}
SKYLAKE = {"avx2": True, "avx512_f": True}
ZEN3 = {"avx2": True}


@pytest.mark.parametrize(
    ("capabilities", "vectors", "environment", "kind"),
    [
        (ZEN5, "AVX512", {}, "AVX-512 + bfloat16"),
        (SAPPHIRE_RAPIDS, "AVX512", {}, "AVX-512 + AMX"),
        (SAPPHIRE_RAPIDS, "AVX512", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16"}, "AVX-512 + bfloat16"),
        (SAPPHIRE_RAPIDS, "AVX512", {"ONEDNN_MAX_CPU_ISA": "avx10_1_512_amx"}, "AVX-512 + AMX"),
        (ZEN5, "AVX512", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, "AVX-512"),
        (ZEN5, "AVX512", {"ONEDNN_MAX_CPU_ISA": "avx2"}, "AVX2"),
        (ZEN5, "AVX512", {"DNNL_MAX_CPU_ISA": "AVX2_VNNI_2"}, "AVX2"),
        (ZEN5, "AVX2", {}, "AVX2"),
        (ZEN5, "AVX512", {"ONEDNN_MAX_CPU_ISA": ""}, "AVX-512 + bfloat16"),
        (ZEN5, "AVX512", {"ONEDNN_MAX_CPU_ISA": "default"}, "AVX-512 + bfloat16"),
        (SKYLAKE, "AVX512", {}, "AVX-512"),
        (ZEN3, "AVX2", {}, "AVX2"),
    ],
)
def test_a_processors_kind_is_the_least_of_chip_and_limits(
    capabilities: dict[str, bool], vectors: str, environment: dict[str, str], kind: str
) -> None:
    assert cpu_kind(capabilities, vectors, environment) == kind


def test_an_older_or_other_processor_is_no_avx2() -> None:
    for capabilities, vectors, environment in (
        ({}, "DEFAULT", {}),
        (ZEN5, "DEFAULT", {}),
        (ZEN5, "AVX512", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
        ({"neon": True, "bf16": True}, "NEON", {}),
    ):
        assert "AVX" not in cpu_kind(capabilities, vectors, environment)


@pytest.mark.parametrize(
    "limits",
    [
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ATEN_CPU_CAPABILITY": "avx2"},
        {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    ],
)
def test_a_machine_that_plays_a_lesser_one_chooses_nothing_emulated(limits: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, cwd=ROOT, check=True, env=os.environ | limits
    )
    kind, native, precision = json.loads(done.stdout)
    assert kind in ("AVX2", "AVX-512", "ARM", "x86-64")
    assert (native, precision) == (False, "float32")


@pytest.mark.parametrize(
    ("native", "architecture", "size", "precision"),
    [
        (True, "resnet18", 48, "bfloat16"),
        (True, "resnet50", 224, "bfloat16"),
        (True, "efficientface", 224, "bfloat16"),
        (True, "efficientface", 64, "float32"),
        (False, "resnet18", 48, "float32"),
        (False, "efficientface", 224, "float32"),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_faster(
    native: bool, architecture: Architecture, size: int, precision: Precision
) -> None:
    processor = Processor("some", native, 2)
    assert choose_precision("auto", architecture, size, processor) == precision
    for wanted in ("float32", "bfloat16"):
        assert choose_precision(wanted, architecture, size, processor) == wanted  # type: ignore[arg-type]


def test_emulated_bfloat16_is_warned_of_with_its_factor() -> None:
    told = warn_of_precision("bfloat16", "resnet18", Processor("AVX2", False, 2))
    assert told == (
        "precision = bfloat16: AVX2 only emulates it, about 10 times slower than float32 for resnet18; "
        "precision = auto takes float32 here"
    )
    assert "7 times slower" in str(warn_of_precision("bfloat16", "efficientface", Processor("AVX2", False, 2)))
    unknown = str(warn_of_precision("bfloat16", "resnet18", Processor("NVIDIA GeForce GTX 1080 Ti", False, 2)))
    assert "GTX 1080 Ti only emulates it, slower" in unknown
    assert warn_of_precision("bfloat16", "resnet18", Processor("AVX-512 + bfloat16", True, 2)) is None
    assert warn_of_precision("auto", "resnet18", Processor("AVX2", False, 2)) is None


def test_every_recipe_that_comes_with_the_project_leaves_its_precision_to_the_machine() -> None:
    for name in bundled_experiments():
        experiment = load_experiment(name)
        assert {experiment.ldg.precision, experiment.sll.precision, experiment.distill.precision} == {"auto"}


def test_threads_of_torch_sleep_while_they_wait() -> None:
    """As the OpenMP library itself tells once it is loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"OMP_DISPLAY_ENV": "true"}
    code = "import fer_core.devices"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_memory_that_is_kept_is_not_asked_of_the_system_again() -> None:
    """Pages that a tensor of 64 MB takes anew at its tenth time: all of them, or next to none."""
    code = """
import resource, sys, torch
from fer_core.devices import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    pages = {}
    for way in ("kept", "as it comes"):
        done = subprocess.run([sys.executable, "-c", code, way], capture_output=True, text=True, cwd=ROOT, check=True)
        pages[way] = int(done.stdout)
    assert pages["kept"] < 100 < pages["as it comes"]


def test_cores_are_those_that_affinity_leaves() -> None:
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"import os; from openface.machine import usable_cores; {one}; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "1\n"
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_a_quota_of_any_group_around_the_process_counts(tmp_path: Path) -> None:
    """Version 2: the process's own group grants all, the one around it a core and a half."""
    (tmp_path / "pod" / "box").mkdir(parents=True)
    (tmp_path / "pod" / "box" / "cpu.max").write_text("max 100000\n")
    (tmp_path / "pod" / "cpu.max").write_text("150000 100000\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/pod/box\n")
    assert list(granted_cores(own, tmp_path)) == [1.5]


def test_a_quota_of_the_first_version_of_groups_counts(tmp_path: Path) -> None:
    group = tmp_path / "cpu,cpuacct" / "box"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("300000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu,cpuacct" / "cpu.cfs_period_us").write_text("100000\n")
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n")
    assert list(granted_cores(own, tmp_path)) == [3.0]


def test_without_control_groups_every_core_counts(tmp_path: Path) -> None:
    assert list(granted_cores(tmp_path / "nowhere", tmp_path)) == []


@pytest.mark.parametrize(("machine", "flag"), [("x86_64", ["-march=x86-64-v3"]), ("aarch64", []), ("arm64", [])])
def test_the_trainers_image_is_built_on_arm_too(machine: str, flag: list[str], tmp_path: Path) -> None:
    """Its compiler knows no x86, and refused to compile annoy for it."""
    (uname := tmp_path / "uname").write_text(f"#!/bin/sh\necho {machine}\n")
    uname.chmod(0o755)
    lines = (ROOT / "docker" / "trainer.Dockerfile").read_text().splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.lstrip().startswith("ANNOY_COMPILER_ARGS=")]
    command = f"{lines[place - 1]}\n{lines[place]}\nprintenv ANNOY_COMPILER_ARGS"
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(["sh", "-c", command], env=path, capture_output=True, text=True, check=True).stdout
    assert said.startswith("-O3,")
    assert [argument for argument in said.strip().split(",") if "march" in argument] == flag
