"""The rooms of the package: imports run one way, from the floors above to those below, and in no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "condensekit"
FLOORS = (
    ("words",),
    ("errors", "rng", "interrupt", "progress"),
    ("stats", "tables", "networks", "html", "ranks"),
    ("compute", "figures"),
    ("runs",),
    ("data",),
    ("sets",),
    ("selection",),
    ("training",),
    ("methods",),
    ("driver", "catalog"),
    ("testing", "everyday"),
    ("replay.memory", "nas.names"),
    ("replay.adapters", "nas.spaces"),
    ("replay.study", "nas.engines"),
    ("nas.service",),
    ("nas.trials",),
    ("nas.rankers",),
    ("nas.study",),
    ("report",),
    ("cli",),
)  # from the ground up; a room imports only rooms of lower floors
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
NEUTRAL = {"", "nas", "replay", "__main__"}  # faces of packages, which hand names on


def modules() -> dict[str, Path]:
    """Every module of the package, ``nas.trials.log`` and so on; a package goes by its own name."""
    named = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, wherever in it and be it for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "condensekit":
            base = (node.module or "").partition(".")[2]
            whole = {".".join(filter(None, (base, alias.name))) for alias in node.names}
            found |= {name if name in known else base for name in whole}
        elif isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if a.name.partition(".")[0] == "condensekit"}
    return found


def room(module: str) -> str:
    """The room of a module: the longest name in :data:`FLOORS` that its name begins with."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in FLOOR), "" if module in NEUTRAL else module)


KNOWN = modules()


def test_every_module_has_a_room():
    assert {name for name in KNOWN if room(name) not in FLOOR and name not in NEUTRAL} == set()


@pytest.mark.parametrize("module", [name for name in KNOWN if name not in NEUTRAL])
def test_imports_go_down(module):
    """``tests/test_rooms.py`` has the floors; a wrong arrow is named with both its ends."""
    ours = room(module)
    wrong = {
        other
        for other in imported(KNOWN[module], KNOWN) - NEUTRAL
        if room(other) != ours and FLOOR[room(other)] >= FLOOR[ours]
    }
    assert wrong == set()


def test_no_circle_of_imports():
    graph = {name: imported(path, KNOWN) - NEUTRAL - {name} for name, path in KNOWN.items() if name not in NEUTRAL}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize(("folder", "most"), [(".", 13), ("nas", 4), ("replay", 4)])
def test_few_files_lie_outside_a_room(folder, most):
    assert len(list((PACKAGE / folder).glob("*.py"))) <= most


def test_the_core_knows_neither_avalanche_nor_nni():
    foreign = {"avalanche", "nni"}
    guilty = set()
    for module, path in KNOWN.items():
        if module.partition(".")[0] in ("replay", "nas", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if foreign & {name.partition(".")[0] for name in names}:
                guilty.add(module)
    assert guilty == set()
