"""Where compiled kernels are kept, so that a second process starts in milliseconds.

The folder is named after the sources of the core: Numba asks whether the file of a kernel has changed, and does not
see that what the kernel calls has. It lies in the first of these that can be written: NUMBA_CACHE_DIR where that is
set, `__pycache__` beside the kernels, the user's cache, and at last a temporary folder, with one warning.

A file that is damaged is compiled again and replaced: it begins with a checksum, which is compared before anything
else is believed. Nothing here touches a disk before the first kernel is called.
"""

import functools
import glob
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
        return folder() is not None and any(self._cache._cache_file.files())

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
    """A file for each signature, which begins with a checksum of the rest.

    Numba numbers its files and lists them in an index. Two processes that compiled a kernel at the same time, each for
    its own types, could take the same number: the code of one was then loaded for the types of the other.
    """

    def _path(self, key):
        """A file is named after what it holds."""
        name = CHECKSUM(repr((self._version, self._source_stamp, key)).encode()).hexdigest()[:16]
        return f"{self._prefix}{name}.nbc"

    @property
    def _prefix(self):
        return self._index_path.removesuffix("nbi")

    def load(self, key):
        content = _read(self._path(key))
        if content is None:
            return None
        known, data = pickle.loads(content)
        return data if known == (self._version, self._source_stamp, key) else None

    def save(self, key, data):
        content = dumps(((self._version, self._source_stamp, key), data))
        with self._open_for_write(self._path(key)) as file:
            file.write(CHECKSUM(content).digest() + content)

    def flush(self):
        for path in self.files():
            path.unlink(missing_ok=True)

    def files(self):
        """Those that there are."""
        prefix = Path(self._prefix)
        return prefix.parent.glob(f"{glob.escape(prefix.name)}*.nbc")


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
