"""Prefect's engine, which runs a flow in a process of its own; here it reads no result and opens no storage.

Whoever may use the API may give a run a state with a result: where it is kept, and the serialiser that reads it, pickle
for one. Prefect would read it, and so run the code that it holds. They may also name a place where results of every run
are to be kept, and Prefect would write there. Our flows keep no results: steps pass on artifacts, on disk.
"""

import runpy
from typing import Any, NoReturn

from prefect import results
from prefect.serializers import CompressedSerializer, JSONSerializer, PickleSerializer


class ResultRefused(Exception):
    """The API gave a run a result, or a place to keep results in."""


def read_no_results() -> None:
    """From Prefect take, in this process, no result and no storage that the API names."""
    for serializer in (PickleSerializer, JSONSerializer, CompressedSerializer):
        serializer.loads = _refuse  # type: ignore[method-assign]
    results.resolve_result_storage = _refuse
    results.aresolve_result_storage = _refuse_later
    results._read_server_default_result_storage_block_id = _none
    results._aread_server_default_result_storage_block_id = _none_later


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise ResultRefused("a result, or a place for results, that the API names; runs of this project have neither")


async def _refuse_later(*_: Any, **__: Any) -> NoReturn:
    _refuse()


def _none() -> None:
    return None


async def _none_later() -> None:
    return None


if __name__ == "__main__":
    read_no_results()
    runpy.run_module("prefect.engine", run_name="__main__")
