"""What a notebook shows of data, sets and results, and the figures of ``show`` and ``plot``."""

import re

import pytest
import torch

from condensekit.catalog import recipes
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.driver import CondenseResult, Status, condense
from condensekit.errors import ConfigError
from condensekit.figures import Drawn, png
from condensekit.html.strips import excerpt
from condensekit.nas.study.result import SearchResult
from condensekit.nas.trials.log import Trial
from condensekit.replay.study.results import ReplayResult
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.testing import shapes
from condensekit.training.evaluation import Evaluation, EvaluationRow
from tests.report.conftest import FORMER

EVIL = "<script>$x$ & \x1b"


def spec(channels=1, names=None, pixels=True):
    mean, std = ((0.5,), (0.5,)) if pixels else ((0.0,), (1.0,))
    return ImageSpec((channels, 8, 8), mean * channels, std * channels, names or {}, pixels=pixels)


def images_of(classes, each, channels=1, pixels=True):
    found = torch.rand(classes * each, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return found if pixels else 9 * found - 4, torch.arange(classes).repeat_interleave(each)


def made(classes=3, each=2, channels=1, names=None, **more):
    pixels, labels = images_of(classes, each, channels)
    return CondensedSet.from_images(pixels, labels, spec(channels, names), **more)


def row(name="dm", network="ConvNet", **more):
    given = {"accuracy_std": 0.0, "n": 2, "unit": "network", "sets": 1, "networks": 2, "wall_s": 1.0, "peak_mib": 0.0}
    return EvaluationRow(name, network, 1, 100, 10, 1.0, 10, 0.8, work={}, accuracies=[[0.7, 0.9]], **(given | more))


def evaluation(*rows, notes=()):
    return Evaluation(rows, {"name": "short"}, {}, 0, notes)


@pytest.fixture(scope="module")
def condensed():
    return condense(shapes(), recipes.dm(batch_real=8, encoder_network="ConvNet-w8"), ipc=2, steps=3)


@pytest.fixture(scope="module")
def replayed():
    return ReplayResult.load(FORMER / "replay")


@pytest.fixture(scope="module")
def searched():
    return SearchResult.load(FORMER / "search")


def pictures(text):
    return text.count("<img ")


def test_data_show_their_classes_and_how_they_are_understood():
    text = shapes()._repr_html_()
    assert pictures(text) == 4
    assert "3 x 8 x 8 pixels" in text
    assert "keep their class" in text


def test_a_part_of_the_data_shows_its_own_images():
    data = shapes().select([0, 42])
    text = data._repr_html_()
    assert pictures(text) == 2
    assert f"{len(data):,} images of 8 x 8 pixels, 2 classes" in text


def test_values_that_are_no_pixels_have_a_picture():
    found, labels = images_of(2, 3, pixels=False)
    assert pictures(ClassImages(found, labels, spec(pixels=False))._repr_html_()) == 2


def test_a_set_shows_its_classes_by_name():
    text = made(names={0: "cat", 1: EVIL, 2: "dog"})._repr_html_()
    assert pictures(text) == 3
    assert 'alt="2 images of class cat"' in text
    assert "<script>" not in text
    assert "\x1b" not in text


def test_packed_images_are_shown_decoded():
    packed = made(1, 2, formation=Formation(factor=2))
    text = packed._repr_html_()
    assert len(packed.strips()[0].images[0]) == len(packed.decode()[0]) > len(packed)
    assert f"{len(packed.decode()[0])} images of 8 x 8 pixels" in text


def test_a_set_of_thousands_of_images_shows_some_and_says_so():
    text = made(80, 50)._repr_html_()
    assert "4,000 images of 8 x 8 pixels, 80 classes" in text
    assert "10 of up to 50 images of each class are shown. 60 of 80 classes are shown." in text
    assert pictures(text) == 60
    assert len(text) < 300_000
    assert excerpt([7] * 20 + [3] * 5) == [*range(10), *range(20, 25)]


def test_images_without_a_picture_say_so():
    two = made(channels=2)
    assert "Images of 2 channels have no picture" in two._repr_html_()
    with pytest.raises(ConfigError, match="a figure needs images of 1 or 3 channels"):
        two.show()


def test_a_condensation_shows_images_and_curves(condensed):
    text = condensed._repr_html_()
    assert "finished 3 steps" in text
    assert pictures(text) == 4
    assert 'aria-label="loss by step: from' in text


def test_an_evaluation_shows_its_intervals():
    text = evaluation(row(), row("random", difference=-0.1, reference="dm"), notes=("a note",))._repr_html_()
    assert text.count('class="bar"') == 2
    assert "<p>a note</p>" in text
    assert evaluation()._repr_html_().startswith('<div class="ck">')


def test_a_replay_shows_curves_and_the_table(replayed):
    text = replayed._repr_html_()
    assert "Accuracy on all classes seen by experience" in text
    assert '<table class="results">' in text


def test_a_search_shows_the_table_and_the_scores(searched):
    assert "Best candidate by" in searched._repr_html_()
    trials = (Trial("dm", {"width": 8}, 0.5), Trial("dm", {"width": 16}, None, "failed", reason="no memory"))
    text = SearchResult(None, trials, searched.rows, None, {'{"width":8}': (50.0,)})._repr_html_()
    assert "Scores of dm against the truth" in text
    assert SearchResult(None, (), (), None, {})._repr_html_().startswith('<div class="ck">')


def test_displays_are_bounded_whole_pages(condensed, replayed, searched):
    for shown in (shapes(), condensed, condensed.set, evaluation(row()), replayed, searched):
        text = shown._repr_html_()
        assert len(text) < 100_000
        assert len(repr(shown)) < 300
        assert "\n" not in repr(shown)
        assert not re.search(r"<(script|link|iframe)|https?://(?!www\.w3\.org)", text)


# figures


def test_every_result_gives_a_figure(condensed, replayed, searched):
    for figure, panels in (
        (shapes().show(), 4),
        (condensed.show(), 4),
        (condensed.set.show(), 4),
        (condensed.plot(), 2),
        (evaluation(row(), row("random"), row(network="ResNet")).plot(), 2),
        (replayed.plot(), 1),
        (searched.plot(), 3),
    ):
        assert isinstance(figure, Drawn)
        assert len(figure.axes) == panels
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_figure_of_images_names_the_classes():
    figure = made(70, 12, names={0: "cat", 1: EVIL, 2: "a" * 100}).show()
    assert [axes.get_ylabel() for axes in figure.axes[:4]] == ["cat", r"<script>\$x\$ & \x1b", f"{'a' * 21}...", "3"]
    assert len(figure.axes) == 60
    assert "10 of up to 12 images of each class, 60 of 70 classes" in figure.get_suptitle()
    assert png(figure)


def test_nothing_to_plot_is_said():
    empty = CondenseResult(made(), Status.FINISHED, "nothing was left to do")
    with pytest.raises(ConfigError, match="no step has a metric to plot"):
        empty.plot()
    with pytest.raises(ConfigError, match="no scores to plot"):
        SearchResult(None, (Trial("dm", {}, None, "failed"),), (), None, {}).plot()
    assert png(evaluation().plot())


def test_figures_ignore_a_style_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "matplotlibrc").write_text("axes.grid: nonsense\n")
    monkeypatch.chdir(tmp_path)
    assert png(made().show())
