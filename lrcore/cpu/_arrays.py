"""Arrays of kernels: made of an address; filled and copied number by number, since what Numba makes of an assignment to
a slice takes seconds to compile."""

from numba import carray

from lrcore.cpu._target import part
from lrcore.cpu._vector import pointer_at


@part
def array_at(ptr, like, shape):
    """The array in C order that begins at an address, of numbers of the type of `like`. It keeps nothing alive."""
    return carray(pointer_at(ptr, like), shape)


@part
def clear(vector):
    for i in range(vector.size):
        vector[i] = 0


@part
def clear_rows(table, first, last):
    """Rows first … last − 1."""
    for i in range(first, last):
        for j in range(table.shape[1]):
            table[i, j] = 0


@part
def copy(source, out):
    for i in range(source.size):
        out[i] = source[i]


@part
def copy_rows(source, table, first):
    """All rows of `source`, into the table from row `first` on."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            table[first + i, j] = source[i, j]
