"""Device and precision: the one place that knows the hardware. Needs torch alone."""

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fer_core.errors import TrainingError
from fer_core.models import Architecture
from openface.machine import usable_cores

Precision = Literal["float32", "bfloat16"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Numbers of glibc's <malloc.h>."""
_CUDA_WITH_BFLOAT16 = (8, 0)
"""The compute capability, Ampere's, from which products of bfloat16 are the hardware's own."""
_MULTIPLY_BFLOAT16 = ("AVX-512 + bfloat16", "AVX-512 + AMX")
_ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")

# Measured by benchmarks/precision.py: a training step on one thread, over the same in float32.
_FASTER_FROM: Mapping[Architecture, int] = {"resnet18": 0, "resnet50": 0, "efficientface": 112}
"""Input size in pixels from which bfloat16 is faster on a processor that multiplies it: ResNets .59 to .69 of float32's
time from 48 px on; EfficientFace 1.07 at 48, 1.00 at 64, .88 at 112 and .73 at 224 px (AMD Zen 5)."""
_TIMES_SLOWER: Mapping[str, Mapping[Architecture, float]] = {
    "AVX2": {"resnet18": 10, "resnet50": 14, "efficientface": 7},
    "AVX-512": {"resnet18": 1.6, "resnet50": 1.6, "efficientface": 1.4},
}
"""What emulated bfloat16 takes over float32: AVX2 on AMD Zen 3; ResNet-50, and AVX-512, on a Zen 5 held to it."""


@dataclass(frozen=True)
class Processor:
    """A device's arithmetic."""

    kind: str
    """For tables and messages, such as "AVX2", "AVX-512 + bfloat16" or "NVIDIA H100"."""
    bfloat16: bool
    """True where products of bfloat16 are the hardware's own and not emulated."""
    cores: int
    """Cores of the CPU that this process may use."""


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to run on; `auto` is the GPU where there is one.

    Raises:
        TrainingError: a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device = cuda: torch sees no GPU here; check the driver, or set run.device=cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def processor_of(device: torch.device) -> Processor:
    """The device's processor as it may be used.

    oneDNN's and ATen's own variables, ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY, make a processor play a lesser one.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= _CUDA_WITH_BFLOAT16
        return Processor(torch.cuda.get_device_name(device), native, usable_cores())
    kind = cpu_kind(torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability(), os.environ)
    return Processor(kind, kind in _MULTIPLY_BFLOAT16, usable_cores())


def cpu_kind(capabilities: Mapping[str, Any], vectors: str, environment: Mapping[str, str]) -> str:
    """A CPU's kind in a word, the least of what the chip has, what ATen takes of it and what oneDNN may.

    Args:
        capabilities: what torch finds in the chip.
        vectors: ATen's choice: "AVX512", "AVX2", or another of an older or a different processor.
        environment: variables, of which those that limit oneDNN count.
    """
    limit = next((environment[name].strip().upper() for name in _ISA_LIMITS if environment.get(name)), "ALL")
    if not capabilities.get("avx2") or vectors not in ("AVX2", "AVX512") or limit in ("SSE41", "AVX"):
        return {"AMD64": "x86-64", "x86_64": "x86-64", "aarch64": "ARM", "arm64": "ARM"}.get(
            platform.machine(), platform.machine()
        )
    if not capabilities.get("avx512_f") or vectors == "AVX2" or limit.startswith("AVX2"):
        return "AVX2"
    if limit in ("AVX512_CORE", "AVX512_CORE_VNNI"):
        return "AVX-512"
    if capabilities.get("amx_bf16") and (limit in ("ALL", "DEFAULT") or "AMX" in limit):
        return "AVX-512 + AMX"
    return "AVX-512 + bfloat16" if capabilities.get("avx512_bf16") else "AVX-512"


def choose_precision(
    wanted: Literal["auto", "float32", "bfloat16"], architecture: Architecture, input_size: int, processor: Processor
) -> Precision:
    """The precision to train in; `auto` is bfloat16 where the processor multiplies it and it was measured to be faster.

    Args:
        input_size: side of the network's input in pixels.
    """
    if wanted != "auto":
        return wanted
    return "bfloat16" if processor.bfloat16 and input_size >= _FASTER_FROM[architecture] else "float32"


def warn_of_precision(wanted: str, architecture: Architecture, processor: Processor) -> str | None:
    """A line about bfloat16 that was asked for where it is emulated, and how many times slower that is; else None."""
    if wanted != "bfloat16" or processor.bfloat16:
        return None
    factor = _TIMES_SLOWER.get(processor.kind, {}).get(architecture)
    times = "" if factor is None else f"about {factor:g} times "
    return (
        f"precision = bfloat16: {processor.kind} only emulates it, {times}slower than float32 for {architecture}; "
        "precision = auto takes float32 here"
    )


def multiplies_faster_than_it_convolves(processor: Processor, precision: Precision) -> bool:
    """Tell whether convolutions of many channels and small maps train faster as matrix products.

    So it is in float32 on AVX2, where oneDNN has no kernel of its own for the weights' gradient of the widest. Measured
    by benchmarks/small_maps.py on an AMD Zen 3: a step of ResNet-18 at 48 px is 1.3 times as fast, one of ResNet-50 at
    112 px 1.1, one of EfficientFace 1.1 at 48 px and 1.04 at 224. Other processors were not measured.
    """
    return processor.kind == "AVX2" and precision == "float32"


def dtype_of(precision: Precision) -> torch.dtype:
    """The type of a network's input in this precision."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def mixed_precision(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where that is the precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def exact_inference() -> Iterator[None]:
    """Inference in which a GPU's convolutions keep all of float32's bits: a checkpoint predicts the same everywhere.

    Torch by itself lets them round their inputs to TF32's ten bits.
    """
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free for the next ones, instead of handing it back to the system.

    Every page of a tensor of 32 MB or more would come from the system anew, which on a CPU is a tenth of a training
    step. Elsewhere than with glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20)):
            mallopt(option, value)
