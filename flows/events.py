"""Events of a running step: the JSON lines of `fer_core.progress`, parsed."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from fer_core.progress import metrics_in_words

_EPOCH = re.compile(r"epoch (\d+) of (\d+)")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of `what` are finished."""

    what: str
    done: int
    total: int

    def of_step(self) -> tuple[int, int]:
        """Done and total over all the epochs of the step, where `what` says which of how many this is."""
        if epoch := _EPOCH.search(self.what):
            number, epochs = map(int, epoch.groups())
            return (number - 1) * self.total + self.done, epochs * self.total
        return self.done, self.total

    def within(self, step: str) -> str:
        """`what` without the parts that the step's name says already."""
        return " · ".join(part for part in self.what.split(" · ") if part not in step)


@dataclass(frozen=True)
class Metrics:
    """Figures of a finished part, an epoch's say."""

    values: dict[str, Any]

    def __str__(self) -> str:
        """In a line, without what the step's name says already."""
        return metrics_in_words({name: v for name, v in self.values.items() if name not in ("model", "seed")})


@dataclass(frozen=True)
class Note:
    """A sentence for the log."""

    text: str


Event = Progress | Metrics | Note


def event_line(event: Event) -> str:
    """The line that `parse_event` reads."""
    match event:
        case Progress():
            return json.dumps({"event": "progress", **asdict(event)})
        case Metrics(values):
            return json.dumps({"event": "metrics", **values})
        case Note(text):
            return json.dumps({"event": "note", "text": text})


def parse_event(line: str) -> Event:
    """The event in a line that a step printed; a line that is none of ours is a note."""
    try:
        fields = json.loads(line)
        match fields.pop("event"):
            case "progress":
                return Progress(str(fields["what"]), int(fields["done"]), int(fields["total"]))
            case "metrics":
                return Metrics(fields)
            case "note":
                return Note(str(fields["text"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Note(line.rstrip())
