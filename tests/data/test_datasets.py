import functools
import gzip
import hashlib
import http.server
import pickle
import tarfile
import threading

import numpy as np
import pytest
import scipy.io
import torchvision
from PIL import Image

from condensekit.data import datasets
from condensekit.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_idx(root, folder, count=30):
    """A small MNIST in torchvision's layout; returns the checksums of its files."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, count, 28, 28))
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = b"".join(number.to_bytes(4, "big") for number in (0x801, count))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return tuple(md5(raw / name) for name in datasets.IDX_FILES)


class OldDtype:
    """Pickles as Python 2's numpy wrote it: today's NumPy warns on reading."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


def write_cifar(root, kind, count=20):
    """A small CIFAR in torchvision's layout; returns the pixels of the training images (N, 3, 32, 32)."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    classes = 10 if kind is torchvision.datasets.CIFAR10 else 100
    key = "labels" if classes == 10 else "fine_labels"
    pixels = []
    for name, _ in [*kind.train_list, *kind.test_list]:
        data = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
        pixels.append(data.reshape(-1, 3, 32, 32))
        batch = {"data": data, key: [i % classes for i in range(count)], "type": OldDtype()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = {kind.meta["key"]: [f"class {i}" for i in range(classes)]}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(names, protocol=2))
    return np.concatenate(pixels[: len(kind.train_list)])


def publish(monkeypatch, root, kind):
    """Make the files under ``root`` the published ones."""
    folder = root / kind.base_folder
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(kind, part, [[name, md5(folder / name)] for name, _ in getattr(kind, part)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})


CIFARS = [("cifar10", torchvision.datasets.CIFAR10, 100), ("cifar100", torchvision.datasets.CIFAR100, 20)]


def test_digits():
    train, test = datasets.load("digits")
    assert train.spec.shape == (1, 8, 8)
    assert (len(train), len(test)) == (1438, 359)
    assert set(train.images.unique().tolist()) == {round(v * 255 / 16) for v in range(17)}
    assert all(abs(test.count(k) / (test.count(k) + train.count(k)) - 0.2) < 0.01 for k in range(10))
    again, _ = datasets.load("digits")
    assert again.fingerprint() == train.fingerprint()
    assert test.spec is train.spec


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")])
def test_idx_files_are_checked_and_read(tmp_path, monkeypatch, name, folder):
    checksums = write_idx(tmp_path, folder)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is not the published file .* trust_local_copy=True"):
        datasets.load(name, root=tmp_path)
    trusted, _ = datasets.load(name, root=tmp_path, trust_local_copy=True)
    monkeypatch.setitem(datasets.IDX_MD5, name, checksums)
    monkeypatch.setenv("CONDENSEKIT_DATA", str(tmp_path))
    train, test = datasets.load(name)
    assert train.fingerprint() == trusted.fingerprint()
    assert (train.spec.mean, train.spec.std) == datasets.STATISTICS[name]
    assert train.spec.name_of(7) == ("7" if name == "mnist" else "7 ('Sneaker')")
    raw = (tmp_path / folder / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    assert test.images[3].numpy().tobytes() == raw[16 + 3 * 784 :][:784]


@pytest.mark.parametrize(("name", "kind", "count"), CIFARS)
def test_cifar_is_checked_and_read(tmp_path, monkeypatch, name, kind, count):
    pixels = write_cifar(tmp_path, kind)
    with pytest.raises(DataError, match=r"is not the published file .* pickle, .* can run code.*trust_local_copy=True"):
        datasets.load(name, root=tmp_path)
    trusted, held = datasets.load(name, root=tmp_path, trust_local_copy=True)
    assert np.array_equal(trusted.images.numpy(), pixels)
    assert trusted.labels.tolist() == [i % 20 % len(trusted.spec.class_names) for i in range(count)]
    assert len(held) == 20
    assert (trusted.spec.mean, trusted.spec.std) == datasets.STATISTICS[name]
    assert trusted.spec.class_names[3] == "class 3"
    publish(monkeypatch, tmp_path, kind)
    train, _ = datasets.load(name, root=tmp_path)
    assert train.fingerprint() == trusted.fingerprint()
    small, _ = datasets.load(name, root=tmp_path, image_size=16)
    assert small.spec.shape == (3, 16, 16)


def test_an_altered_pickle_does_not_run(tmp_path, monkeypatch):
    kind = torchvision.datasets.CIFAR10

    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "trace"), "w")

    write_cifar(tmp_path, kind)
    publish(monkeypatch, tmp_path, kind)
    (tmp_path / kind.base_folder / "test_batch").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="test_batch is not the published file"):
        datasets.load("cifar10", root=tmp_path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", list(datasets.TORCHVISION))
def test_missing_files_say_where_and_how(tmp_path, name):
    reason = rf"{name} is not in .*{tmp_path.name} \(.* is missing\): fetch it with download=True, .*root="
    with pytest.raises(DataError, match=reason):
        datasets.load(name, root=tmp_path)
    assert not list(tmp_path.iterdir())


def write_svhn(root, monkeypatch=None, count=25):
    """A small SVHN in torchvision's layout, the published one given a ``monkeypatch``; its training pixels, NHWC."""
    kind, pixels = torchvision.datasets.SVHN, []
    for split in ("train", "test"):
        pixels.append(RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]  # 1 to 10: that is what 0 is called there
        url, file, _ = kind.split_list[split]
        scipy.io.savemat(root / file, {"X": pixels[-1].transpose(1, 2, 3, 0), "y": labels})
        if monkeypatch:
            monkeypatch.setitem(kind.split_list, split, [url, file, md5(root / file)])
    return pixels[0]


def test_svhn_is_checked_and_read(tmp_path, monkeypatch):
    write_svhn(tmp_path)
    with pytest.raises(DataError, match=r"train_32x32.mat is not the published file .*trust_local_copy=True"):
        datasets.load("svhn", root=tmp_path)
    pixels = write_svhn(tmp_path, monkeypatch)
    train, test = datasets.load("svhn", root=tmp_path)
    assert np.array_equal(train.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert train.labels.tolist() == [(i + 1) % 10 for i in range(25)]
    assert (len(test), train.spec.class_names[7]) == (25, "7")
    assert (train.spec.mean, train.spec.std) == datasets.STATISTICS["svhn"]
    (tmp_path / "test_32x32.mat").write_bytes(b"hello")
    with pytest.raises(DataError, match="cannot read svhn in"):
        datasets.load("svhn", root=tmp_path, trust_local_copy=True)


def test_download_of_svhn(tmp_path, monkeypatch, shelf):
    kind, (shelf, address) = torchvision.datasets.SVHN, shelf
    write_svhn(shelf, monkeypatch)
    for split in ("train", "test"):
        _, file, checksum = kind.split_list[split]
        monkeypatch.setitem(kind.split_list, split, [address + file, file, checksum])
    train, test = datasets.load("svhn", root=tmp_path / "root", download=True)
    assert (len(train), len(test)) == (25, 25)


def write_tiny(root, annotated):
    """A TinyImageNet of two classes: nested training folders; validation images in a list, or in class folders."""
    codes, folder = ("n01", "n02"), root / datasets.TINY
    for k, code in enumerate(codes):
        images = folder / "train" / code / "images"
        images.mkdir(parents=True)
        (images.parent / f"{code}_boxes.txt").write_text("0 0 1 1")
        for i in range(3):
            Image.new("RGB", (64, 64), (100 * k + i, 0, 255)).save(images / f"{code}_{i}.JPEG", quality=100)
    lines = []
    for i, code in enumerate(["n02", "n01", "n02"]):
        file = folder / "val" / ("images" if annotated else code) / f"val_{i}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (200, i, 0)).save(file, quality=100)
        lines.append(f"{file.name}\t{code}\t0\t0\t62\t62\n")
    if annotated:
        (folder / "val" / "val_annotations.txt").write_text("".join(lines))
        (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn09\tsomething else\n")
    return folder


@pytest.mark.parametrize("annotated", [True, False])
def test_tinyimagenet(tmp_path, annotated):
    write_tiny(tmp_path, annotated)
    train, test = datasets.load("tinyimagenet", root=tmp_path)
    assert train.spec.shape == (3, 64, 64)
    assert [train.count(k) for k in (0, 1)] == [3, 3]
    assert test.labels.tolist() == ([1, 0, 1] if annotated else [0, 1, 1])
    assert train.spec.class_names == {0: "goldfish, Carassius auratus" if annotated else "n01", 1: "n02"}
    assert (test.spec.mean, test.spec.std) == datasets.STATISTICS["tinyimagenet"]
    assert abs(int(train.images[train.indices_of(1)[2], 0, 5, 5]) - 102) <= 2
    small, _ = datasets.load("tinyimagenet", root=tmp_path, image_size=32)
    assert small.spec.shape == (3, 32, 32)


def test_tinyimagenet_that_is_not_there_or_damaged(tmp_path):
    with pytest.raises(DataError, match=r"tinyimagenet is not in .* unpack tiny-imagenet-200.zip there .*root="):
        datasets.load("tinyimagenet", root=tmp_path, download=True)
    folder = write_tiny(tmp_path, annotated=True)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\n")
    with pytest.raises(DataError, match=r"val_annotations.txt is damaged"):
        datasets.load("tinyimagenet", root=tmp_path)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn07\n")
    with pytest.raises(DataError, match="unknown class 'n07'"):
        datasets.load("tinyimagenet", root=tmp_path)


def test_a_damaged_trusted_copy_is_refused(tmp_path):
    write_cifar(tmp_path, torchvision.datasets.CIFAR10)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"hello")
    with pytest.raises(DataError, match="cannot read cifar10 in"):
        datasets.load("cifar10", root=tmp_path, trust_local_copy=True)
    write_idx(tmp_path, "MNIST")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"hello")
    with pytest.raises(DataError, match="cannot read mnist in"):
        datasets.load("mnist", root=tmp_path, trust_local_copy=True)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder and the address at which this machine serves it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_download_on_request(tmp_path, monkeypatch, capsys, shelf):
    kind, root, (shelf, address) = torchvision.datasets.CIFAR10, tmp_path / "root", shelf
    write_cifar(shelf, kind)
    publish(monkeypatch, shelf, kind)
    with tarfile.open(shelf / kind.filename, "w:gz") as archive:
        archive.add(shelf / kind.base_folder, kind.base_folder)
    monkeypatch.setattr(kind, "url", address + kind.filename)
    monkeypatch.setattr(kind, "tgz_md5", md5(shelf / kind.filename))
    train, _ = datasets.load("cifar10", root=root, download=True)
    assert len(train) == 100
    assert capsys.readouterr().out == ""
    (shelf / kind.filename).unlink()
    datasets.load("cifar10", root=root, download=True)  # nothing is missing, nothing is fetched
    with pytest.raises(DataError, match=r"cannot download cifar10 to .*elsewhere: .* copy its files there by hand"):
        datasets.load("cifar10", root=tmp_path / "elsewhere", download=True)


def test_download_of_idx_files(tmp_path, monkeypatch, shelf):
    kind, (shelf, address) = torchvision.datasets.MNIST, shelf
    checksums = write_idx(shelf, "MNIST")
    raw, resources = shelf / "MNIST" / "raw", []
    for name in datasets.IDX_FILES:
        packed = raw / f"{name}.gz"
        packed.write_bytes(gzip.compress((raw / name).read_bytes()))
        resources.append((packed.name, md5(packed)))
    monkeypatch.setattr(kind, "resources", resources)
    monkeypatch.setattr(kind, "mirrors", [address + "MNIST/raw/"])
    monkeypatch.setitem(datasets.IDX_MD5, "mnist", checksums)
    train, test = datasets.load("mnist", root=tmp_path / "root", download=True)
    assert (len(train), len(test)) == (30, 30)


def test_unknown_names(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"unknown data set 'cifra10'\. Did you mean 'cifar10'"):
        datasets.load("cifra10")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no folder or file 'photo' here\. Did you mean 'photos'"):
        datasets.load("photo")
    with pytest.raises(DataError, match=r"nowhere\.npz does not exist"):
        datasets.load(tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match="does not exist"):
        datasets.load("some/folder")
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(DataError, match=r"notes\.txt is neither a folder nor a \.npz, .* file"):
        datasets.load(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="image_size"):
        datasets.load("digits", image_size=0)


def test_sizes_beyond_the_memory_are_refused_before_resizing():
    """``--image-size 4096`` on a whole data set ended in torch's RuntimeError, or took all memory."""
    with pytest.raises(DataError, match=r"1,797 images need 30,148,657,152 bytes of memory, more than the limit"):
        datasets.load("digits", image_size=4096)
