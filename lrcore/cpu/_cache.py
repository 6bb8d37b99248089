"""Where compiled kernels are kept, so that a second process starts in milliseconds.

The folder is named after the sources of the core: Numba asks whether the file of a kernel has changed, and does not
see that what the kernel calls has. It lies in the first of these that can be written: NUMBA_CACHE_DIR where that is
set, `__pycache__` beside the kernels, the user's cache, and at last a temporary folder, with one warning.

A file that is damaged is compiled again and replaced: it begins with a checksum, which is compared before anything
else is believed. Nothing here touches a disk before the first kernel is called.
"""

import functools
import hashlib
import os
import pickle
import tempfile
import warnings
from importlib import resources
from pathlib import Path

from numba.core import caching, config
from numba.core.serialize import dumps

CHECKSUM = hashlib.sha256
HERE = Path(__file__).parent


class KernelCache:
    """What a dispatcher of Numba's asks for compiled code: the cache of one function, made when it is first asked."""

    def __init__(self, function):
        self._function = function

    @functools.cached_property
    def _cache(self):
        return _FunctionCache(self._function) if folder() else caching.NullCache()

    @property
    def cache_path(self):
        return self._cache.cache_path

    @property
    def has_files(self):
        """Whether anything is kept of this function."""
        return folder() is not None and os.path.isfile(self._cache._cache_file._index_path)

    def load_overload(self, signature, target_context):
        return self._cache.load_overload(signature, target_context)

    def save_overload(self, signature, result):
        try:
            self._cache.save_overload(signature, result)
        except OSError as error:
            _warn_once(f"Compiled kernels cannot be kept ({error}), so each process compiles them again.")


class _Locator:
    """Every kernel lies in one folder, and is as fresh as that."""

    def get_cache_path(self):
        return str(folder())

    def ensure_cache_path(self):
        folder().mkdir(parents=True, exist_ok=True)

    def get_source_stamp(self):
        return source_digest()

    def get_disambiguator(self):
        return "lrbias"

    @classmethod
    def from_function(cls, function, file):
        return cls()


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _FunctionCache(caching.FunctionCache):
    _impl_class = _Implementation

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _CheckedFile(self._cache_path, self._impl.filename_base, source_digest())

    def _index_key(self, sig, codegen):
        """The folder tells apart sources, the file names of functions: what is left are types and the machine."""
        return sig, codegen.magic_tuple()


class _CheckedFile(caching.IndexDataCacheFile):
    """An index and data files that begin with a checksum of the rest."""

    def _load_index(self):
        content = _read(self._index_path)
        if content is None:
            return {}
        version, stamp, overloads = pickle.loads(content)
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads):
        self._write(self._index_path, (self._version, self._source_stamp, overloads))

    def _load_data(self, name):
        content = _read(self._data_path(name))
        if content is None:
            raise FileNotFoundError(name)  # to Numba one that was removed, so it compiles
        return pickle.loads(content)

    def _save_data(self, name, data):
        self._write(self._data_path(name), data)

    def _write(self, path, value):
        content = dumps(value)
        with self._open_for_write(path) as file:
            file.write(CHECKSUM(content).digest() + content)


def _read(path):
    """What was written to a file; None where there is none, and with a warning where it is damaged."""
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    size = CHECKSUM().digest_size
    if CHECKSUM(data[size:]).digest() != data[:size]:
        _warn_once(f"{path} is damaged; the kernel is compiled again.")
        return None
    return data[size:]


@functools.cache
def _warn_once(sentence):
    warnings.warn(sentence, RuntimeWarning, stacklevel=2)


@functools.cache
def source_digest():
    """16 digits that change with the sources of the core, and with the length of vectors that is asked for."""
    digest = CHECKSUM(os.environ.get("LRBIAS_VECTOR_BITS", "").encode())
    for name, content in sorted(_sources(resources.files("lrcore"))):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


def _sources(root, prefix=""):
    """(name, content) of the Python files below `root`, but those for GPUs, which are not kept."""
    for entry in root.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.name.endswith(".py"):
            yield name, entry.read_bytes()
        elif entry.is_dir() and entry.name not in ("cuda", "__pycache__"):
            yield from _sources(entry, f"{name}/")


@functools.cache
def folder():
    """The folder of compiled kernels, or None where nothing can be written anywhere."""
    name = f"lrbias-{source_digest()}"
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / name
    for parent in (HERE / "__pycache__", *_users_cache()):
        if _is_writable(parent / name):
            return parent / name
    try:
        temporary = _private(Path(tempfile.gettempdir()))
    except OSError as error:
        _warn_once(f"Compiled kernels cannot be kept ({error}), so each process compiles them again.")
        return None
    places = " and ".join(str(parent) for parent in (HERE, *_users_cache()))
    _warn_once(f"{places} cannot be written: kernels are kept in {temporary}. Set NUMBA_CACHE_DIR to choose a folder.")
    return temporary / name


def _users_cache():
    """The user's folder for caches, in a list; an empty one where the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if base:
        return [Path(base) / "lrbias"]
    home = Path("~").expanduser() if os.environ.get("HOME") else None
    return [home / ".cache" / "lrbias"] if home else []


def _is_writable(path):
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _private(parent):
    """A folder below `parent` that nobody else can have filled: what is loaded from it is run."""
    if hasattr(os, "getuid"):
        path = parent / f"lrbias-{os.getuid()}"
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if path.is_dir() and not path.is_symlink() and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return path
    return Path(tempfile.mkdtemp(prefix="lrbias-", dir=parent))
