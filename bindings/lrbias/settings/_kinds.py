"""The kinds of a part of an experiment by name (methods, initializations, problems): ours, and those of other packages.

A kind is a `Settings` model with a `name`. It is registered where it is written:

    @METHODS.add
    class GD(Method): ...

or by another package, as an entry point of the group that is named here.
"""

import functools
import importlib
import pkgutil
from collections.abc import Collection, Iterator
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

from lrbias.errors import InvalidInput, check, shorten
from lrbias.settings._fields import either
from lrbias.settings._models import Settings, did_you_mean

K = TypeVar("K", bound="Kind")


class Kind(Settings):
    """One of several things that a part of an experiment can be.

    name         what names it: a flag, or `kind` in a table
    selected_by  words that select it where no kind is named
    exclusive    groups of words of which one at most is given
    excludes     {word: others that mean nothing beside it}
    """

    name: ClassVar[str]
    selected_by: ClassVar[tuple[str, ...]] = ()
    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()
    excludes: ClassVar[dict[str, tuple[str, ...]]] = {}


def import_all(package: str) -> None:
    """Import all modules of a package, so that what they register is known."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)


class Kinds:
    """What one of an experiment's parts can be.

    section   the part, as a sentence calls it: "method"
    word      the flag and flat key that names the kind; in a TOML table that is always `kind`
    default   the kind of a part of which nothing is said
    base      what all kinds are subclasses of
    home      the package whose modules register kinds when they are imported
    group     entry points with further ones
    """

    def __init__(
        self, section: str, word: str, default: str, base: type[Kind], home: str | None = None, group: str | None = None
    ) -> None:
        self.section = section
        self.word = word
        self.default = default
        self.base = base
        self.home = home
        self.group = group
        self._known: dict[str, type[Kind]] = {}

    def add(self, kind: type[K]) -> type[K]:
        """Register a kind; as a decorator it returns the class."""
        self._known[kind.name] = kind
        return kind

    @functools.cached_property
    def all(self) -> dict[str, type[Kind]]:
        """{name: class}, with those of other packages: the default first, then by name."""
        if self.home is not None:
            import_all(self.home)
        if self.group is not None:
            for point in entry_points(group=self.group):
                self.add(load_entry_point(point, self.base))
        return dict(sorted(self._known.items(), key=lambda item: (item[0] != self.default, item[0])))

    def __iter__(self) -> Iterator[type[Kind]]:
        return iter(self.all.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.all)

    def find(self, name: Any) -> type[Kind]:
        """The kind of this name, or InvalidInput."""
        known = isinstance(name, str) and name in self.all
        near = did_you_mean(name, self.all) if isinstance(name, str) else ""
        check(known, self.word, name, either(self.names) + near)
        return self.all[name]

    def choose(self, words: Collection[str]) -> type[Kind]:
        """The kind of a part whose kind is not named: the one that some of these words are about, else the default."""
        for kind in self:
            if set(kind.selected_by) & set(words):
                return kind
        return self.all[self.default]

    def read(self, value: Any) -> Any:
        """A kind from one, or from a table {"kind": …, key: value}."""
        if isinstance(value, self.base):
            return value
        accepted = f"a {self.base.__name__}, or a table with its kind and settings"
        check(isinstance(value, dict), self.word, value, accepted)
        settings = dict(value)
        return self.find(settings.pop("kind", self.default))(**settings)


class OneOf:
    """The field is one of these kinds, which has settings of its own: `target: Annotated[Target, OneOf(TARGETS)]`."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A table is read as the kind that it names."""
        return no_info_before_validator_function(self.kinds.read, handler(source))


def kinds_of(field: FieldInfo) -> Kinds | None:
    """The kinds that a field is one of, None for a plain setting."""
    found = [data.kinds for data in field.metadata if isinstance(data, OneOf)]
    return found[0] if found else None


def load_entry_point(point: Any, base: type) -> Any:
    """What an entry point of another package names: an instance or a subclass of `base`, else InvalidInput."""
    where = f"the entry point {point.name} = {point.value} of {point.dist.name if point.dist else 'a package'}"
    try:
        found = point.load()
    except Exception as error:
        reason = shorten(f"<{error}")[1:]
        raise InvalidInput(f"{where} cannot be loaded ({reason}); install it anew or remove it.") from error
    if not (isinstance(found, base) or (isinstance(found, type) and issubclass(found, base))):
        raise InvalidInput(f"{where} is no {base.__name__}.")
    return found
