"""`fer store`: look into the store that machines share, clear it, and fetch a report from it."""

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fer_core.paths import whole_path
from flows.lease import latest
from flows.shared_place import STORE, StoreError
from flows.store import FILES, WORKERS, Published, Store, open_store

_HOURS_KEPT = 24.0
"""The artifacts of a run under way are in no report yet."""
_SECONDS_OF_SILENCE = 3600.0
"""The holder of a lease counts as dead after so long without a write. One look from outside has only clocks to compare,
and these may differ by minutes."""

Place = Annotated[
    str | None, typer.Option("--store", metavar="PLACE", help="A folder, or s3://bucket/folder; FER_STORE if not said.")
]


def store_app() -> typer.Typer:
    """The three commands."""
    app = typer.Typer(help="Look into the store that machines share, clear it, fetch from it.", no_args_is_help=True)
    app.command("ls", help="Artifacts that are there, and what is being made.")(list_artifacts)
    app.command("gc", help="Delete what no report was made from, and what broke off.")(collect_garbage)
    app.command("pull", help="Fetch a report, and say where it is.")(pull)
    return app


def list_artifacts(place: Place = None) -> None:
    """One line each."""
    store = _store(place)
    there = sorted(store.artifacts(), key=lambda one: (one.step, one.fingerprint))
    used = referred_to(there)
    table = Table("step", "fingerprint", "MB", "in a report")
    for one in there:
        table.add_row(one.step, one.fingerprint, f"{one.size / 1e6:,.1f}", "yes" if _name(one) in used else "no")
    Console().print(table)
    print(f"{len(there)} artifacts, {sum(one.size for one in there) / 1e9:.2f} GB in {store.place}")
    for room in sorted(set(store.rooms()) - {_name(one) for one in there}):
        _tell_of_unpublished(store, room)


def collect_garbage(
    place: Place = None,
    hours: Annotated[
        float, typer.Option("--older", metavar="HOURS", min=0.0, help="Only what is older than this.")
    ] = _HOURS_KEPT,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would go.")] = False,
) -> None:
    """Say what goes; delete it with `--yes`."""
    store = _store(place)
    rooms = unused_rooms(store, hours)
    unused = rooms | leftovers(store, hours, set(rooms))
    for name, size in unused.items():
        print(f"{'deleted' if yes else 'would go'}: {name} · {size / 1e6:,.1f} MB")
        if yes and name in rooms:
            store.remove_room(name)
        elif yes:
            store.remove(name)
    told = "deleted" if yes else "would go; delete it with --yes"
    print(f"{len(unused)} folders and files, {sum(unused.values()) / 1e9:.2f} GB: {told}")


def pull(
    report: Annotated[str, typer.Argument(metavar="REPORT", help="Its fingerprint, or `latest`.")] = "latest",
    place: Place = None,
    artifacts: Annotated[Path, typer.Option("--artifacts", metavar="DIR", help="Where to.")] = Path("artifacts"),
) -> None:
    """Fetch it."""
    store = _store(place)
    reports = [name for name in store.names_in("report") if store.has("report", name)]
    if not reports:
        raise StoreError(f"{store.place}: no report in it; see `fer store ls`")
    chosen = min(reports, key=lambda name: store.age(f"report/{name}")) if report == "latest" else report
    if chosen not in reports:
        raise StoreError(f"{report}: no report in {store.place}; there are {', '.join(reports)}")
    found = store.fetch("report", chosen, whole_path(artifacts))
    assert found is not None
    print(found.file("index.html").as_uri())


def referred_to(there: Iterable[Published]) -> set[str]:
    """STEP/FINGERPRINT of the reports, and of what they were made from, and so on."""
    made_from: Mapping[str, tuple[str, ...]] = {_name(one): one.made_from for one in there}
    used, left = set[str](), [name for name in made_from if name.startswith("report/")]
    while left:
        name = left.pop()
        if name not in used:
            used.add(name)
            left += made_from.get(name, ())
    return used


def unused_rooms(store: Store, hours: float) -> dict[str, int]:
    """Bytes of each artifact, or beginning of one, that is old, that no report refers to, and that nobody is making.

    And of each file of a user's that is old: whoever sends a step that reads it brings it again.
    """
    used = referred_to(store.artifacts())
    rooms = [room for room in _all_rooms(store) if room not in used]
    return {room: store.size(room) for room in rooms if _is_old(store, room, hours) and not _is_being_made(store, room)}


def leftovers(store: Store, hours: float, but: Container[str] = ()) -> dict[str, int]:
    """Bytes of what is old and lies beside an upload that counts: others that broke off, and a dead machine's leases.

    And of what machines said of themselves that work no more: who works says it again every few seconds.

    Args:
        but: rooms that are not looked into.
    """
    rooms = [room for room in _all_rooms(store) if room not in but]
    names = [name for room in rooms for name in store.beside_published(room)]
    names += [f"{WORKERS}/{name}" for name in store.names_in(WORKERS)]
    return {name: store.size(name) for name in names if _is_old(store, name, hours)}


def _name(one: Published) -> str:
    return f"{one.step}/{one.fingerprint}"


def _all_rooms(store: Store) -> list[str]:
    return [*store.rooms(), *(f"{FILES}/{name}" for name in store.names_in(FILES))]


def _is_old(store: Store, name: str, hours: float) -> bool:
    return store.age(name) >= hours * 3600.0


def _is_being_made(store: Store, room: str) -> bool:
    """Tell whether somebody holds its lease and gives signs of life: a holder beats every few seconds."""
    return not latest(store, room).released and store.age(room) < _SECONDS_OF_SILENCE


def _tell_of_unpublished(store: Store, room: str) -> None:
    """Say who makes it, or made it until it died."""
    holder = latest(store, room)
    if holder.released:
        return
    if _is_being_made(store, room):
        print(f"being made: {room} by {holder.owner}")
    else:
        print(f"broke off: {room} by {holder.owner}, no sign for {store.age(room) / 3600.0:,.0f} hours")


def _store(place: str | None) -> Store:
    store = open_store(place)
    if store is None:
        raise StoreError(f"no store: set {STORE}, or give --store, a folder or s3://bucket/folder")
    return store
