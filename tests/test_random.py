"""Philox against the known answers of its authors; streams that depend on nothing but their names."""

import numpy as np
import pytest
from scipy import stats

from lrcore import cpu, random, reference
from lrcore.cpu._target import kernel

# Known answers published with Random123: counter, key, output.
ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), ANSWERS)
@pytest.mark.parametrize("function", [random.philox, kernel(random.philox)], ids=["source", "compiled"])
def test_known_answers(function, counter, key, expected):
    assert tuple(int(word) for word in function(*map(np.uint64, counter), *map(np.uint64, key))) == expected


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_normals_equal_the_reference(count):
    actual, expected = np.empty(count), np.empty(count)
    name = tuple(np.uint64(k) for k in (2**63 + 5, 3, 1))
    cpu.normals(*name, actual)
    reference.normals(*name, expected)
    assert np.abs(actual - expected).max() < 1e-14


def test_a_stream_does_not_depend_on_how_much_of_it_is_made():
    long, short = np.empty(1001), np.empty(10)
    for out in (long, short):
        cpu.normals(np.uint64(1), np.uint64(2), np.uint64(3), out)
    assert np.array_equal(long[:10], short)


def test_streams_are_normal_and_independent():
    draws = np.empty((6, 40_000))
    names = [(0, 1, 1), (0, 2, 1), (0, 1, 2), (1, 1, 1), (2**32, 1, 1), (2**64 - 1, 1, 1)]
    for out, name in zip(draws, names, strict=True):
        cpu.normals(*map(np.uint64, name), out)
        assert stats.kstest(out, "norm").pvalue > 1e-4
    correlations = np.corrcoef(draws) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(40_000)


def test_uniform_never_gives_zero():
    largest = np.uint64(0xFFFFFFFF)
    assert random.uniform(np.uint64(0), np.uint64(0)) == 2.0**-53
    assert random.uniform(largest, largest) == 1.0
