"""Code of a user: which edits change what its objects use."""

import functools
import importlib
import sys
import textwrap

import pytest
import torch

from condensekit.errors import ConfigError
from condensekit.networks.convnet import ConvNet
from condensekit.runs.code import code_of, refuse_edited

FILES = {
    "mine/__init__.py": "from .blocks import Block",
    "mine/blocks.py": '''
        """Blocks."""
        import torch
        from torch.nn import ReLU as Act
        from . import consts
        from .helper import scale as _scale
        from .stars import *
        WIDTH = 4
        TABLE = {}
        def unused():
            return 1
        class Base(torch.nn.Module):
            """A base."""
            def forward(self, x):
                return _scale(x) + consts.ONE + many()  # plus one
        class Block(Base):
            width = WIDTH
            act = Act()
            table = TABLE
        TABLE["relu"] = 1
        Block.extra = 3
        torch.is_tensor(1)
        ''',
    "mine/consts.py": "ONE = 1",
    "mine/helper.py": """
        FACTOR = 2
        def scale(x):
            from mine import late
            return FACTOR * x + late.B
        """,
    "mine/stars.py": "def many():\n    return other()\ndef other():\n    return 3",
    "mine/late.py": "B = 1",
    "mine/apart.py": "C = 1",
}
EDITS = [
    ("blocks", "WIDTH = 4", "WIDTH = 8", "mine.blocks.WIDTH differs"),
    ("blocks", "return _scale(x)", "return -_scale(x)", "mine.blocks.Base differs"),
    ("blocks", "extra = 3", "extra = 4", "mine.blocks.Block differs"),
    ("blocks", '["relu"] = 1', '["relu"] = 2', "mine.blocks.TABLE differs"),
    ("blocks", "import ReLU as", "import GELU as", "mine.blocks.Act differs"),
    ("blocks", "is_tensor(1)", "is_tensor(2)", r"mine.blocks.\(\) differs"),
    ("consts", "1", "2", r"mine.consts.\* differs"),
    ("helper", "FACTOR = 2", "FACTOR = 3", "mine.helper.FACTOR differs"),
    ("late", "1", "2", r"mine.late.\* differs"),
    ("stars", "return 3", "return 4", "mine.stars.other differs"),
]
IDLE = [
    ("blocks", '"""A base."""', '"""Another text."""'),
    ("blocks", "  # plus one", ""),
    ("blocks", "return 1", "return 2"),
    ("blocks", "WIDTH = 4", "\n\nWIDTH  =  (4)"),
    ("apart", "1", "2"),
]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package of a user, in a folder that is searched for modules: returns its folder."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("mine.late")
    importlib.import_module("mine.apart")
    yield tmp_path / "mine"
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def edit(file, before, after):
    text = file.read_text()
    assert text.count(before) >= 1
    file.write_text(text.replace(before, after))


@pytest.mark.parametrize(("module", "before", "after", "told"), EDITS)
def test_an_edit_of_what_is_used_is_refused_by_name(mine, module, before, after, told):
    kept = code_of(sys.modules["mine"].Block)
    edit(mine / f"{module}.py", before, after)
    with pytest.raises(ConfigError, match=rf"^runs/x holds a run, by code .*\({told}\): undo the edit, or use another"):
        refuse_edited("runs/x holds a run", kept, code_of(sys.modules["mine"].Block))


@pytest.mark.parametrize(("module", "before", "after"), IDLE)
def test_an_edit_of_comments_and_of_what_is_not_used_is_none(mine, module, before, after):
    kept = code_of(sys.modules["mine"].Block)
    edit(mine / f"{module}.py", before, after)
    refuse_edited("it", kept, code_of(sys.modules["mine"].Block))


def test_objects_are_followed_to_their_code(mine):
    block = sys.modules["mine"].Block
    whole = code_of(block)
    for thing in (
        block(),
        [block()],
        {"a": block},
        functools.partial(block, 1),
        block().forward,
        torch.nn.Sequential(block()),
    ):
        assert set(whole) - {"mine.Block"} <= set(code_of(thing)) | {"mine.Block"}

    def inner():
        return block

    assert set(whole) <= set(code_of(inner))


def test_what_is_installed_and_what_has_no_file_is_no_code_of_yours():
    assert code_of(torch.nn.Linear(2, 2), ConvNet(), [1, "text", None], len, functools.reduce) == {}
    space: dict = {}
    exec("def f(x):\n    return x\nclass C:\n    pass", space)
    assert code_of(space["f"], space["C"]) == {}


def test_what_is_unknown_is_accepted_and_what_is_new_or_gone_is_told():
    refuse_edited("it", {}, {"a.b": "1"})
    with pytest.raises(ConfigError, match=r"\(a is gone, b is new, c differs, and 1 more\)"):
        refuse_edited("it", {"a": "1", "c": "1", "d": "1"}, {"b": "1", "c": "2", "d": "2"})


def test_a_program_that_is_changed_elsewhere_goes_on(tmp_path):
    text = """
    from condensekit.runs.code import code_of
    class Mine:
        size = {size}
    found = print({said})
    if __name__ == "__main__":
        print(sorted(code_of(Mine()).items()), {said})
    """
    outputs = []
    for size, said in ((1, 1), (1, 2), (2, 2)):
        (tmp_path / "program.py").write_text(textwrap.dedent(text).format(size=size, said=said))
        done = __import__("subprocess").run([sys.executable, tmp_path / "program.py"], capture_output=True, check=True)
        outputs.append(done.stdout.splitlines()[-1].rpartition(b" ")[0])
    assert b"__main__.Mine" in outputs[0]
    assert outputs[0] == outputs[1] != outputs[2]
