"""Recipes: each published method as its paper runs it, from names, text and objects, and their names."""

import dataclasses
import sys
import textwrap

import pytest

from condensekit import catalog
from condensekit.catalog import COSTS, PUBLISHED, as_recipe, name_of, names, parse, recipe, recipes
from condensekit.compute import Machine
from condensekit.data.images import ImageSpec
from condensekit.driver import condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, GradientMatching, KernelRidge
from condensekit.methods.discrepancy import MMD, Gaussian, Moments
from condensekit.methods.encoders import Fresh
from condensekit.methods.gradient import mse
from condensekit.methods.recipe import Recipe
from condensekit.methods.sampling import Clustered, Importance, Uniform
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.selection.base import Function, Noise
from condensekit.selection.classic import KMeans, Random
from condensekit.selection.importance import ImportanceKMeans
from condensekit.sets.formation import BySize, Formation
from condensekit.testing import shapes
from condensekit.training.augment import Augmentation

OWN = """
    from dataclasses import dataclass
    from condensekit.methods import DistributionMatching
    from condensekit.methods.recipe import Recipe
    from condensekit.selection.base import Noise

    @dataclass(frozen=True)
    class Mine(DistributionMatching):
        strength: float = 0.5
        nesterov: bool = False
        name: str = "mine"

    @dataclass(frozen=True, kw_only=True)
    class Needing(DistributionMatching):
        strength: float
        name: str = "needing"

    ready = Mine(strength=0.25)

    def made(strength: float = 1.0):
        return Mine(strength=strength)

    def surrounded(strength: float = 1.0):
        return Recipe(Mine(strength=strength), init=Noise(), nested=True)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_methods.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_methods"
    sys.modules.pop("own_methods", None)


# as the papers run them


def test_dm_is_run_as_its_paper_does():
    assert recipes.dm() == Recipe(
        DistributionMatching(), Fresh(), Augmentation(), Uniform(), Random(), Formation(), nested=False
    )


@pytest.mark.parametrize("name", ["m3d", "echo"])
def test_m3d_and_echo_are_one(name):
    made = recipe(name)
    expected = DistributionMatching(MMD(Gaussian()), 1.0, 0.5, 128, per_image=True, space="pixel", name=name)
    assert made.method == expected
    assert made.encoder == Fresh(keep=5)
    assert made.formation == BySize(factor=2)
    assert made.augmentation == Augmentation(("color", "crop", "cutout"))


def test_dc_starts_from_noise_without_augmentation_and_dsa_from_images_with_it():
    dc, dsa = recipes.dc(), recipes.dsa()
    assert (dc.method, dsa.method) == (GradientMatching(name="dc"), GradientMatching(name="dsa"))
    assert (dc.init, dc.augmentation) == (Noise(), None)
    assert (dsa.init, dsa.augmentation) == (Random(), Augmentation())


def test_krr_is_run_without_augmentation():
    assert recipes.krr() == Recipe(KernelRidge(), augmentation=None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_recipe_is_whole(name):
    published = PUBLISHED[name]
    assert published.recipe.method.name == name
    assert published.paper
    assert published.cost in COSTS
    function = getattr(recipes, name)
    assert function() == recipe(name) == parse(name) == as_recipe(name) == published.recipe
    assert function.__doc__
    assert name_of(published.recipe) == name
    assert catalog.encoder(catalog.encoder_name(published.recipe.encoder))
    takes_it = hasattr(published.recipe.method, "discrepancy")
    assert ("discrepancy" in published.unfit) != takes_it


def test_a_recipe_gives_a_run_all_that_a_name_brings():
    made = parse("m3d batch_real=4 encoder_network=ConvNet-w8")
    found = condense(shapes(), made, ipc=1, steps=1, machine=Machine("cpu", workers=1)).set
    config = found.provenance["config"]
    assert (found.formation.factor, config["encoder"]["keep"]) == (1, 5)  # images of 8 x 8 pixels are not packed
    assert list(config["augmentation"]["ops"]) == ["color", "crop", "cutout"]


# options


def test_a_method_by_name_with_options_as_text():
    made = recipe("dm", lr="10", batch_real="64", momentum=0.9)
    assert made.method == DistributionMatching(lr=10.0, batch_real=64, momentum=0.9)
    assert made == recipes.dm(lr=10, batch_real=64, momentum="0.9")


def test_options_override_what_the_paper_says():
    made = recipes.m3d(
        lr=3.0,
        momentum=0.9,
        batch_real=32,
        discrepancy="moments-3",
        init="kmeans",
        sampling="importance",
        **{"sampling.epsilon": 0.2, "encoder.count": "2"},
        encoder="trained",
        encoder_network="ConvNet-w16",
        keep=2,
        augment="crop,flip",
        factor=1,
        nested=True,
        storage="uint8",
    )
    assert made == Recipe(
        DistributionMatching(Moments(3), 3.0, 0.9, 32, per_image=True, space="pixel", name="m3d"),
        Trained(ConvNet(width=16), count=2, keep=2),
        Augmentation(ops=("crop", "flip")),
        Importance(epsilon=0.2),
        KMeans(),
        Formation(1, "uint8"),
        nested=True,
    )


def test_options_may_be_objects():
    made = recipes.m3d(
        discrepancy=Moments(3),
        init=KMeans(),
        sampling=Importance(),
        encoder=Trained(count=2),
        augmentation=None,
        formation=Formation(3),
    )
    assert isinstance(made.method, DistributionMatching)
    assert (made.method.discrepancy, made.init, made.sampling) == (Moments(3), KMeans(), Importance())
    assert (made.encoder, made.augmentation, made.formation) == (Trained(count=2), None, Formation(3))


def test_an_architecture_in_place_of_the_encoder_embeds_like_the_papers():
    assert recipes.m3d(encoder=ConvNet(width=8)).encoder == Fresh(ConvNet(width=8), keep=5)
    assert recipes.m3d(encoder="ConvNet-w8").encoder == Fresh(ConvNet(width=8), keep=5)
    assert recipes.dm(encoder=ConvNet(width=8), keep=3).encoder == Fresh(ConvNet(width=8), keep=3)


def test_a_function_may_be_the_start():
    def mine(data, ipc, draw, compute):
        return Random()(data, ipc, draw, compute)

    assert recipes.dm(init=mine).init == Function(mine)


def test_augmentation():
    assert (
        recipes.dc(augment="none") == recipes.dc(augmentation="auto") == recipes.dc(augmentation=None) == recipes.dc()
    )
    assert recipes.dm(augment="none").augmentation is None
    assert recipes.dm(augment="auto") == recipes.dm()
    assert recipes.m3d(augment="crop").augmentation == Augmentation(("crop",))
    assert recipes.dm(augmentation="crop") == recipes.dm(augment="crop")


def test_parts_take_options_of_their_own():
    made = parse("dm sampling=kmeans sampling.clusters=7 sampling.refresh=5")
    assert made.sampling == Clustered(clusters=7, refresh=5)
    made = parse("dm init=importance-kmeans init.replacement=true init.clusters=3")
    assert made.init == ImportanceKMeans(clusters=3, replacement=True)
    assert parse("m3d encoder.keep=7").encoder == Fresh(keep=7)
    assert parse("dm init=kmeans init.candidates=1000").init == KMeans(candidates=1000)


def test_what_asks_for_nothing_is_taken_by_every_recipe():
    assert recipes.dsa(soft_labels=False, keep=None) == parse("dsa soft_labels=false") == recipes.dsa()


def test_krr_may_be_labelled_by_trained_networks():
    assert recipes.krr(encoder="trained", soft_labels=True).soft_labels


def test_keep_makes_a_fresh_encoder_a_kept_one():
    assert recipes.dm(keep=4).encoder == Fresh(keep=4)
    assert recipes.dm(encoder="kept").encoder == Fresh(keep=5)
    assert recipes.m3d(encoder="fresh").encoder == Fresh()
    assert recipes.m3d(encoder_network="ConvNet-w8").encoder == Fresh(ConvNet(width=8), keep=5)
    assert recipes.dm(encoder="trained", encoder_network="ConvNet-w8").encoder == Trained(ConvNet(width=8))


# text


def test_a_recipe_may_be_written_as_text():
    text = "dm lr=3 batch_real=64 factor=2 init=kmeans nested=True soft_labels=True momentum=0.9 sampling=kmeans"
    assert parse(text) == Recipe(
        DistributionMatching(lr=3.0, batch_real=64, momentum=0.9),
        init=KMeans(),
        sampling=Clustered(),
        formation=Formation(2),
        nested=True,
        soft_labels=True,
    )
    assert Recipe.parse(text) == parse(text)
    with pytest.raises(ConfigError, match=r"factor is given 2 times .*: keep one of them"):
        parse("dm factor=1 factor=2")
    with pytest.raises(ConfigError, match="factor must be a whole number, got 'two'"):
        parse("dm factor=two")


@pytest.mark.parametrize(("word", "value"), [("true", True), ("Yes", True), ("1", True), ("no", False), ("0", False)])
def test_flags_are_read_alike_everywhere(word, value):
    made = parse(f"dm nested={word} soft_labels={word} per_image={word}")
    assert isinstance(made.method, DistributionMatching)
    assert (made.nested, made.soft_labels, made.method.per_image) == (value, value, value)


def test_a_flag_that_is_no_flag_is_refused():
    with pytest.raises(ConfigError, match="nested must be true or false, got 'on'"):
        parse("dm nested=on")


def test_anything_that_stands_for_a_recipe():
    assert as_recipe("m3d lr=3") == recipes.m3d(lr=3)
    assert as_recipe(recipes.m3d()) == recipes.m3d()
    assert as_recipe(DistributionMatching(lr=3.0)) == recipes.dm(lr=3)


NAMES = [
    ("m3d", "m3d"),
    ("m3d encoder=kept keep=5 lr=1.0", "m3d"),
    ("m3d factor=2", "m3d factor=2"),  # small images, too
    ("m3d factor=1 lr=3.0", "m3d lr=3 factor=1"),
    ("m3d discrepancy=linear", "m3d discrepancy=linear"),
    ("m3d encoder=fresh", "m3d encoder=fresh"),
    ("m3d batch_real=256", "m3d batch_real=256"),
    ("dm discrepancy=moments-4", "dm discrepancy=moments-4"),
    ("dm init=random augment=auto", "dm"),
    ("dm factor=2 init=kmeans nested=true", "dm init=kmeans factor=2 nested=True"),
    ("dm lr=10 batch_real=8 init=noise", "dm lr=10 batch_real=8 init=noise"),
    ("dm init=kmeans init.candidates=1000", "dm init=kmeans init.candidates=1000"),
    ("dm sampling=importance sampling.weights=none", "dm sampling=importance sampling.weights=none"),
    ("dm sampling=kmeans sampling.refresh=7", "dm sampling=kmeans sampling.refresh=7"),
    ("dm encoder_network=ConvNet-w8-d1", "dm encoder_network=ConvNet-d1-w8"),
    ("dm encoder=trained encoder.count=2 keep=3", "dm encoder=trained keep=3 encoder.count=2"),
    ("dm keep=4", "dm encoder=kept keep=4"),
    ("dm augment=none storage=uint8", "dm augment=none storage=uint8"),
    ("dm augment=crop,flip", "dm augment=crop,flip"),
    ("dm soft_labels=yes encoder=trained", "dm encoder=trained soft_labels=True"),
    ("dsa distance=mse outer=3", "dsa distance=mse outer=3"),
    ("dc init=noise", "dc"),
    ("dc inner=0", "dc inner=0"),
    ("krr labels=soft ridge=0.001", "krr ridge=0.001 labels=soft"),
]


@pytest.mark.parametrize(
    ("size", "text", "factor"),
    [
        (8, "m3d", 1),
        (11, "echo", 1),
        (12, "m3d", 2),
        (32, "m3d storage=uint8", 2),
        (8, "m3d factor=2", 2),
        (8, "dm", 1),
    ],
)
def test_small_images_are_packed_only_if_asked_for(size, text, factor):
    """Friction 38: m3d packed digits of 8 x 8 pixels four in one, 75.8 % where dm had 87.9."""
    spec = ImageSpec((1, size, size), (0.5,), (0.5,))
    made = parse(text).on(spec)
    assert made.formation == Formation(factor, "uint8" if "uint8" in text else "float32")
    assert made.on(spec) is made


@pytest.mark.parametrize(("text", "name"), NAMES)
def test_the_name_of_a_recipe_says_what_is_not_the_default(text, name):
    assert name_of(parse(text)) == name


@pytest.mark.parametrize("text", [text for text, _ in NAMES])
def test_the_name_of_a_recipe_gives_it_back(text):
    assert parse(name_of(parse(text))) == parse(text)


def test_options_that_may_be_none_take_numbers():
    method = recipes.dc(outer="3").method
    assert isinstance(method, GradientMatching)
    assert method.outer == 3
    assert name_of(recipes.dc(inner=0)) == "dc inner=0"
    method = recipes.dsa(distance="mse").method
    assert isinstance(method, GradientMatching)
    assert method.distance is mse


# methods of one's own


@pytest.mark.parametrize(
    ("name", "options", "strength"),
    [
        ("Mine", {}, 0.5),
        ("Mine", {"strength": "2"}, 2),
        ("made", {}, 1),
        ("made", {"strength": "3"}, 3),
        ("ready", {}, 0.25),
        ("ready", {"strength": "4"}, 4),
    ],
)
def test_own_method(own, name, options, strength):
    made = recipe(f"{own}:{name}", **options)
    assert vars(made.method)["strength"] == strength
    assert made == Recipe(made.method)  # in DM's surroundings


def test_own_method_in_its_own_surroundings(own):
    made = recipe(f"{own}:surrounded", strength="3", factor=2)
    assert vars(made.method)["strength"] == 3
    assert (made.init, made.nested, made.formation.factor) == (Noise(), True, 2)


def test_own_method_with_a_flag(own):
    assert vars(recipe(f"{own}:Mine", nesterov="true").method)["nesterov"] is True
    with pytest.raises(ConfigError, match="nesterov must be true or false, got 'maybe'"):
        recipe(f"{own}:Mine", nesterov="maybe")


def test_own_method_with_an_option_that_has_no_default(own):
    made = parse(f"{own}:Needing strength=0.3")
    assert vars(made.method)["strength"] == 0.3
    assert made.augmentation is not None
    assert name_of(made) == "needing strength=0.3"
    with pytest.raises(ConfigError) as caught:
        parse(f"{own}:Needing strenght=0.3")
    said = "option of method 'own_methods:Needing' 'strength' has no default: give it a value, strength=VALUE"
    assert caught.value.problems[1:] == (said,)
    assert "Did you mean 'strength'" in caught.value.problems[0]
    with pytest.raises(ConfigError, match="'strength' has no default"):
        recipe(f"{own}:Needing")


def test_entry_point(own, monkeypatch):
    from importlib.metadata import EntryPoint

    def points(group):
        return [EntryPoint("theirs", f"{own}:Mine", group)] if group == "condensekit.methods" else []

    monkeypatch.setattr(names, "entry_points", points)
    assert recipe("theirs").method.name == "mine"
    with pytest.raises(ConfigError, match=r"Did you mean 'theirs'\? Known: .*ncfm, theirs"):
        recipe("their")


# what makes no sense


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dmm", "unknown method 'dmm'. Did you mean 'dm'"),
        ("dm lrr=1", "unknown option of method 'dm' 'lrr'. Did you mean 'lr'"),
        ("dm name=x", "unknown option of method 'dm' 'name'"),
        ("dm batch_real=2.5", "batch_real must be a whole number, got '2.5'"),
        ("dm lr=nan", "lr must be positive and finite, got nan"),
        ("no_such_module:Thing", "cannot import method 'no_such_module:Thing'"),
        ("math:Thing", "cannot import method 'math:Thing'"),
        ("math:pi", "gives a float: expected a Condenser or a Recipe"),
        ("dc encoder=kept", "dc takes no encoder: it trains the networks it matches gradients of"),
        ("dsa keep=5", "dsa takes no keep: it trains the networks"),
        ("dsa discrepancy=linear", "dsa takes no discrepancy: it compares gradients"),
        ("dc augment=crop", "dc takes no augment: under an augmentation it is dsa"),
        ("dc augmentation=crop", "dc takes no augmentation: under an augmentation it is dsa"),
        ("dsa encoder.keep=3", "dsa takes no encoder.keep: it trains the networks"),
        ("dsa soft_labels=true", "dsa takes no soft_labels: its networks are trained"),
        ("krr discrepancy=mean", "krr takes no discrepancy: it compares predicted labels"),
        (
            "dm encoder=fresh keep=5",
            "encoder=fresh draws a network for each step: leave out keep=5, or use encoder=kept",
        ),
        ("dm momentum", "a recipe is written NAME key=value ..., got 'momentum'"),
        ("dm network.width=8", "network.width: only init, sampling, encoder, schedule, through have options"),
        ("dm sampling.epsilon=1", "unknown option of sampling 'uniform' 'epsilon'"),
        ("dm encoder=kept encoder.kep=2", "Did you mean 'keep'"),
        ("dm init=noise init.clusters=3", "noise has no option 'clusters'"),
        ("dm discrepancy=gausian", "unknown discrepancy 'gausian'. Did you mean 'gaussian'"),
        ("dm discrepancy=moments-9", "order must be an integer in 1 to 8, got 9"),
        ("dsa distance=manhattan", "unknown distance 'manhattan'"),
        ("dsa outer=many", "outer must be a whole number, got 'many'"),
        ("dm sampling=importanc", "unknown sampling 'importanc'. Did you mean 'importance'"),
        ("dm encoder=keptt", "unknown encoder 'keptt'. Did you mean 'kept'"),
        ("dm init=jpeg-random", "unknown init 'jpeg-random'"),
        ("dm init=math:pi", "gives a float"),
        ("dm encoder=math:pi", "expected a subclass of Encoder"),
        ("dm factor=0", "factor must be an integer of at least 1, got 0"),
        ("dm storage=int4", "storage dtype must be one of"),
        ("dm lr=1 lr=3", "lr is given 2 times"),
        ("dm encoder=kept encoder.keep=2 keep=3", "keep and encoder.keep are the same: leave out one of them"),
        ("dm augment=crop augmentation=flip", "augment and augmentation are the same: leave out one of them"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(text, says):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_listed():
    with pytest.raises(ConfigError) as caught:
        parse("dc lr=nan discrepancy=mean encoder=kept encoder_network=x sampling=y init=z")
    assert len(caught.value.problems) == 6
    with pytest.raises(ConfigError) as caught:
        recipe("dm", lr="nan", momentum=2.0, batch_real="few", extra=1)
    assert len(caught.value.problems) == 4


def test_a_new_field_of_a_recipe_is_an_option_of_every_recipe():
    """Its plain fields are read as text and named without a line for each."""
    plain = [field.name for field in dataclasses.fields(Recipe) if field.type == "bool"]
    assert plain == ["nested", "soft_labels"]
    for name in plain:
        made = parse(f"dm {name}=true")
        assert getattr(made, name) is True
        assert name_of(made) == f"dm {name}=True"
