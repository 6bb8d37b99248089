"""Which metrics of a run are due at a step, and where their values go."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lrbias.devices import CPU, Device
from lrbias.errors import check
from lrbias.metrics._functions import fitting, user_value
from lrbias.metrics._memory import Memory
from lrbias.metrics._record import Record
from lrbias.metrics._registry import METRICS, Metric, Place
from lrbias.metrics._state import NetworkState, RunContext
from lrbias.storage import Group, Quantity
from lrbias.system import cores
from lrcore.sheet import Sheet

Entry = tuple[Metric, int, list[Quantity]]  # interval in steps
SMALL = 12  # up to so many neurons a layer, a record was measured to be made as soon as it is handed to a thread
Write = Callable[[Any, int, Any], None]


class Taken(NamedTuple):
    """What is taken from a sheet for a Group: the places of its numbers."""

    group: Group
    places: np.ndarray


class Due(NamedTuple):
    """What is measured at a step.

    sheet     the numbers that are made in one call, None for none
    taken     what is taken of them
    needs     vectors that the others need of each matrix
    measures  (function of the state, interval, quantities, whether it is the user's own) of the others
    """

    sheet: Sheet | None
    taken: list[Taken]
    needs: dict[Any, int]
    measures: list[tuple[Callable[[Any], Any], int, list[Quantity], bool]]


def logs_asynchronously(threads: int, record: Record, widths: Sequence[int], device: Device = CPU) -> bool:
    """Whether there is a core to measure on beside `threads` of training, and it is worth while to hand records over.

    Functions of the user's are not moved. An accelerator leaves even the core free from which it was called.
    """
    if device.is_accelerator:
        return not record.functions()
    return cores() > threads and max(widths) > SMALL and not record.functions()


class MetricSchedule:
    """Which metrics are due at a step, and the quantities they write."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.entries = [self._entry(name, interval) for name, interval in context.record.intervals().items()]
        self.intervals = sorted({interval for _, interval, _ in self.entries})
        self.memory = Memory()
        self._places = {chosen.name: chosen.places(context) for chosen, _, _ in self.entries}
        groups = [self._group(interval) for interval in self.intervals]
        self.groups = {group.interval: group for group in groups if group.quantities}
        self._plans: dict[tuple[bool, ...], Due] = {}

    @property
    def ordered(self) -> bool:
        """Whether a record enters the next one, so that they have to be made one after the other."""
        return any(chosen.stateful for chosen, _, _ in self.entries)

    def _entry(self, name: str, interval: int) -> Entry:
        functions = self.context.record.functions()
        chosen = _from_function(name, functions[name]) if name in functions else METRICS[name]
        floats = self.context.dtype.str.lstrip("<=")
        kinds = {"float": floats, "int": "i4"}
        rows = [] if name in functions else chosen.quantities(self.context)
        return chosen, interval, [Quantity(label, tuple(shape), kinds[kind], interval) for label, shape, kind in rows]

    def probe(self, state: NetworkState, known: dict[str, Any] | None = None) -> None:
        """Complete the quantities of the user's functions by calling each once, before the first step.

        known: of a run that is resumed {name: {shape, dtype, …}}, which the values are to keep to.
        """
        for chosen, interval, quantities in self.entries:
            if quantities or chosen.name not in self.context.record.functions():
                continue
            value = user_value(chosen.name, chosen.measure(state)[0], "at the start")
            shape = value.shape
            dtype = value.dtype.str.lstrip("<=|")
            if known is not None:
                shape = tuple(known[chosen.name]["shape"])
                dtype = known[chosen.name]["dtype"]
            quantities.append(Quantity(chosen.name, shape, dtype, interval))
            fitting(quantities[0], value, "at the start")
            self._check_apart(chosen.name)

    def _check_apart(self, name: str) -> None:
        """A quantity can be neither another one nor a folder of others, in the log as on disk."""
        others = ["loss", "losses", *(quantity.name for quantity in self.quantities)]
        others.remove(name)
        clashes = [other for other in others if f"{other}/".startswith(f"{name}/") or name.startswith(f"{other}/")]
        check(not clashes, "metrics", name, f"a name apart from those of {', '.join(clashes[:3])}")

    @property
    def quantities(self) -> list[Quantity]:
        return [quantity for _, _, quantities in self.entries for quantity in quantities]

    def is_due(self, step: int) -> bool:
        """Whether anything is measured at `step`."""
        return any(step % interval == 0 for interval in self.intervals)

    def due(self, step: int) -> list[Entry]:
        """The entries that are measured at `step`."""
        return [entry for entry in self.entries if step % entry[1] == 0]

    def measure(self, state: NetworkState, params: np.ndarray, step: int, write: Write) -> None:
        """Call write(quantity name or Group, row, value) for everything that is due at `step`.

        The values of a Group are those of its quantities, one behind the other.
        """
        due = self._plan(step)
        if due.measures:
            self.memory.turn_to(step)
        state.at(params, step, due.needs, self.memory)
        with np.errstate(all="ignore"):  # what is not finite is recorded as such
            if due.sheet is not None:
                numbers = state.numbers(due.sheet)
                for group, places in due.taken:
                    write(group, step // group.interval, numbers[places])
            for measure, interval, quantities, own in due.measures:
                row = step // interval
                for quantity, value in zip(quantities, measure(state), strict=True):
                    write(quantity.name, row, fitting(quantity, value, f"at step {step}") if own else value)

    def _plan(self, step: int) -> Due:
        """How `step` is measured. Of steps at which different things are due there are few kinds, each planned once."""
        which = tuple(step % interval == 0 for interval in self.intervals)
        if which not in self._plans:
            self._plans[which] = self._planned(self.due(step))
        return self._plans[which]

    def _planned(self, entries: list[Entry]) -> Due:
        """What is due where these entries are."""
        functions = self.context.record.functions()
        others = [entry for entry in entries if self._places[entry[0].name] is None and entry[2]]
        listed = [place for chosen, _, _ in entries for place in self._places[chosen.name] or ()]
        sheet = self.context.sheet([part for part, _ in listed]) if listed else None
        taken = [self._taken(group, sheet) for group in self._groups_of(entries)] if sheet else []
        needs = self._merge(chosen.needs(self.context) for chosen, _, _ in others)
        measures = [(chosen.measure, every, found, chosen.name in functions) for chosen, every, found in others]
        return Due(sheet, taken, needs, measures)

    def _of_sheets(self, interval: int) -> Iterator[tuple[Place, Quantity]]:
        """What of this interval stands in sheets, and where."""
        for chosen, every, quantities in self.entries:
            if every == interval:
                yield from zip(self._places[chosen.name] or (), quantities, strict=False)

    def _group(self, interval: int) -> Group:
        return Group([quantity for _, quantity in self._of_sheets(interval)], interval)

    def _groups_of(self, entries: list[Entry]) -> list[Group]:
        """The groups that are due where these entries are."""
        intervals = sorted({interval for _, interval, _ in entries})
        return [self.groups[interval] for interval in intervals if interval in self.groups]

    def _taken(self, group: Group, sheet: Sheet) -> Taken:
        """Where in a sheet the numbers of a group stand."""
        everywhere = np.arange(sheet.size)
        places = (place for place, _ in self._of_sheets(group.interval))
        return Taken(group, np.concatenate([np.ravel(everywhere[sheet.places[part]][index]) for part, index in places]))

    @staticmethod
    def _merge(needs: Iterable[dict[Any, int]]) -> dict[Any, int]:
        """The most vectors of each matrix that any of the metrics needs."""
        merged: dict[Any, int] = {}
        for each in needs:
            for key, count in each.items():
                merged[key] = max(count, merged.get(key, 0))
        return merged


def _from_function(name: str, function: Callable[[Any], Any]) -> Metric:
    return Metric(name, lambda context: [], lambda state: [function(state.network)], lambda context: {})
