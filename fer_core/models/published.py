"""Read the weights that the original authors published: EfficientFace, ResNets on MS-Celeb-1M, and their LDG.

Their files are what `torch.save` wrote of a dictionary that holds more than tensors: the optimiser, and a
`RecorderMeter` of their training script. Nothing of a file is run: torch's own loader of weights rebuilds tensors and
plain containers, and every class that it does not know becomes a `Foreign`, made from anything and doing nothing.

References:
    github.com/zengqunzhao/EfficientFace: `README.md` and `main.py` for RAF-DB's class order and normalisation;
    `test&vis/test.py` for AffectNet's and CAER-S's normalisation, `test&vis/visualization.py` for the order of classes.
    AffectNet's own numbering has the same seven in the same order, and contempt as its eighth.
"""

import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import torch
from torch import Tensor, nn

from fer_core.errors import CheckpointError
from fer_core.models import Architecture
from fer_core.models.architectures import build
from openface.matching import emotion_of

TrainedOn = Literal["rafdb", "affectnet7", "affectnet8", "caers"]
"""The datasets that weights were published for."""
PUBLISHED_ORDER = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""The class order of EfficientFace and its LDG, which is not RAF-DB's; a head of seven has the first seven."""
_ZIP, _PICKLE = b"PK", b"\x80"
"""First bytes of the two formats of torch.save."""
_WRAPPED = re.compile(r"^((module|_orig_mod)\.)+")
"""The prefixes that DataParallel and torch.compile add to names; twice if a loaded model was wrapped again."""
_MOST_WRAPPERS = 4
_CLASSES = ("class_to_idx", "idx_to_class", "classes", "class_names", "labels")
"""Keys under which training scripts write the classes of the head's rows."""
_COUNTER = ".num_batches_tracked"
"""Batch normalisation's counter. Converters and torch before 0.4.1 do not write it, and no prediction needs it."""
_NEWEST_PICKLE = 3
"""The newest protocol that torch's loader of weights reads; torch.save writes 2 unless told otherwise."""
_PICKLES_BEFORE_WEIGHTS = 3
"""Those of the older format: a magic number, its version, and the machine it was written on."""
_OF_TORCHSCRIPT = "constants.pkl"
"""A record that torch.jit.save writes, and torch.save does not."""
_SAVE = "save the weights alone with torch.save(model.state_dict(), FILE)"
_MARK = "("
"""Stands for a mark on a pickle's stack; no name is like it."""
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    AssertionError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
)
"""Errors that torch raises for truncated or malicious files."""


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset of the authors and their normalisation: by channel, pixels in 0..1."""

    title: str
    source: str
    """As licences know it."""
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_AFFECTNET = (0.55391484, 0.43522123, 0.3821877), (0.24837189, 0.21625527, 0.20221159)
PUBLISHED: Mapping[TrainedOn, PublishedDataset] = {
    "rafdb": PublishedDataset(
        "RAF-DB", "rafdb", 7, (0.57535914, 0.44928582, 0.40079932), (0.20735591, 0.18981615, 0.18132027)
    ),
    "affectnet7": PublishedDataset("AffectNet-7", "affectnet", 7, *_AFFECTNET),
    "affectnet8": PublishedDataset("AffectNet-8", "affectnet", 8, *_AFFECTNET),
    "caers": PublishedDataset(
        "CAER-S", "caers", 7, (0.35964426, 0.22359873, 0.19040863), (0.15188067, 0.11678473, 0.1103445)
    ),
}


class Foreign:
    """Stands in for any class or function that a file names; it ignores its arguments."""

    def __new__(cls, *_: object, **__: object) -> "Foreign":
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> "Foreign":
        """Stand in for a method of a class that the file names, too."""
        return self

    def __eq__(self, other: object) -> bool:
        # torch asks by this whether what is to be called is one of the stand-ins that it was given.
        return other is Foreign or other is self

    __hash__ = object.__hash__


class ForeignDict(Foreign):
    """Stands in for a class that the file fills as a dictionary, such as a configuration's."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


class ForeignList(Foreign):
    """Stands in for a class that the file fills as a list."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return []


_FILLS: Mapping[str, type[Foreign]] = {
    "SETITEM": ForeignDict,
    "SETITEMS": ForeignDict,
    "APPEND": ForeignList,
    "APPENDS": ForeignList,
}
"""A pickle's ways of filling what it has made."""


def load_published(path: Path, model: nn.Module, labels: tuple[str, ...]) -> bool:
    """Load a published file into `model`, its head reordered into `labels`, or left as it is where it cannot fit.

    The files are dictionaries with `state_dict`, whose keys begin with `module.`. Heads of seven or eight rows are in
    PUBLISHED_ORDER, unless the file names its classes; any other head, such as MS-Celeb-1M's 12,666 identities, is not
    taken over.

    Returns:
        Whether the head was taken over.

    Raises:
        CheckpointError: the file is missing, holds no weights, or those of another architecture.
    """
    weights, named = read_published(path)
    head = {name: weights.pop(name) for name in list(weights) if name.startswith("fc.")}
    own = model.state_dict()
    if head and head.keys() != {name for name in own if name.startswith("fc.")}:
        raise CheckpointError(f"{path}: its head is {' and '.join(sorted(head))} alone; give the whole of the weights")
    looked_at = {name for name in own.keys() | weights.keys() if not name.startswith("fc.")}
    wrong = _differing(own, weights)
    if wrong:
        found = next((name for name in get_args(Architecture) if not _differing(_shapes(name), weights)), None)
        raise CheckpointError(
            f"{path}: not weights of {type(model).__name__} "
            f"({len(wrong)} of {len(looked_at)} entries differ, {wrong[0]} first)"
            + (f"; they are those of {found}" if found else "")
        )
    order = named or PUBLISHED_ORDER[: len(labels)]
    fits = sorted(labels) == sorted(order) and head.get("fc.weight", torch.empty(0)).shape == own["fc.weight"].shape
    if fits:
        rows = [order.index(label) for label in labels]
        head = {name: tensor[rows] for name, tensor in head.items()}
    model.load_state_dict({**own, **weights, **(head if fits else {})})
    return fits


def read_published(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a published file by name, without what wrappers put before it, and the classes that it names.

    Nothing of the file is run. Classes are those of the head's rows in order, emotions by our names; mostly there are
    none.

    Raises:
        CheckpointError: it is missing, was not written by torch.save, is damaged, or holds no finite weights.
    """
    content = _content(path)
    weights = _weights_in(path, content)
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path}: holds no state_dict; of a whole model, {_SAVE}")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()):
        raise CheckpointError(f"{path}: its state_dict holds more than tensors")
    _refuse_what_is_not_there(path, weights)
    spoilt = next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None)
    if spoilt is not None:
        raise CheckpointError(f"{path}: {spoilt} holds values that are no finite numbers; the training had diverged")
    return _unwrapped({_WRAPPED.sub("", name): tensor for name, tensor in weights.items()}), _classes_in(content)


def _content(path: Path) -> object:
    """What torch.save was given, with stand-ins for what is no tensor and no plain container."""
    if path.exists() and not path.is_file():  # A pipe would be waited for.
        raise CheckpointError(f"{path}: not a file; name a file of weights")
    try:
        with path.open("rb") as file:
            stand_ins = [(stand_in, name) for name, stand_in in _named_in(path, file).items()]
        # What torch knows itself it takes before these, and modules such as `os` it refuses in spite of them.
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            # Protocol 3 is read in full; what a newer one has more of is refused below.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}; name a file of weights") from error
    except CheckpointError:
        raise
    except _DAMAGE as error:
        raise CheckpointError(f"{path}: {_why_not_opened(path, error)}") from error


def _classes_in(content: object) -> tuple[str, ...]:
    """The classes that a script wrote beside the weights, in order; () where it wrote none, or numbers alone."""
    found = content if isinstance(content, dict) else {}
    for words in (_in_order(found.get(key)) for key in _CLASSES):
        if any(map(emotion_of, words)) and len(set(words)) == len(words):
            return tuple(emotion_of(word) or word for word in words)
    return ()


def _in_order(said: object) -> list[str]:
    """The words of a list, or of a dictionary from words to numbers or from numbers to words."""
    pairs = list(said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list | tuple) else ())
    numbered = [(place, word) if isinstance(word, str) else (word, place) for place, word in pairs]
    if not all(isinstance(word, str) and str(place).isdigit() for place, word in numbered):
        return []
    return [word for _, word in sorted(numbered, key=lambda pair: int(pair[0]))]


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the attributes of wrappers that all names begin with, such as Lightning's `model.`."""
    for _ in range(_MOST_WRAPPERS):
        if len({name.partition(".")[0] for name in weights}) > 1 or not all("." in name for name in weights):
            break
        weights = {_WRAPPED.sub("", name.partition(".")[2]): tensor for name, tensor in weights.items()}
    return weights


def _refuse_what_is_not_there(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse tensors of which the file holds but a part: a few bytes can claim any size, and looking at it takes that.

    Raises:
        CheckpointError: one is a view that repeats what is stored, or is sparse, or larger than the file.
    """
    held = path.stat().st_size
    for name, tensor in weights.items():
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        stored = min(held, tensor.untyped_storage().nbytes()) if is_plain else 0
        if not is_plain or tensor.numel() * tensor.element_size() > stored:
            raise CheckpointError(f"{path}: it does not hold all of {name}; save its tensors as .cpu().contiguous()")


def _why_not_opened(path: Path, error: BaseException) -> str:
    protocol = _protocol_of(path)
    if protocol > _NEWEST_PICKLE:
        return (
            f"written with pickle protocol {protocol}, which is not read without running the file; if you trust it, "
            "write it again with torch.save(torch.load(FILE, weights_only=False), FILE)"
        )
    return f"damaged, or more than weights, so it is not opened ({_first(error)})"


def _protocol_of(path: Path) -> int:
    """The pickle protocol that a file says it is written with; 0 where it says none."""
    try:
        with path.open("rb") as file:
            begins = file.read(2)
            if begins == _ZIP:
                with zipfile.ZipFile(path) as archive:
                    record = next(name for name in archive.namelist() if name.split("/")[-1] == "data.pkl")
                    begins = archive.read(record)[:2]
    except (OSError, zipfile.BadZipFile, StopIteration, RuntimeError):
        return 0
    return begins[1] if begins[:1] == _PICKLE and len(begins) == len(_ZIP) else 0


def _weights_in(path: Path, content: object) -> object:
    """Find the tensors: `state_dict`, the only dictionary of tensors under another name, or the file itself.

    Raises:
        CheckpointError: there are several such of one network, as where a running mean of weights (EMA) is beside them.
    """
    if not isinstance(content, dict):
        return None
    named = {key: value for key, value in content.items() if isinstance(value, dict) and value}
    of_tensors = {key: v for key, v in named.items() if all(isinstance(tensor, Tensor) for tensor in v.values())}
    names = [frozenset(_WRAPPED.sub("", str(name)) for name in value) for value in of_tensors.values()]
    if len(set(names)) < len(names):
        raise CheckpointError(
            f"{path}: holds several weights of one network ({', '.join(map(str, of_tensors))}); save those that you "
            "mean alone"
        )
    if "state_dict" in content:
        return content["state_dict"]
    return next(iter(of_tensors.values())) if len(of_tensors) == 1 else content


def _named_in(path: Path, file: BinaryIO) -> dict[str, type[Foreign]]:
    """What stands in for each class and function that a file's pickle names, read off its opcodes alone."""
    begins = file.read(9)
    file.seek(0)
    if begins.startswith(_ZIP):
        with zipfile.ZipFile(file) as archive:
            if any(name.split("/")[-1] == _OF_TORCHSCRIPT for name in archive.namelist()):
                raise CheckpointError(
                    f"{path}: a TorchScript model, with its code; load it with torch.jit.load, and {_SAVE}"
                )
            # torch makes room for each record before anybody sees what it says.
            if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
                raise CheckpointError(
                    f"{path}: its archive is packed; unpack it, and pack it again without compression"
                )
            (record,) = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
            with archive.open(record) as pickled:
                return _stand_ins(pickled)
    # safetensors begins with the length of its JSON, whose first byte may be a pickle's by chance.
    if not begins.startswith(_PICKLE) or begins.endswith(b"{"):
        raise CheckpointError(f"{path}: not a file that torch.save wrote, so not the original authors'")
    for _ in range(_PICKLES_BEFORE_WEIGHTS):
        for _ in pickletools.genops(file):
            pass
    return _stand_ins(file)


def _stand_ins(pickled: object) -> dict[str, type[Foreign]]:
    """A stand-in for each name, of the kind that the pickle fills it as.

    Follows the names alone through the pickle's stack and memo; None is anything else.
    """
    found: dict[str, type[Foreign]] = {}
    stack: list[str | None] = []
    memo: dict[object, str | None] = {}
    for opcode, argument, _ in pickletools.genops(pickled):  # type: ignore[arg-type]
        taken = _pop(stack, opcode)
        made: list[str | None] = [None] * len(opcode.stack_after)
        if opcode.name == "GLOBAL":
            # Older pickles call it as Python 2 did; torch looks for today's name.
            module, _, called = str(argument).partition(" ")
            name = ".".join(NAME_MAPPING.get((module, called), (IMPORT_MAPPING.get(module, module), called)))
            found.setdefault(name, Foreign)
            made = [name]
        elif opcode.name == "MARK":
            made = [_MARK]
        elif opcode.name in ("NEWOBJ", "REDUCE", "BUILD", *_FILLS):
            made = taken[:1]  # A name's instance goes by that name.
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            made = [memo[argument]]
        if opcode.name in _FILLS and made[0] is not None:
            found[made[0]] = _FILLS[opcode.name]
        stack += made
    return found


def _pop(stack: list[str | None], opcode: pickletools.OpcodeInfo) -> list[str | None]:
    """Take from the stack what an opcode takes, the lowest first."""
    before = opcode.stack_before
    taken: list[str | None] = []
    if pickletools.markobject in before:
        while (top := stack.pop()) != _MARK:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    taken += [stack.pop() for _ in before]
    return taken[::-1]


def _shapes(architecture: Architecture) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return build(architecture, len(PUBLISHED_ORDER), seed=0).state_dict()


def _differing(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Entries that one lacks, or whose shapes differ; neither the head nor a lack of batches' counts is looked at."""
    names = {name for name in own.keys() | weights.keys() if not name.startswith("fc.")}
    names -= {name for name in own.keys() - weights.keys() if name.endswith(_COUNTER)}
    return sorted(n for n in names if n not in own or n not in weights or own[n].shape != weights[n].shape)


def _first(error: BaseException) -> str:
    """The line that says what is wrong, without the advice and the colours that torch puts around it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).rpartition("WeightsUnpickler error:")[2]
    return (text.strip().splitlines() or [type(error).__name__])[0][:120]
