"""What runs on a GPU, without one: nothing waits in a step, no operation mixes devices, memory follows the plan."""

import dataclasses
from typing import Any

import pytest
import torch

import condensekit as ck
from condensekit import catalog, driver
from condensekit.compute import PRECISIONS, Compute, Machine, eager
from condensekit.compute import compute as compute_module
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError
from condensekit.methods import base
from condensekit.methods.sampling import Importance
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.testing import shapes
from condensekit.training import train
from condensekit.training.evaluation import Candidate, evaluate
from tests.compute import gpu as gpu_module
from tests.compute.gpu import CUDA, stand_in

BATCH = 12  # real images of each class in a step, and images of a batch of training
SHORT = {"batch_real": BATCH, "outer": 2, "inner": 1, "batch_net": BATCH}  # where a method has these options
EXTRAS = (
    "",
    "factor=2",
    "nested=true",
    "classes_per_step=2",
    "space=pixel",
    "space=pixel optimiser=adamw weight_decay=0.1",
    "schedule=cosine average=0.5",
    "schedule=plateau schedule.patience=0 average=1 classes_per_step=2",
    "networks=2",
    "labels=soft",
    "encoder=trained soft_labels=true",
    "encoder=trained calibration=0.1",
    *(f"sampling={name}" for name in catalog.SAMPLINGS),
    *(f"encoder={name}" for name in catalog.ENCODERS),
    *(f"{option}={name}" for option, known in catalog.texts.OBJECTS.items() for name in known),
)
JOINT = {"krr": "its Gram matrix joins all classes"}  # recipes whose memory grows with the classes by nature
READ = {  # places where a selection reads from the GPU, each with the reason
    "selection/embeddings.py": "distances are measured on the host, where k-means++ of scikit-learn runs",
    "sets/pictures.py": "pictures are coded on the host",
}


def recipe(text):
    made: Any = ck.Recipe.parse(text)
    fields = {f.name for f in dataclasses.fields(made.method)}
    made = made.replace(method=dataclasses.replace(made.method, **{k: v for k, v in SHORT.items() if k in fields}))
    if isinstance(made.sampling, Importance):
        made = made.replace(sampling=Importance(protocol=dataclasses.replace(made.sampling.protocol, steps=2)))
    changes = {"steps": 2, "count": 2} if made.encoder.trained else {}
    return made.replace(encoder=made.encoder.replace(network=ConvNet(width=8), **changes))


def fitting():
    """Every recipe of the catalog, and with each option that fits it."""
    for name in catalog.PUBLISHED:
        for extra in dict.fromkeys(EXTRAS):
            text = f"{name} {extra}".strip()
            try:
                recipe(text).check(shapes(), 2, Machine("cpu"))
            except ConfigError:
                continue
            yield text


@pytest.fixture
def gpu():
    with stand_in() as made:
        yield made


@pytest.fixture
def steps(gpu, monkeypatch):
    """For each step of a condensation: what waited, the copies, and the most bytes beyond those before it."""
    found, advance = [], driver._Loop._advance

    def watched(loop):
        waits, copies, before = len(gpu.waits), len(gpu.copies), gpu.live
        gpu.peak = before
        advance(loop)
        found.append((gpu.waits[waits:], gpu.copies[copies:], gpu.peak - before))

    monkeypatch.setattr(driver._Loop, "_advance", watched)
    return found


def run(text, data, ipc=2, steps=2, precision="fp32"):
    made = driver.condense(data, recipe(text), ipc=ipc, steps=steps, machine=Machine("cuda:0", precision))
    assert made.status is driver.Status.FINISHED, made.message
    return made


@pytest.mark.parametrize("text", [*fitting(), *(f"dm init={name}" for name in catalog.STARTS)])
def test_no_step_waits_for_the_gpu(text, steps):
    run(text, shapes().to(CUDA))
    most = 8 * len(shapes().classes) * BATCH  # the indices of a real batch
    assert len(steps) == 2
    for waits, copies, _ in steps:
        assert waits == []
        assert [copy for copy in copies if copy.waits or copy.nbytes > most] == []


@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("text", catalog.PUBLISHED)
def test_no_step_waits_in_bfloat16_with_images_on_the_host(text, precision, steps, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    monkeypatch.setattr(gpu_module, "STAGED", 8 * 4 * BATCH)  # bytes of the indices of a batch; images take more
    run(text, shapes(), precision=precision)
    assert all(waits == [] and not any(copy.waits for copy in copies) for waits, copies, _ in steps)


@pytest.mark.parametrize("text", [name for name in catalog.PUBLISHED if name not in ("dc", "dsa")])
def test_a_step_with_graphs_waits_for_nothing_and_takes_no_more_memory(text, gpu, monkeypatch):
    lived, advance = [], driver._Loop._advance

    def watched(loop):
        before = len(gpu.waits)
        advance(loop)
        lived.append((gpu.live, len(gpu.waits) - before, loop.compute.graphs))

    monkeypatch.setattr(driver._Loop, "_advance", watched)
    run(text, shapes(), steps=8)
    live, waits, graphs = zip(*lived, strict=True)
    again = text in ("dance", "ncfm")  # whose calibration takes the synthetic images a second time in a step
    assert (
        graphs[: 2 if again else 3] == (0, 0, 0)[: 2 if again else 3]
    )  # until it is decided, and a first of each size
    assert graphs[4] == graphs[7] > 1
    assert waits[4:] == (0, 0, 0, 0)
    assert live[7] - live[4] < 100  # bytes of metrics that wait to be read


def test_a_step_of_dm_takes_few_launches_whatever_the_number_of_classes(gpu, monkeypatch):
    counted, advance = [], driver._Loop._advance

    def watched(loop):
        before = gpu.launches
        advance(loop)
        counted.append(gpu.launches - before)

    monkeypatch.setattr(driver._Loop, "_advance", watched)
    for classes in (6, 24):
        run("dm", images_of(classes), steps=10)
    assert max(counted[5:10]) < 180
    assert max(counted[15:]) < max(counted[5:10]) + 10


@pytest.mark.parametrize(("free", "there"), [(1, True), (0.9, False)])
def test_images_lie_on_a_gpu_that_has_twice_their_memory(free, there, gpu, monkeypatch):
    data = shapes()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * free * data.images.nbytes, 1 << 40))
    with Compute(Machine("cuda:0")) as compute:
        near = data.near(compute)
        assert (near.images.device == CUDA) is there
        assert near.images.dtype == torch.uint8
        assert torch.equal(near.order, data.order)
        assert near.near(compute) is near
    with Compute(Machine("cpu")) as compute:
        assert data.near(compute) is data


def test_condensing_and_evaluating_copy_images_once(gpu):
    data = shapes()
    run("dm", data, steps=4)
    protocol = dataclasses.replace(catalog.protocol("idc"), epochs=2, full_epochs=2)
    with Compute(Machine("cuda:0")) as compute:
        evaluate(
            [Candidate("all", (data,))],
            data,
            network=[ConvNet(width=8)],
            networks=2,
            protocol=protocol,
            compute=compute,
        )
    whole = [copy for copy in gpu.copies if copy.nbytes == data.images.nbytes]
    assert [copy.place.partition(":")[0] for copy in whole] == 3 * ["data/images.py"]


@pytest.mark.parametrize("ahead", [True, False])
def test_a_small_gpu_takes_smaller_batches_and_no_graphs(ahead, gpu, monkeypatch, caplog):
    """Memory for 4 images at a time, on the way ahead or on the way back."""
    module = ConvNet(width=8).new((3, 8, 8), 4, Draw(0), device=CUDA).requires_grad_(False)
    called, grad = eager.called, torch.autograd.grad

    def full(images):
        if len(images) > 4:
            raise torch.OutOfMemoryError("too much")

    def small(entry, module, images, low):
        full(images if ahead else ())
        return called(entry, module, images, low)

    def small_back(outputs, inputs, *rest):
        full(() if ahead else inputs)
        return grad(outputs, inputs, *rest)

    monkeypatch.setattr(eager, "called", small)
    monkeypatch.setattr(torch.autograd, "grad", small_back)
    with Compute(Machine("cuda:0", compiled=True)) as compute:
        features, pull = compute.pullback(module, torch.zeros(16, 3, 8, 8, device=CUDA))
        assert pull(features).shape == (16, 3, 8, 8)
        assert compute.chunk == 4
        assert compute.machine.compiled is False
    assert caplog.text.count("out of memory: continuing with chunks of") == 2


def test_a_gpu_without_room_for_a_step_ends_with_one_line(gpu, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(ClassImages, "gather", full)
    with pytest.raises(ConfigError, match=r"^out of memory on cuda:0: lower the real batch"):
        run("dm", shapes())


def images_of(classes):
    pixels = torch.arange(classes * 32 * 192).reshape(-1, 3, 8, 8) % 251
    return ClassImages.from_arrays(pixels.to(torch.uint8), torch.arange(classes * 32) % classes)


@pytest.mark.parametrize(
    "text",
    [
        *(name for name in catalog.PUBLISHED if name not in JOINT),
        "dm encoder=trained calibration=1",
        "dm optimiser=adamw",
    ],
)
def test_a_step_has_memory_for_one_group_of_classes_and_for_a_new_state(text, steps, monkeypatch):
    ipc, size = 12, 8 * 8 * 24
    monkeypatch.setitem(base.GROUP_PIXELS, "cuda", size)  # one class with its real batch
    for classes in (4, 8):
        run(text, images_of(classes).to(CUDA), ipc, steps=1)
    added = 4 * ipc * 3 * 8 * 8 * 4  # bytes of the images of the other four classes
    moments = 2 if "optimiser=adamw" in text or text == "ncfm" else 1
    assert steps[1][2] - steps[0][2] < (2.5 + moments) * added  # new images, new moments, gradients


def there_and_back(compute):
    def use(module, x):
        features, pull = compute.pullback(module, x)
        return pull(features)

    return use


def test_large_batches_go_through_a_network_in_parts(gpu, monkeypatch):
    monkeypatch.setattr(compute_module, "PART_PIXELS", 8 * 8 * 10)
    monkeypatch.setattr(compute_module, "KEPT_VALUES", 0)
    peaks, module = [], ConvNet(width=32).new((3, 8, 8), 4, Draw(0), device=CUDA).requires_grad_(False)
    with Compute(Machine("cuda:0")) as compute:
        for count in (20, 40):
            x = torch.zeros(count, 3, 8, 8, device=CUDA)
            for use in (compute.features, compute.logits, there_and_back(compute)):
                gpu.peak = before = gpu.live
                use(module, x)
                peaks.append((gpu.peak - before) / count)
    for small, large in zip(peaks[:3], peaks[3:], strict=True):
        assert large < 0.75 * small  # bytes for each image fall, as those of one part are shared


@pytest.mark.parametrize("name", catalog.PROTOCOLS)
@pytest.mark.parametrize("place", ["a set", "soft labels", "real images on the host", "real images on the GPU"])
def test_no_step_of_a_training_waits(name, place, gpu):
    data, targets = shapes(), torch.arange(len(shapes())) % 4
    images = {"real images on the host": data, "real images on the GPU": data.to(CUDA)}.get(
        place, data.at(torch.arange(len(data)))
    )
    targets = torch.full((len(data), 4), 0.25) if place == "soft labels" else targets
    seen = []
    with Compute(Machine("cuda:0")) as compute:
        for steps in (2, 6):
            protocol = dataclasses.replace(catalog.protocol(name), steps=steps, batch=BATCH)
            gpu.waits.clear(), gpu.copies.clear()
            train.train_network(images, targets, ConvNet(width=8), protocol, Draw(0), compute, 4)
            seen.append((len(gpu.waits), [copy for copy in gpu.copies if copy.waits]))
    assert seen[0] == seen[1]


def test_a_test_pass_waits_once(gpu, monkeypatch):
    data, seen = shapes(), []
    module = ConvNet(width=8).new(data.spec.shape, 4, Draw(0), device=CUDA)
    with Compute(Machine("cuda:0")) as compute:
        for block in (len(data), 5):
            monkeypatch.setattr(train, "TEST_PIXELS", block * 64)
            gpu.waits.clear()
            train.accuracy(module, data, data.classes, compute)
            seen.append(len(gpu.waits))
    assert seen == [1, 1]
    assert not any(copy.waits for copy in gpu.copies)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", catalog.SELECTIONS)
def test_a_selection_reads_features_and_no_more(name, there, gpu):
    data = shapes().to(CUDA) if there else shapes()
    gpu.copies.clear()
    with Compute(Machine("cuda:0")) as compute:
        chosen = catalog.selection(name)(data, 2, Draw(0), compute)
    assert len(chosen.indices) >= len(data.classes)
    assert not [wait for wait in gpu.waits if not any(place in wait for place in READ)]
    assert not [copy for copy in gpu.copies if copy.waits]


def test_an_evaluation_runs_on_the_gpu(gpu):
    data = shapes()
    candidates = [Candidate("random", (ck.select(data, ck.Random(), ipc=2),)), Candidate("all", (data,))]
    protocol = dataclasses.replace(catalog.protocol("idc"), epochs=1, full_epochs=1)
    with Compute(Machine("cuda:0")) as compute:
        found = evaluate(candidates, data, network=[ConvNet(width=8)], networks=1, protocol=protocol, compute=compute)
    assert len(found.rows) == 2


def fault(text):
    """Lines that must not pass, on a tensor ``x`` on the GPU."""
    return lambda x: eval(text, {"x": x, "torch": torch})


@pytest.mark.parametrize(
    "text",
    ["x.sum().item()", "bool(x.any())", "x.tolist()", "x.cpu()", "x[x.sum().long()]", "torch.equal(x, x)"],
)
def test_the_stand_in_sees_waits(text, gpu):
    fault(text)(torch.zeros(4, device=CUDA))
    assert gpu.waits


@pytest.mark.parametrize("text", ["x[x > 0]", "x.nonzero()", "torch.unique(x)", "torch.masked_select(x, x > 0)"])
def test_the_stand_in_sees_results_whose_size_the_host_must_read(text, gpu):
    with pytest.raises((NotImplementedError, RuntimeError)):
        fault(text)(torch.zeros(4, device=CUDA))
    assert gpu.waits


@pytest.mark.parametrize("text", ["x + torch.zeros(4)", "torch.cat([x, torch.zeros(4)])", "x @ torch.zeros(4)"])
def test_the_stand_in_sees_a_mix(text, gpu):
    with pytest.raises(AssertionError, match="mixes host and GPU"):
        fault(text)(torch.zeros(4, device=CUDA))


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("torch.zeros(3).to(x.device)", True),
        ("torch.zeros(3).to(x.device, non_blocking=True)", False),
        ("torch.tensor([1.0, 2.0], device=x.device)", True),
        ("x.new_tensor([1.0, 2.0])", True),
        ("x[torch.tensor([0, 1])]", True),
        ("x.copy_(torch.zeros(4))", True),
    ],
)
def test_the_stand_in_sees_copies_from_the_host(text, waits, gpu):
    fault(text)(torch.zeros(4, device=CUDA))
    assert [copy.waits for copy in gpu.copies] == [waits]
    assert gpu.waits == []
