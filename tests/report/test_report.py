"""Reports of every kind of run: what they show, what they say of missing and damaged parts, escaping and size."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.nas.study.result import SearchResult
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.report import report
from condensekit.runs.files import read_json, write_json
from condensekit.sets.condensed import CondensedSet
from condensekit.training.evaluation import Evaluation

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


class Page(HTMLParser):
    """The structure of a page: its headings, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.tags, self.links = [], [], set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings.append((self.open[-1], data.strip()))


def titles(text, level="h3"):
    return [title for tag, title in Page(text).headings if tag == level]


def test_a_condensed_run(run, told):
    text, (made,) = told(run)
    page = Page(text)
    assert page.open == []
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert titles(text) == [
        *("Accuracy", "Images", "Learning curves", "Cost", "Data", "Configuration", "Environment", "To repeat it")
    ]
    assert re.fullmatch(
        r"12 images condensed by dm teach a network \(ConvNet-w8\) \d+\.\d % accuracy on the test images, 12 random "
        r"images \d+\.\d %: a difference of [+-]\d+\.\d points, 95 % interval .* over 2 networks.*\.",
        made.verdict,
    )
    assert made.lacks == ()
    assert text.count('<span class="column">at the start</span>') == text.count("at the end</span>") == 4
    assert 'alt="3 images of class 42, at the end"' in text
    assert "nav" not in page.tags  # one run needs no table of contents


def test_nothing_is_asked_for_and_nothing_runs(run, searched, told):
    text, _ = told(run, searched)
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "object", "form"}
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert not re.search(r"url\(|@import|javascript:| on\w+=", text)


def test_a_replay_run_of_version_0_1(former, told):
    text, (made,) = told(former("replay"))
    assert titles(text)[:4] == ["Accuracy by experience", "Results", "Matrix of accuracies", "Cost"]
    assert "After the last of 2 experiences, a network that keeps 10 images condensed by dm" in made.verdict
    assert text.count('class="matrix"') == 2
    assert made.lacks == ()


def test_a_search(searched, told):
    text, (made,) = told(searched)
    assert titles(text)[:3] == ["Rankers", "Scores against the truth", "Quality against operations"]
    assert made.verdict.startswith(
        "The order of 12 candidates by dm agrees with full training by a rank correlation of 1"
    )
    assert "Best candidate by dm: width 96, depth 3." in text
    front = text[text.index("The Pareto front, from") :].partition("</figure>")[0]
    assert front.count('<th scope="row">') == 1  # the best one needs the fewest operations


def test_a_search_of_version_0_1_without_a_truth(former, told):
    text, (made,) = told(former("search"))
    assert (
        made.verdict == "4 candidates were scored by dm, random, params; no full training says how good their order is."
    )
    assert "Scores against the truth" not in titles(text)


@pytest.mark.parametrize("name", ["jpeg-random", "kmeans", "krr-soft", "m3d", "trained"])
def test_sets_of_version_0_1(former, told, name):
    text, (made,) = told(former(name))
    assert "images" in made.verdict
    assert text.count("<img ") == 10
    assert made.lacks == ()


def test_a_set_file(run, told):
    text, (made,) = told(run / "set.safetensors")
    assert titles(text) == ["Images", "Cost", "Data"]
    assert "The set holds 12 images condensed by dm, made in 4 steps" in made.verdict


def test_seeds_are_lines_of_one_chart(run, tmp_path, told):
    for seed in (0, 1, 10):
        shutil.copytree(run, tmp_path / "seeds" / f"seed-{seed}")
    text, _ = told(tmp_path / "seeds")
    assert text.index("</svg> seed-0") < text.index("</svg> seed-1<") < text.index("</svg> seed-10")
    assert "Of 3 seeds, seed-0 is shown." in text


def test_a_demo_is_its_runs(run, former, tmp_path, told):
    demo = tmp_path / "demo"
    shutil.copytree(run, demo / "seed-0")
    shutil.move(demo / "seed-0" / "evaluation.json", demo / "evaluation.json")
    shutil.move(former("replay"), demo / "replay")
    shutil.move(former("search"), demo / "search")
    text, runs = told(demo)
    assert [made.name for made in runs] == [str(demo), str(demo / "replay"), str(demo / "search")]
    assert [made.lacks for made in runs] == [(), (), ()]
    assert titles(text, "h2")[0] == "Contents"


def test_runs_together_have_one_table(run, former, told):
    text, _ = told(run, former("dm"))
    together = text[text.index('id="together"') :]
    assert titles(text, "h2")[-1] == "All runs together"
    assert "The training protocols of these runs differ" in together
    assert "accuracy, % against stored bytes: dm" in together


# What is missing or damaged: the rest is shown, and the report says what lacks.


@pytest.mark.parametrize("file", ["config.json", "env.json", "evaluation.json", "metrics.csv", "set.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'{"rows": 3}', b"[]", b"step,loss\n2,1\n1,1\n"])
def test_a_damaged_file_is_said_and_the_rest_is_shown(run, told, file, content):
    if file == "env.json" and content == b'{"rows": 3}':
        pytest.skip("whatever it holds is shown")
    whole = titles(told(run)[0])
    (run / file).write_bytes(content)
    text, (made,) = told(run)
    assert any(file in lack for lack in made.lacks), made.lacks
    assert len(titles(text)) >= len(whole) - 2
    assert Page(text).open == []


@pytest.mark.parametrize("file", ["config.json", "env.json", "evaluation.json", "metrics.csv", "set.safetensors"])
def test_a_missing_file(run, told, file):
    (run / file).unlink()
    text, (made,) = told(run)
    assert Page(text).open == []
    if file in ("config.json", "env.json", "set.safetensors"):
        assert any(file in lack for lack in made.lacks)


def test_an_unfinished_condensation(run, told):
    for file in ("set.safetensors", "evaluation.json"):
        (run / file).unlink()
    text, (made,) = told(run)
    assert made.lacks == (f"{run} has no set.safetensors, the run is unfinished after 4 of 4 steps: resume it",)
    assert made.verdict == "This folder holds no result yet."
    assert "Learning curves" in titles(text)


def test_an_interrupted_run_says_so(run, told):
    made = CondensedSet.load(run / "set.safetensors")
    object.__setattr__(made, "provenance", {**made.provenance, "status": "diverged"})
    made.save(run / "set.safetensors", overwrite=True)
    assert told(run)[1][0].lacks == (f"{run}: the run was diverged after 4 steps",)


def test_an_unfinished_replay_shows_its_matrices(former, told):
    folder = former("replay")
    (folder / "replay.json").unlink()
    text, (made,) = told(folder)
    assert made.lacks == (f"{folder} has no replay.json, the replay is unfinished: resume it",)
    assert "Matrix of accuracies" in titles(text)


def test_a_damaged_cell_costs_the_matrices_only(former, told):
    folder = former("replay")
    next((folder / "cells").rglob("*.json")).write_text("{")
    text, (made,) = told(folder)
    assert len(made.lacks) == 1
    assert "Matrix of accuracies" not in titles(text)
    assert "Results" in titles(text)


def test_an_unfinished_search_shows_its_trials(former, told):
    folder = former("search")
    (folder / "search.json").unlink()
    _, (made,) = told(folder)
    assert made.lacks == (f"{folder} has no search.json, the search is unfinished: resume it",)
    assert "candidates were scored by" in made.verdict


def test_metrics_that_diverge(run, told):
    (run / "metrics.csv").write_text("step,loss\n1,nan\n2,inf\n3,-inf\n")
    text, (made,) = told(run)
    assert "metrics.csv" in made.lacks[0]
    assert "Learning curves" not in titles(text)


def test_a_newer_format_is_said(run, told):
    record = json.loads((run / "evaluation.json").read_text())
    record["file_format"] = 99
    (run / "evaluation.json").write_text(json.dumps(record))
    _, (made,) = told(run)
    assert "evaluation.json: cannot read" in made.lacks[0]


def test_values_that_do_not_fit_are_said(run, tmp_path, told):
    found = read_json(run / "evaluation.json")
    found["rows"][0] |= {"ci95": [0.1], "accuracies": []}
    write_json(run / "evaluation.json", found)
    shutil.copytree(run, tmp_path / "again")
    text, (made, _) = told(run, tmp_path / "again")
    assert "the comparison cannot be shown" in text
    assert any("the evaluation cannot be shown: a file holds values that do not fit" in lack for lack in made.lacks)
    assert "Images" in titles(text)


def test_the_first_picture_that_there_is_stands_beside_the_end(run, told):
    (run / "snapshots" / "step-000000.png").unlink()
    assert told(run)[0].count('<span class="column">after step 2</span>') == 4


def test_a_picture_that_is_none_of_the_run(run, told):
    (run / "snapshots" / "step-000000.png").write_bytes(b"no picture")
    text, (made,) = told(run)
    assert "step-000000.png: it is no PNG file" in made.lacks[0]
    assert text.count("<img ") == 4


def test_one_line_of_the_log_for_each_run(run, former, told, caplog):
    (run / "env.json").unlink()
    (run / "metrics.csv").write_text("x")
    told(run, former("dm"))
    assert len(caplog.messages) == 1
    assert "\n" not in caplog.messages[0]


def test_one_of_several_runs_is_missing(run, tmp_path, told):
    _, (made, missing) = told(run, tmp_path / "nowhere")
    assert made.lacks == ()
    assert missing.lacks == (f"{tmp_path / 'nowhere'} is no run folder: there is no such folder",)


# Nothing can be shown, or the call is wrong.


def test_nothing_to_show_is_an_error(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="nothing to report in"):
        report(tmp_path / "empty", tmp_path / "a.html")
    with pytest.raises(DataError, match="no such folder"):
        report(tmp_path / "nowhere", tmp_path / "a.html")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "set.safetensors").write_bytes(b"x")
    with pytest.raises(StoreError, match="truncated"):
        report([broken, tmp_path / "nowhere"], tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_wrong_calls(run, tmp_path):
    with pytest.raises(ConfigError, match="no runs"):
        report([], tmp_path / "a.html")
    with pytest.raises(ConfigError, match="given twice"):
        report([run, run], tmp_path / "a.html")
    with pytest.raises(ConfigError, match="the most is 100"):
        report([f"run-{i}" for i in range(101)], tmp_path / "a.html")
    with pytest.raises(ConfigError, match="runs must be the path"):
        report(3, tmp_path / "a.html")
    with pytest.raises(ConfigError, match="zero byte"):
        report("a\0b", tmp_path / "a.html")


def test_a_file_is_replaced_only_if_asked(run, tmp_path):
    out = tmp_path / "a.html"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="overwrite=True"):
        report(run, out)
    assert out.read_text() == "mine"
    assert report(run, out, overwrite=True).nbytes == out.stat().st_size


# What comes from files cannot control the page, and the page has a bound.

EVIL = "<script>alert(1)</script>\"'&\x1b[2J\u202e</style>"


def test_names_are_escaped(run, told):
    for file in ("config.json", "evaluation.json", "env.json"):
        found = read_json(run / file)
        found |= {"config.json": {EVIL: EVIL}, "env.json": {EVIL: EVIL}}.get(file, {"notes": [EVIL]})
        for row in found.get("rows", ()):
            row |= {"set": EVIL, "network": EVIL}
        write_json(run / file, found)
    made = CondensedSet.load(run / "set.safetensors")
    spec = ImageSpec(**{**vars(made.spec), "class_names": dict.fromkeys(made.classes, EVIL)})
    object.__setattr__(made, "spec", spec)
    made.save(run / "set.safetensors", overwrite=True)
    text, _ = told(run)
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;" in text
    assert text.count("</style>") == 1
    assert not set(text) & {"\x1b", "\u202e"}
    assert r"\x1b[2J\u202e" in text


def test_hundreds_of_noisy_images_stay_small(tmp_path, told):
    images = torch.rand(500, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    spec = ImageSpec((3, 64, 64), (0.0,) * 3, (1.0,) * 3)
    CondensedSet.from_images(images, torch.arange(10).repeat_interleave(50), spec).save(tmp_path / "set.safetensors")
    text, _ = told(tmp_path / "set.safetensors")
    assert len(text) < 5_000_000
    assert "of up to 50 images of each class are shown." in text


def test_large_images_and_many_classes_are_bounded(tmp_path, told):
    images = torch.rand(150, 3, 160, 120, generator=torch.Generator().manual_seed(0))
    spec = ImageSpec((3, 160, 120), (0.0,) * 3, (1.0,) * 3)
    CondensedSet.from_images(images, torch.arange(150), spec).save(tmp_path / "set.safetensors")
    text, _ = told(tmp_path / "set.safetensors")
    assert len(text) < 5_000_000
    assert "of 150 classes are shown." in text


def test_long_names_and_many_seeds_are_bounded(run, tmp_path, told):
    found = read_json(run / "evaluation.json")
    found["rows"][0]["set"] = "x" * 100_000
    write_json(run / "evaluation.json", {**found, "notes": ["y" * 100_000] * 1000})
    for seed in range(60):
        (tmp_path / "seeds" / f"seed-{seed}").mkdir(parents=True)
        shutil.copy(run / "metrics.csv", tmp_path / "seeds" / f"seed-{seed}")
    text, (_, seeds) = told(run, tmp_path / "seeds")
    assert len(text) < 200_000
    assert seeds.lacks[0].endswith("the first 50 of 60 seeds are read")


def test_images_without_a_picture(tmp_path, told):
    spec = ImageSpec((2, 8, 8), (0.0,) * 2, (1.0,) * 2)
    CondensedSet.from_images(torch.rand(2, 2, 8, 8), torch.tensor([0, 1]), spec).save(tmp_path / "set.safetensors")
    assert "Images of 2 channels have no picture" in told(tmp_path / "set.safetensors")[0]


def test_long_logs_are_bounded(run, searched, told):
    rows = "".join(f"{step},{1 / step}\n" for step in range(1, 100_001))
    (run / "metrics.csv").write_text(f"step,loss\n{rows}")
    found = SearchResult.load(searched)
    many = tuple(Trial("dm", {"width": i}, 0.5 + i / 1e5) for i in range(5000))
    truth = {f'{{"width":{i}}}': (50 + i / 1e3,) for i in range(5000)}
    write_json(searched / "search.json", SearchResult(found.best, many, found.rows, None, truth).to_json())
    config = read_json(run / "config.json")
    write_json(run / "config.json", {**config, **{f"option {i}": "x" * 10_000 for i in range(1000)}})
    text, _ = told(run, searched)
    assert len(text) < 1_000_000
    assert "1,000 of 5,000 candidates are shown." in text


def test_results_are_read_again(run, searched):
    found = Evaluation.load(run)
    assert found.to_json() == read_json(run / "evaluation.json")
    again = SearchResult.load(searched)
    assert again.to_json() == read_json(searched / "search.json")


def test_the_report_needs_neither_avalanche_nor_nni(run, tmp_path):
    code = f"""
import sys
sys.modules["avalanche"] = sys.modules["nni"] = None
from condensekit.report import report
report({str(run)!r}, {str(tmp_path / "a.html")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


# The command.


def test_the_command(cli, run, tmp_path):
    out = tmp_path / "a.html"
    code, said, err = cli("report", run, "--out", out)
    assert (code, err) == (0, "")
    assert said.splitlines()[0].startswith(f"{run}: 12 images condensed by dm teach")
    assert said.splitlines()[-1].startswith(f"Report: {out} (")
    code, said, err = cli("report", run, "--out", out)
    assert (code, said) == (2, "")
    assert err == f"Error: {out} exists: pass --overwrite to replace it, or choose another name\n"
    code, said, _ = cli("report", run, "--out", out, "--overwrite", "--json")
    assert code == 0
    assert json.loads(said)["runs"][0]["lacks"] == []


def test_the_usual_place_is_the_folder_of_the_run(cli, run):
    code, said, err = cli("report", run)
    assert (code, err) == (0, "")
    assert said.splitlines()[-1].startswith(f"Report: {run / 'report.html'} (")
    code, said, err = cli("report", run / "set.safetensors")
    assert err == f"Error: {run / 'report.html'} exists: pass --overwrite to replace it, or choose another name\n"
    code, said, err = cli("report", run, run)
    assert (code, said) == (2, "")
    assert err == "Error: a report of several runs has no default --out: give one, such as --out all.html\n"


@pytest.mark.parametrize(("name", "code"), [("nowhere", 2), ("empty", 2), ("broken", 4)])
def test_exit_codes(cli, tmp_path, name, code):
    if name != "nowhere":
        (tmp_path / name).mkdir()
    if name == "broken":
        (tmp_path / name / "config.json").write_text("{")
    found, out, err = cli("report", tmp_path / name, "--out", tmp_path / "a.html")
    assert (found, out, len(err.splitlines())) == (code, "", 1)


def test_standard_output_holds_the_page_alone(run):
    (run / "env.json").unlink()
    (run / "evaluation.json").write_text("{")
    command = [sys.executable, "-m", "condensekit", "report", str(run), "--out", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Page(done.stdout).open == []
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"WARNING: {run / 'evaluation.json'}: cannot read")
    assert lines[0].endswith("has no env.json: the command and the machine are unknown")
    assert lines[1].startswith(f"{run}: The set holds 12 images condensed by dm")
    assert lines[2].startswith("Report: /dev/stdout")


def test_trials_of_a_search_that_was_killed(tmp_path, told):
    log = TrialLog(tmp_path / "killed" / "trials.jsonl")
    log.append(Trial("dm", {"width": 8}, 0.5))
    log.append(Trial("dm", {"width": 16}, None, "failed", reason="out of memory"))
    _, (made,) = told(tmp_path / "killed")
    assert made.verdict.startswith("2 candidates were scored by dm")
