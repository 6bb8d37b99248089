"""Arrays of every make at the door: masks are not lost, tensors arrive with their numbers, the rest is one sentence."""

import numpy as np
import pytest

import lrbias as lb
from lrbias.settings._arrays import as_array

TARGET = np.arange(1.0, 7.0).reshape(2, 3)
MASKED = np.ma.array(np.where(TARGET == 2, -999, TARGET), mask=TARGET == 2)
SQUARES = np.ones((3, 2, 2))
SAMPLES = np.arange(8.0).reshape(4, 2)


def _part_masked(array):
    mask = np.zeros(array.shape, bool)
    mask.flat[1] = True
    return np.ma.array(np.where(mask, -999, array), mask=mask)


def test_masked_entries_of_a_target_are_not_observed():
    problem = lb.Completion(MASKED)
    np.testing.assert_array_equal(problem.mask, TARGET != 2)
    np.testing.assert_array_equal(problem.known, TARGET != 2)
    assert -999 not in problem.target


def test_masked_rows_in_a_list_keep_their_masks():
    np.testing.assert_array_equal(lb.Completion([MASKED[0], MASKED[1]]).mask, TARGET != 2)


def test_a_masked_array_with_nothing_masked_is_an_array():
    np.testing.assert_array_equal(lb.Factorization(np.ma.array(TARGET)).target, TARGET)


MASKED_ELSEWHERE = {
    "target": lambda: lb.Factorization(MASKED),
    "mask": lambda: lb.Completion(TARGET, mask=_part_masked(np.ones((2, 3), bool))),
    "entries": lambda: lb.Completion(TARGET, entries=_part_masked(np.array([[0, 1], [1, 2]]))),
    "values": lambda: lb.Sensing(SQUARES, _part_masked(np.ones(3))),
    "matrices": lambda: lb.Sensing(_part_masked(SQUARES), np.ones(3)),
    "inputs": lambda: lb.Regression(_part_masked(SAMPLES), SAMPLES),
    "outputs": lambda: lb.Regression(SAMPLES, _part_masked(SAMPLES)),
    "layers[0]": lambda: lb.Network.from_layers([MASKED]),
    "target of the nuclear norm": lambda: lb.nuclear_norm_completion(MASKED, np.ones((2, 3), bool)),
    "mask of the nuclear norm": lambda: lb.nuclear_norm_completion(TARGET, _part_masked(np.ones((2, 3), bool))),
    "values of a spectrum": lambda: lb.from_singular_values((3, 3), _part_masked(np.ones(2))),
    "eigenvalues": lambda: lb.from_eigenvalues(3, _part_masked(np.ones(2))),
    "values of jumps": lambda: lb.jumps([0, 1], _part_masked(np.ones((2, 2)))),
    "values of plateaus": lambda: lb.plateaus([0, 1], _part_masked(np.ones(2))),
    "values of a cost": lambda: lb.theory.representation_cost(_part_masked(np.ones(2)), 2),
    "t": lambda: lb.theory.mode(_part_masked(np.ones(2)), 1.0, 0.1, 2),
}


@pytest.mark.parametrize("argument", MASKED_ELSEWHERE)
def test_masked_entries_are_refused_where_they_have_no_meaning(argument):
    with pytest.raises(lb.InvalidInput, match=r"entries are masked> is not accepted") as caught:
        MASKED_ELSEWHERE[argument]()
    assert str(caught.value).startswith(argument.split(" of ")[0])


@pytest.mark.filterwarnings("ignore:1 column:lrbias.errors.DataWarning")
def test_positions_as_rows_and_columns():
    rows, columns = np.array([0, 1]), np.array([2, 0])
    expected = np.array([[False, False, True], [True, False, False]])
    np.testing.assert_array_equal(lb.Completion(TARGET, entries=(rows, columns)).mask, expected)
    np.testing.assert_array_equal(lb.Completion(TARGET, entries=np.nonzero(expected)).mask, expected)
    np.testing.assert_array_equal(lb.Completion(TARGET, entries=[[0, 2], [1, 0]]).mask, expected)
    np.testing.assert_array_equal(lb.Completion(TARGET, entries=np.array([[0, 2], [1, 0]])).mask, expected)
    three = lb.Completion(TARGET, entries=([0, 1, 1], [2, 0, 1]))
    np.testing.assert_array_equal(three.mask, [[False, False, True], [True, True, False]])


@pytest.mark.parametrize(
    "entries",
    [
        ((0, 1), (1, 0)),
        ([0, 1], [1, 0]),
        [np.array([0, 1]), np.array([1, 0])],
        (np.array([0, 1]), np.array([1, 0, 1])),
        [(0, 1), np.array([1, 0])],
    ],
    ids=["tuples", "lists", "a list of arrays", "unequal", "mixed"],
)
def test_two_sequences_that_could_be_pairs_or_rows_and_columns_are_refused(entries):
    with pytest.raises(lb.InvalidInput, match=r"^entries = .* a tuple \(rows, columns\) of two arrays"):
        lb.Completion(TARGET, entries=entries)


def test_a_sweep_keeps_the_meaning_of_its_positions():
    from lrbias.sweeps._axes import plain_settings

    rows, columns = np.array([0, 1]), np.array([2, 0])
    assert plain_settings({"entries": (rows, columns), "rank": 2}) == {"entries": [[0, 2], [1, 0]], "rank": 2}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the extra `torch` is not installed")


TENSORS = {
    "float64": lambda torch: torch.tensor(TARGET),
    "recording gradients": lambda torch: torch.tensor(TARGET, requires_grad=True),
    "a result": lambda torch: torch.tensor(TARGET, requires_grad=True) * 1,
    "bfloat16": lambda torch: torch.tensor(TARGET, dtype=torch.bfloat16),
    "float16": lambda torch: torch.tensor(TARGET, dtype=torch.float16),
    "integers": lambda torch: torch.tensor(TARGET).long(),
    "coordinates": lambda torch: torch.tensor(TARGET).to_sparse(),
    "compressed rows": lambda torch: torch.tensor(TARGET).to_sparse_csr(),
    "negated": lambda torch: torch.tensor(TARGET)._neg_view() * -1,
    "rows": lambda torch: [torch.tensor(row, requires_grad=True) for row in TARGET],
    "a transpose": lambda torch: torch.tensor(TARGET.T.copy()).T,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")  # of PyTorch, about itself
@pytest.mark.parametrize("make", TENSORS)
def test_tensors_arrive_with_their_numbers(torch, make):
    np.testing.assert_array_equal(lb.Factorization(TENSORS[make](torch)).target, TARGET)


def test_a_tensor_without_numbers_is_refused(torch):
    with pytest.raises(lb.InvalidInput, match="meta device"):
        lb.Factorization(torch.empty((2, 3), device="meta"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_layers_keep_their_precision(torch, dtype):
    layers = [torch.ones((2, 2), dtype=getattr(torch, dtype), requires_grad=True)] * 2
    assert lb.Network.from_layers(layers).dtype == (np.float64 if dtype == "float64" else np.float32)


class _Odd:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not today")


ODD = {
    "complex": np.ones((2, 2), complex),
    "boolean": np.ones((2, 2), bool),
    "text": [["a", "b"]],
    "dates": np.ones((2, 2), "datetime64[s]"),
    "records": np.ones((2, 2), [("a", float)]),
    "objects": np.array([[None]]),
    "ragged": [[1, 2], [3]],
    "a number": 3.0,
    "nothing": None,
    "empty": np.ones((0, 2)),
    "a set": {1, 2},
    "raising": _Odd(),
    "raising in a list": [_Odd(), _Odd()],
    "long": np.full((2, 2), np.longdouble("1e4000")),
    "a huge integer": [[10**400]],
    "masked": [[1.0, np.ma.masked]],
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("door", [lb.Factorization, lb.Completion, lambda value: lb.Network.from_layers([value])])
def test_what_is_no_matrix_of_real_numbers_is_one_sentence(door, kind):
    if kind == "masked" and door is lb.Completion:
        return  # there it is an entry that is not known
    with pytest.raises(lb.InvalidInput) as caught:
        door(ODD[kind])
    assert "\n" not in str(caught.value)


USUAL = {
    "big endian": TARGET.astype(">f8"),
    "not contiguous": np.repeat(TARGET, 2, axis=1)[:, ::2],
    "columns first": np.asfortranarray(TARGET),
    "a matrix": TARGET.view(np.matrix),
    "half": TARGET.astype(np.float16),
    "long double": TARGET.astype(np.longdouble),
    "unsigned": TARGET.astype(np.uint64),
    "nested tuples": tuple(map(tuple, TARGET.tolist())),
}


@pytest.mark.parametrize("kind", USUAL)
def test_usual_arrays_arrive(kind):
    target = lb.Factorization(USUAL[kind]).target
    np.testing.assert_array_equal(target, TARGET)
    assert (target.dtype, target.flags.c_contiguous, target.flags.writeable) == (np.float64, True, False)


def test_arrays_of_other_libraries():
    scipy, pandas = pytest.importorskip("scipy.sparse"), pytest.importorskip("pandas")
    np.testing.assert_array_equal(lb.Factorization(scipy.csr_array(TARGET)).target, TARGET)
    np.testing.assert_array_equal(lb.Factorization(pandas.DataFrame(TARGET)).target, TARGET)
    with pytest.raises(lb.InvalidInput, match="real numbers"):
        lb.Factorization(pandas.DataFrame({"a": ["x", "y"]}))


def test_bfloat16_of_jax():
    dtypes = pytest.importorskip("ml_dtypes")
    assert as_array("target", TARGET.astype(dtypes.bfloat16)).dtype == np.float32
