"""The documentation: its links lead somewhere, and its commands, settings and names are those of the program.

Commands are read here: a `fer` line is parsed by `fer` itself, up to where it would begin to work.
tests/test_docs_run.py runs those that can be.
"""

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import typer.main
import yaml  # type: ignore[import-untyped]

from fer_core.errors import ExperimentError
from fer_core.experiment import Experiment, bundled_experiments, experiment_from, load_experiment
from flows.cli import fer_app

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
MOST_LINES, MOST_WORDS = 120, 1200

NOT_CHECKED = {
    "apt": "the system's package manager",
    "curl": "an HTTP client; what it asks for is in tests/test_service.py",
    "export": "the shell's own; the names that it sets are looked up like all others",
}
"""Programs that are not ours, and why nothing is asked of their arguments."""
ANY_STEP = {"STEP": "stands for any step in running text"}
LANGUAGES = {"": "commands", "toml": "an experiment", "python": "a program"}
"""Languages of blocks, by the word that opens one; all are checked."""
SECTIONS = {field.name for field in fields(Experiment)} - {"title", "seeds"}

Item = TypeVar("Item")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_COMMENT = re.compile(r"(^|\s)#\s.*$")
_VARIABLE = re.compile(r"\b(?:FER|PREFECT)_[A-Z][A-Z_]*[A-Z]\b")
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
_FILE = re.compile(r"(?:fer_core|flows|openface|tests|benchmarks|docs|docker)/[\w./*]+")
_OURS = re.compile(r"(?:\.venv/bin/)?(?:fer|make|prefect|docker compose|python benchmarks/\S+)(?= |$)")
_NAME = re.compile(r"(?:[A-Za-z]+\.)?(?!fer_)(?:[a-z]*_[a-z_]+|[A-Z][A-Za-z]+|[A-Z_]{5,})")
_DEFINED = re.compile(r"^ *(?:def |class )?(\w+)(?:\(| =|:)", re.MULTILINE)
_SETTING = re.compile(rf"(?:{'|'.join(sorted(SECTIONS))})\.\w+( = .+|=.+)?")


@dataclass(frozen=True)
class Command:
    """A command as a page prints it."""

    text: str
    whole: bool
    """It is a line to type, so that what it needs has to be there."""

    def __str__(self) -> str:
        return self.text


class Wrong(Exception):
    """Something that a page says and that is not so."""


def blocks_in(page: str) -> list[tuple[str, str]]:
    """Its blocks: the word that opens each, and what stands in it."""
    return _FENCE.findall(page)


def commands_in(page: str) -> Iterator[Command]:
    """Lines of its blocks without a language, and what of its running text begins with a program of ours."""
    for language, block in blocks_in(page):
        for line in block.replace("\\\n", " ").splitlines() if not language and "▶" not in block else ():
            if text := _COMMENT.sub("", line).strip():
                yield Command(text, whole=True)
    for span in _SPAN.findall(_FENCE.sub("", page)):
        if _OURS.match(span) and len(span.split()) > (2 if span.startswith("docker") else 1):
            yield Command(span, whole=False)


def check(command: Command) -> None:
    """See that a command is one that its program knows.

    Raises:
        Wrong: it is not.
    """
    words = shlex.split(command.text)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    check_words(words, command)


def check_words(words: list[str], command: Command) -> None:
    program, *arguments = words
    checks: dict[str, Callable[[list[str], Command], None]] = {
        "fer": check_fer,
        "make": check_make,
        "python": check_python,
        "docker": check_compose,
        "prefect": check_prefect,
    }
    name = program.removeprefix(".venv/bin/")
    if name in checks:
        checks[name](arguments, command)
    elif name not in NOT_CHECKED:
        raise Wrong(f"{command}: {name} is no program of ours; check it, or say in NOT_CHECKED why not")


@cache
def fer() -> Any:
    """The command line, as `fer` builds it."""
    return typer.main.get_command(fer_app())


def check_fer(arguments: list[str], command: Command) -> None:
    step, *rest = arguments
    if step in ANY_STEP and not command.whole:
        return
    if step not in fer().commands:
        raise Wrong(f"{command}: no such command")
    known = fer().commands[step]
    if not command.whole:
        check_options(known, rest, command)
        return
    try:
        given = known.make_context(f"fer {step}", rest).params
    except Exception as error:
        raise Wrong(f"{command}: {error}") from error
    check_experiment(given.get("experiment"), given.get("settings") or (), command)


def check_options(known: Any, arguments: list[str], command: Command) -> None:
    """Names of options alone: in running text a command need not be whole."""
    names = {option for parameter in known.params for option in parameter.opts}
    for option in (word.partition("=")[0] for word in arguments if word.startswith("-")):
        if option not in names:
            raise Wrong(f"{command}: no such option: {option}")


def check_experiment(name: str | None, settings: Sequence[str], command: Command) -> None:
    try:
        if name is None or name.endswith(".toml"):
            experiment_from({}, "--set", settings)
        elif name in bundled_experiments():
            load_experiment(name, settings)
        else:
            raise Wrong(f"{command}: no bundled experiment is called {name}")
    except ExperimentError as error:
        raise Wrong(f"{command}: {error}") from error


def check_make(arguments: list[str], command: Command) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for target in arguments:
        if "=" not in target and target not in targets:
            raise Wrong(f"{command}: no such target: {target}")


def check_python(arguments: list[str], command: Command) -> None:
    script = ROOT / arguments[0]
    if not script.is_file():
        raise Wrong(f"{command}: no such file")
    text = script.read_text(encoding="utf-8")
    for option in (word for word in arguments[1:] if word.startswith("-")):
        if f'"{option}"' not in text:
            raise Wrong(f"{command}: no such option: {option}")


class _ComposeLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Knows Compose's own tag, which says that a list replaces another."""


_ComposeLoader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def check_compose(arguments: list[str], command: Command) -> None:
    """The services that it names, and the command that is run in one."""
    words, files = arguments[1:], list[str]()
    while words[:1] == ["-f"]:
        files, words = [*files, words[1]], words[2:]
    services: dict[str, Any] = {}
    for file in files or ["compose.yaml"]:
        # As Compose merges them, of which the names are of use here.
        services |= yaml.load((ROOT / file).read_text(encoding="utf-8"), _ComposeLoader)["services"]
    if words[:1] == ["--profile"]:
        if not any(words[1] in service.get("profiles", ()) for service in services.values()):
            raise Wrong(f"{command}: no such profile: {words[1]}")
        words = words[2:]
    verb, *named = [word for word in words if not word.startswith("-")]
    if arguments[0] != "compose" or verb not in ("up", "build", "logs", "exec", "run", "restart"):
        raise Wrong(f"{command}: not a command of compose that pages use")
    inside = named[1:] if verb in ("exec", "run") else []
    for service in named[: len(named) - len(inside)]:
        if service not in services:
            raise Wrong(f"{command}: no such service: {service}")
    if inside[:1] == ["start"]:
        check_words(words[words.index("start") + 1 :], command)


def check_prefect(arguments: list[str], command: Command) -> None:
    """A deployment that there is, with parameters that its flow has."""
    if arguments[:2] != ["deployment", "run"]:
        raise Wrong(f"{command}: not a command of Prefect's that pages use")
    flow, _, name = arguments[2].partition("/")
    entrypoints = {"full-pipeline": "flows/pipeline.py:full_pipeline", "annotate": "flows/pipeline.py:annotate"}
    if flow != "fer" or name not in entrypoints:
        raise Wrong(f"{command}: no such deployment: {arguments[2]}")
    parameters = parameters_of(entrypoints[name])
    for parameter in (b.partition("=")[0] for a, b in pairwise(arguments) if a == "-p"):
        if parameter not in parameters:
            raise Wrong(f"{command}: no such parameter: {parameter}")


def parameters_of(entrypoint: str) -> set[str]:
    """Names of a flow's parameters, read from its source, since Prefect takes seconds to load."""
    path, name = entrypoint.split(":")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return {argument.arg for argument in function.args.args}


def check_setting(text: str) -> None:
    """`section.key`, `section.key = value` or `section.key=value`: of an experiment, and of the right type."""
    key, equals, value = (part.strip() for part in text.partition("="))
    section, _, name = key.partition(".")
    known = {field.name.rstrip("_") for field in fields(getattr(experiment_from({}, "defaults"), section))}
    if name not in known:
        raise Wrong(f"{text}: no such setting")
    if equals:
        check_experiment(None, [f"{key}={value}"], Command(text, whole=False))


def anchors(page: str) -> set[str]:
    """What GitHub calls a page's headings."""
    headings = (re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()) for heading in _HEADING.findall(page))
    return {heading.strip().replace(" ", "-") for heading in headings}


def check_link(target: str, page: Path) -> None:
    if re.match(r"[a-z]+:", target):
        return
    path, _, anchor = target.partition("#")
    led = (page.parent / path).resolve() if path else page
    if not led.exists():
        raise Wrong(f"{page.relative_to(ROOT)}: {target} leads nowhere")
    text = led.read_text(encoding="utf-8") if anchor else ""
    if anchor and anchor not in anchors(_FENCE.sub("", text)):
        raise Wrong(f"{page.relative_to(ROOT)}: {target}: no such heading")


@cache
def variables() -> frozenset[str]:
    """Environment variables that something in the repository reads or sets; those of Prefect are its own settings."""
    sources = [
        *ROOT.glob("compose*.yaml"),
        *(path for top in ("fer_core", "flows") for path in (ROOT / top).rglob("*.py")),
    ]
    sources += [*(ROOT / "openface").glob("*.py"), *(ROOT / "benchmarks").glob("*.py"), ROOT / "docker" / "start"]
    return frozenset(name for path in sources for name in _VARIABLE.findall(path.read_text(encoding="utf-8")))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def wrong_in(check_one: Callable[[Item], None], items: Iterable[Item]) -> list[str]:
    """What is wrong, all of it and not the first alone."""
    found = []
    for item in items:
        try:
            check_one(item)
        except Wrong as wrong:
            found.append(str(wrong))
    return found


by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@by_page
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = _LINK.findall(_SPAN.sub("", _FENCE.sub("", text_of(page))))
    links += re.findall(r"!\[[^\]]*\]\(([^()\s]+)\)", text_of(page))
    assert wrong_in(lambda link: check_link(link, page), links) == []


@by_page
def test_every_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    assert {language for language, _ in blocks_in(text_of(page))} <= LANGUAGES.keys()


@by_page
def test_every_command_is_one_that_its_program_knows(page: Path) -> None:
    assert wrong_in(check, commands_in(text_of(page))) == []


@by_page
def test_every_setting_is_one_of_an_experiment(page: Path) -> None:
    settings = [span for span in _SPAN.findall(text_of(page)) if _SETTING.fullmatch(span) and ".py" not in span]
    settings += re.findall(r"--set (\w+\.\w+=[^\s`]+)", text_of(page))
    assert wrong_in(check_setting, settings) == []


@by_page
def test_every_parameter_of_a_run_is_one_of_a_flow(page: Path) -> None:
    entrypoints = ("flows/pipeline.py:full_pipeline", "flows/pipeline.py:annotate")
    assert set(re.findall(r"-p (\w+)=", text_of(page))) <= set().union(*map(parameters_of, entrypoints))


@by_page
def test_every_block_of_toml_is_an_experiment(page: Path) -> None:
    for language, block in blocks_in(text_of(page)):
        if language == "toml":
            experiment_from(tomllib.loads(block), page.name)


@by_page
def test_every_block_of_python_takes_what_is_there(page: Path) -> None:
    for language, block in blocks_in(text_of(page)):
        for node in ast.walk(ast.parse(block)) if language == "python" else ():
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@by_page
def test_every_file_and_variable_that_is_named_is_there(page: Path) -> None:
    text = text_of(page)
    files = {name.rstrip(".") for span in _SPAN.findall(text) for name in _FILE.findall(span)}
    assert [name for name in sorted(files) if not list(ROOT.glob(name))] == []
    named = set(_VARIABLE.findall(text))
    assert sorted(named - variables()) == []


def test_every_function_and_class_on_the_map_is_there() -> None:
    named = {
        span.rpartition(".")[2] for span in _SPAN.findall(text_of(ROOT / "CONTRIBUTING.md")) if _NAME.fullmatch(span)
    }
    sources = [
        path.read_text(encoding="utf-8")
        for top in ("fer_core", "openface", "flows")
        for path in (ROOT / top).rglob("*.py")
    ]
    defined = {name for text in sources for name in _DEFINED.findall(text)}
    assert len(named) > 20
    assert sorted(named - defined) == []


def test_readme_is_short() -> None:
    text = text_of(README)
    assert len(text.splitlines()) <= MOST_LINES
    assert len(text.split()) <= MOST_WORDS


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = {README}, [README]
    while waiting:
        page = waiting.pop()
        for target in _LINK.findall(text_of(page)):
            led = (page.parent / target.partition("#")[0]).resolve()
            if led.suffix == ".md" and led.is_file() and led not in reached:
                reached.add(led)
                waiting.append(led)
    assert set(PAGES) <= reached


def test_the_index_of_docs_names_every_page() -> None:
    named = set(_LINK.findall(text_of(ROOT / "docs" / "README.md")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= named


@pytest.mark.parametrize(
    "text",
    [
        "fer trane paper --out work",
        "fer graph paper --in work/dataset",
        "fer graph paper --inn work/dataset --out work/graph",
        "fer run papr",
        "fer run my.toml --set graph.kk=16",
        "fer run demo --set graph.k=many",
        "fer distill demo --seed one --out work",
        "fer import-weights FILE --architecture alexnet --out DIR",
        "make demos",
        "python benchmarks/nothing.py",
        "python benchmarks/gpu.py --slow",
        "docker compose up -d sever",
        "docker compose --profile nothing up -d",
        "docker compose exec server start prefect deployment run fer/nothing",
        "docker compose exec server start prefect deployment run fer/full-pipeline -p experiments=paper",
        "prefect server stop",
        "wget http://127.0.0.1",
    ],
)
def test_a_command_that_is_not_there_is_found(text: str) -> None:
    with pytest.raises(Wrong):
        check(Command(text, whole=True))


@pytest.mark.parametrize("text", ["graph.kk", "graph.k = many", 'ldg.neighbours = "batch"', "dataset.classes=9"])
def test_a_setting_that_is_not_there_is_found(text: str) -> None:
    assert _SETTING.fullmatch(text)
    with pytest.raises(Wrong):
        check_setting(text)


@pytest.mark.parametrize("target", ["docs/nothing.md", "docs/method.md#nothing", "#nothing"])
def test_a_link_that_leads_nowhere_is_found(target: str) -> None:
    with pytest.raises(Wrong):
        check_link(target, README)


def test_what_is_not_checked_is_still_said() -> None:
    """An exception that no page needs any more would hide the next mistake."""
    texts = [text_of(page) for page in PAGES]
    commands = [command for text in texts for command in commands_in(text)]
    words = {word for command in commands for word in shlex.split(command.text)}
    steps = {words[1] for words in (shlex.split(command.text) for command in commands) if words[0] == "fer"}
    inline = {span.split()[0] for text in texts for span in _SPAN.findall(text) if span.strip()}
    assert [program for program in NOT_CHECKED if program not in words | inline] == []
    assert ANY_STEP.keys() <= steps


def test_the_distribution_is_not_called_as_another_project_of_the_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] != "fer"
    assert set(project["scripts"]) == {"fer"}
