"""What is not accepted: one sentence with argument, value and what is accepted; exit code 2; nothing is created."""

import numpy as np
import pytest

import lrbias as lb
from lrbias.cli import _app as cli
from lrbias.experiments import Experiment
from runs import settings

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with files that cannot be used as they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "blank.csv").write_text("\n \n")
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n")
    (tmp_path / "nan.csv").write_text("1,nan\n2,3\n")
    (tmp_path / "zero.csv").write_text("0,0\n0,0\n")
    (tmp_path / "good.csv").write_text("1,2\n3,4\n")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "fake.png").write_text("no image")
    (tmp_path / "matrix.xyz").write_text("1 2")
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    np.save(tmp_path / "objects.npy", np.array([[None]], dtype=object))
    np.save(tmp_path / "none.npy", np.ones((0, 3)))
    (tmp_path / "broken.toml").write_text("lr = = 3")
    (tmp_path / "unknown.toml").write_text("[method]\nlearning_rate = 0.1")
    (tmp_path / "text.toml").write_text('[method]\nlr = "fast"')
    (tmp_path / "float.toml").write_text("[run]\nsteps = 10.5")
    (tmp_path / "bool.toml").write_text("[run]\nsteps = true")
    (tmp_path / "metric.toml").write_text("[record.metrics]\nstable_rank = 0")
    (tmp_path / "shape.toml").write_text("[problem.target]\nshape = 5")
    (tmp_path / "nan.toml").write_text("[method]\nkind = nan")
    (tmp_path / "fake.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", something=np.ones(3))
    np.savez(tmp_path / "measured.npz", matrices=np.ones((3, 2, 2)), values=np.ones(3))
    np.savez(tmp_path / "unequal.npz", matrices=np.ones((3, 2, 2)), values=np.ones(2))
    (tmp_path / "schedule.toml").write_text('[problem]\nentries = 9\n[method]\nkind = "sgd"\nlr_schedule = 0.5')
    (tmp_path / "replacement.toml").write_text('[problem]\nentries = 9\n[method]\nkind = "sgd"\nreplacement = "no"')
    (tmp_path / "positions.toml").write_text(
        "[problem]\nentries = [[0, 1], [5, 0]]\n[problem.target]\nshape = [5, 4]\nrank = 2"
    )
    (tmp_path / "outside.toml").write_text("lr = 0.1")
    (tmp_path / "section.toml").write_text("[metod]\nlr = 0.1")
    (tmp_path / "near.toml").write_text("[network]\ngama = 1.5")
    (tmp_path / "kind.toml").write_text('[method]\nkind = "flo"')
    (tmp_path / "table.toml").write_text("method = 3")
    (tmp_path / "other_kind.toml").write_text('[method]\nkind = "gd"\ndt = 0.1')
    (tmp_path / "taken").mkdir()
    return tmp_path


# The words after `lrbias`, and what the sentence must contain.
CLI = {
    "lr zero": ("run --lr 0", "lr = 0.0", "greater than 0"),
    "lr negative": ("run --lr=-1", "lr = -1.0", "greater than 0"),
    "lr nan": ("run --lr nan", "lr = nan", "finite"),
    "lr inf": ("run --lr inf", "lr = inf", "finite"),
    "lr text": ("run --lr fast", "--lr", '"fast"', "float"),
    "dt zero": ("run --method flow --dt 0", "dt = 0.0", "greater than 0"),
    "dt for gd": ("run --dt 0.1", "dt = 0.1", "of method flow, not of gd"),
    "lr for flow": ("run --method flow --lr 0.1", "lr = 0.1", "not of flow"),
    "scheme": ("run --method flow --scheme rk5", "scheme = 'rk5'", "rk4"),
    "method": ("run --method adam", "method = 'adam'", "gd, flow, glrl, linearized or sgd"),
    "steps zero": ("run --steps 0", "steps = 0", "at least 1"),
    "steps negative": ("run --steps=-5", "steps = -5", "at least 1"),
    "steps fraction": ("run --steps 1.5", "--steps = 1.5", "integers"),
    "steps huge": (f"run --steps {10**30}", "steps = 1000000", "integer"),
    "crop fraction": ("run --target good.csv --crop 1.5 1", "--crop = 1.5 1", "integers"),
    "store is empty": ("run -o .", "store = '.'", "does not exist yet"),
    "threads": ("run --threads 0", "threads = 0", "from 1 to 256"),
    "every zero": ("run --every 0", "every = 0", "at least 1"),
    "checkpoint_every zero": ("run --checkpoint-every 0", "checkpoint_every = 0", "at least 1"),
    "rank above size": ("run --shape 5 4 --rank 6", "rank = 6", "at most 4"),
    "rank zero": ("run --rank 0", "rank = 0", "at least 1"),
    "shape zero": ("run --shape 0 4", "shape = 0", "at least 1"),
    "shape too short": ("run --shape 5", "--shape", "2"),
    "teacher depth": ("run --shape 5 4 --rank 2 --teacher-depth 1", "depth = 1", "at least 2"),
    "teacher seed": ("run --teacher-seed=-1", "teacher_seed = -1", "0 to 2^64"),
    "plateaus of what": ("run --stop-plateaus 1 --metrics stable_rank", "metrics = ('stable_rank',)", "effective_rank"),
    "init": ("run --init zero", "init = 'zero'", "gaussian, balanced"),
    "alpha": ("run --init scaled_identity --alpha 0", "alpha = 0.0", "greater than 0"),
    "beta": ("run --init perturbed --alpha 0.1 --beta 0.1", "beta = 0.1", "less than alpha, 0.1"),
    "beta of another init": (
        "run --init scaled_identity --beta 0.1",
        "beta = 0.1",
        "of network perturbed, not of scaled_identity",
    ),
    "gamma of another init": (
        "run --init orthogonal --gamma 1",
        "gamma = 1.0",
        "of network gaussian, not of orthogonal",
    ),
    "alpha of gaussian": ("run --alpha 0.1", "alpha = 0.1", "not of gaussian, which has"),
    "identical rectangles": (
        "run --init scaled_identity --shape 5 6 --rank 2",
        "init = 'scaled_identity'",
        "all square",
    ),
    "compress": ("run --compress yes", "compress = 'yes'", "auto or off"),
    "values": ("run --values 3 -1", "values = ", "at least 0"),
    "too many values": ("run --values 3 2 1 --shape 2 9", "values = ", "at most 2"),
    "values and rank": ("run --values 3 1 --rank 2", "rank = 2", "of target teacher, not of singular_values"),
    "eigenvalues": ("run --eigenvalues 3 1 --shape 2 9", "shape = (2, 9)", "two equal integers"),
    "eigenvalues and values": ("run --eigenvalues 3 1 --values 2", "values = (2.0,)", "not of eigenvalues"),
    "too many eigenvalues": ("run --eigenvalues 3 1 --shape 1 1", "eigenvalues = ", "at most 1"),
    "scale": ("run --spectral-norm 0", "spectral_norm = 0.0", "greater than 0"),
    "depth zero": ("run --depth 0", "depth = 0", "at least 1"),
    "widths against target": ("run --shape 5 4 --rank 2 --widths 4 3 6", "widths = (4, 3, 6)", "end with 5"),
    "widths zero": ("run --shape 5 4 --rank 2 --widths 4 0 5", "widths = 0", "at least 1"),
    "widths too few": ("run --shape 5 4 --rank 2 --widths 4", "widths = (4,)", "at least two"),
    "widths and depth": ("run --shape 5 4 --rank 2 --widths 4 5 --depth 2", "depth = 2", "only one of widths, depth"),
    "gamma nan": ("run --gamma nan", "gamma = nan", "finite"),
    "gamma too negative": ("run --gamma=-1000", "gamma = -1000.0", "finite in float64"),
    "seed negative": ("run --seed=-3", "seed = -3", "0 to 2^64"),
    "dtype": ("run --dtype float16", "dtype = 'float16'", "float64 or float32"),
    "metric unknown": ("run --metrics speed", "metrics = 'speed'", "singular_values"),
    "metric interval": ("run --metrics stable_rank=0", "stable_rank = 0", "at least 1"),
    "metric interval text": ("run --metrics stable_rank=x", "'stable_rank=x'", "name=interval"),
    "threshold": ("run --numerical-threshold 0", "numerical_threshold = 0.0", "greater than 0"),
    "directions": ("run --directions 0", "directions = 0", "at least 1"),
    "stop loss": ("run --stop-loss=-1", "stop_loss = -1.0", "greater than 0"),
    "stop gradient": ("run --stop-gradient nan", "stop_gradient = nan", "finite"),
    "format": ("run --format gif", "format = 'gif'", "png, pdf or svg"),
    "target missing": ("run --target no.npy", "target = 'no.npy'", "exists"),
    "target folder": ("run --target taken", "target = 'taken'", "exists"),
    "target empty csv": ("run --target empty.csv", "target = 'empty.csv'", "empty"),
    "target blank csv": ("run --target blank.csv", "target = 'blank.csv'", "empty"),
    "target empty npy": ("run --target empty.npy", "target = 'empty.npy'", "readable .npy"),
    "target words": ("run --target words.csv", "target = 'words.csv'", "readable .csv"),
    "target ragged": ("run --target ragged.csv", "target = 'ragged.csv'", "readable .csv"),
    "target nan": ("run --target nan.csv", "target = 'nan.csv'", "finite"),
    "target no image": ("run --target fake.png", "target = 'fake.png'", "readable .png"),
    "target ending": ("run --target matrix.xyz", "target = 'matrix.xyz'", ".npy"),
    "target cube": ("run --target cube.npy", "target = 'cube.npy'", "2 dimensions"),
    "target complex": ("run --target complex.npy", "target = 'complex.npy'", "real numbers"),
    "target objects": ("run --target objects.npy", "target = 'objects.npy'", "readable .npy"),
    "target without entries": ("run --target none.npy", "target = 'none.npy'", "at least one entry"),
    "target zero scaled": ("run --target zero.csv --spectral-norm 2", "target = 'zero.csv'", "not all zero"),
    "target and teacher": ("run --target good.csv --rank 2", "rank = 2", "of target teacher, not of file"),
    "crop too large": ("run --target good.csv --crop 5 5", "crop = (5, 5)", "(2, 2)"),
    "crop of a teacher": ("run --crop 5 5", "crop = (5, 5)", "of target file, not of teacher"),
    "network missing": ("run --network no.npz", "network = 'no.npz'", "checkpoint"),
    "network no archive": ("run --network fake.npz", "network = 'fake.npz'", "checkpoint"),
    "toml missing": ("run no.toml", "file = 'no.toml'", "exists"),
    "toml broken": ("run broken.toml", "file = 'broken.toml'", "TOML"),
    "toml unknown key": ("run unknown.toml", "learning_rate = 0.1", "lr"),
    "toml text": ("run text.toml", "lr = 'fast'", "greater than 0"),
    "toml float steps": ("run float.toml", "steps = 10.5", "integer"),
    "toml boolean": ("run bool.toml", "steps = True", "integer"),
    "toml metric interval": ("run metric.toml", "metrics.stable_rank = 0", "at least 1"),
    "toml shape": ("run shape.toml", "shape = 5", "two integers"),
    "toml nan": ("run nan.toml", "method = nan", "gd, flow"),
    "toml outside": ("run outside.toml", "lr = 0.1", "write lr = … below [method]"),
    "init of greedy": ("run --method glrl --init gaussian", "init = 'gaussian'", "glrl makes its network itself"),
    "inner of another method": ("run --method glrl --inner flow --lr 0.1", "lr = 0.1", "of inner gd, not of flow"),
    "flag of before, joined": ("run --scale=3", "--scale is not accepted", "called --spectral-norm now"),
    "flag of before": ("run --scale 3", "--scale is not accepted", "called --spectral-norm now"),
    "a key of a schedule twice": (
        "run --lr-schedule linear_decay:factor=1,factor=1,stop=3",
        "lr_schedule =",
        "key once",
    ),
    "toml section": ("run section.toml", "[metod]", "did you mean method?"),
    "toml near": ("run near.toml", "gama = 1.5", "did you mean gamma?"),
    "toml kind": ("run kind.toml", "method = 'flo'", "did you mean flow?"),
    "toml table": ("run table.toml", "method = 3", "outside of a section"),
    "toml other kind": ("run other_kind.toml", "dt = 0.1", "[method] of kind gd has"),
    "init again": ("init broken.toml", "file = 'broken.toml'", "does not exist"),
    "init nowhere": ("init no/such.toml", "file = 'no/such.toml'", "in a folder that exists"),
    "store exists": ("run -o taken", "store = 'taken'", "does not exist"),
    "store is a file": ("run -o good.csv", "store = 'good.csv'", "does not exist"),
    "store below a file": ("run -o good.csv/run", "store = 'good.csv/run'", "can be written"),
    "store name too long": (f"run -o {'x' * 300}", "store = 'xxx", "File name too long"),
    "ridge negative": ("run --ridge=-1", "ridge = -1.0", "at least 0"),
    "ridge nan": ("run --ridge nan", "ridge = nan", "finite"),
    "ridge too large": ("run --lr 0.5 --ridge 1", "ridge = 1.0", "less than 1/(2 lr) = 1"),
    "ridge too large for sgd": (
        "run --method sgd --entries 9 --lr 0.1 --ridge 5",
        "ridge = 5.0",
        "less than 1/(2 lr) = 5",
    ),
    "ridge of a flow": ("run --method flow --ridge=-1", "ridge = -1.0", "at least 0"),
    "batch of gd": ("run --batch 2", "batch = 2", "of method sgd, not of gd"),
    "replacement of gd": ("run --no-replacement", "replacement = False", "of method sgd, not of gd"),
    "batch zero": ("run --method sgd --batch 0", "batch = 0", "at least 1"),
    "batch above entries": (
        "run --shape 5 4 --rank 2 --method sgd --entries 9 --batch 10",
        "batch = 10",
        "at most 9, the number of observed entries",
    ),
    "sampling seed": ("run --method sgd --sampling-seed=-1", "sampling_seed = -1", "0 to 2^64"),
    "stop loss of sgd": ("run --method sgd --stop-loss 0.1", "stop_loss = 0.1", "those of single entries"),
    "schedule kind": (
        "run --lr-schedule cosine:factor=0.1",
        "lr_schedule = 'cosine:factor=0.1'",
        "square_wave",
    ),
    "schedule text": (
        "run --ridge-schedule exponential_decay:factor",
        "ridge_schedule = 'exponential_decay:factor'",
        "key=value",
    ),
    "schedule factor": ("run --lr-schedule exponential_decay:factor=2,stop=9", "lr_schedule: factor = 2", "at most 1"),
    "schedule order": ("run --lr-schedule exponential_decay:factor=0.1,start=9,stop=9", "stop = 9", "after start = 9"),
    "schedule steps": (
        "run --lr-schedule piecewise_constant:factor=0.1,milestones=9+5",
        "milestones = [9, 5]",
        "steps that increase",
    ),
    "schedule incomplete": ("run --lr-schedule square_wave:factor=0.1", "lr_schedule: period is missing", "at least 1"),
    "schedule of a flow": (
        "run --method flow --lr-schedule piecewise_constant:factor=0.1,milestones=5",
        "lr_schedule = 'piecewise_constant:factor=0.1,milestones=5'",
        "not of flow",
    ),
    "fraction zero": ("run --fraction 0", "fraction = 0.0", "greater than 0 and at most 1"),
    "fraction above one": ("run --fraction 1.5", "fraction = 1.5", "at most 1"),
    "fraction nan": ("run --fraction nan", "fraction = nan", "at most 1"),
    "fraction of no entry": ("run --shape 5 4 --rank 2 --fraction 0.01", "fraction = 0.01", "one entry is observed"),
    "fraction and entries": (
        "run --fraction 0.5 --entries 9",
        "entries = 9",
        "only one of observed, fraction, entries",
    ),
    "entries zero": ("run --entries 0", "entries = 0", "at least 1"),
    "entries too many": ("run --shape 5 4 --rank 2 --entries 21", "entries = 21", "at most 20"),
    "mask seed": ("run --entries 9 --mask-seed=-1", "mask_seed = -1", "0 to 2^64"),
    "mask seed of nothing": ("run --mask-seed 3", "mask_seed = 3", "of problem completion"),
    "mean of nothing": ("run --reduction mean", "reduction = 'mean'", "of problem completion"),
    "observed missing": ("run --observed no.npy", "observed = 'no.npy'", "exists"),
    "observed missing archive": ("run --observed no.npz", "observed = 'no.npz'", "exists"),
    "observed no archive": ("run --observed fake.npz", "observed = 'fake.npz'", "a mask, or with matrices"),
    "observed of another kind": ("run --observed other.npz", "observed = 'other.npz'", "a mask, or with matrices"),
    "observed nothing": ("run --target good.csv --observed zero.csv", "observed = <no entry", "at least one"),
    "observed nan": ("run --target good.csv --observed nan.csv", "observed = 'nan.csv'", "finite"),
    "observed shape": ("run --observed good.csv", "observed = <an array of shape (2, 2)>", "shape (100, 100)"),
    "observed words": ("run --observed words.csv", "observed = 'words.csv'", "readable .csv"),
    "observed and entries": (
        "run --observed good.csv --entries 3",
        "entries = 3",
        "only one of observed, fraction, entries",
    ),
    "observed and mask seed": ("run --observed good.csv --mask-seed 3", "mask_seed = 3", "those of a file"),
    "measurements unequal": ("run --observed unequal.npz", "values = <2 numbers>", "as many as matrices, 3"),
    "measurements for sgd": (
        "run --observed measured.npz --method sgd",
        "problem = Sensing",
        "a Completion or Factorization",
    ),
    "toml schedule": ("run schedule.toml", "lr_schedule = 0.5", "square_wave"),
    "toml replacement": ("run replacement.toml", "replacement = 'no'", "True or False"),
    "toml positions": ("run positions.toml", "entries = <an array of shape (2, 2)>", "inside a matrix of shape (5, 4)"),
    "unknown option": ("run --speed 3", "--speed"),
    "unknown command": ("train", '"train"', "run"),
    "resume nothing": ("resume nowhere", "path = 'nowhere'", "run directory"),
    "resume a folder": ("resume taken", "path = 'taken'", "run directory"),
    "info nothing": ("info nowhere", "path = 'nowhere'", "run directory"),
    "plot nothing": ("plot nowhere", "path = 'nowhere'", "run directory"),
    "compare one": ("compare nowhere", "runs = ", "at least two"),
    "compare nothing": ("compare nowhere taken", "path = 'nowhere'", "run directory"),
    "info without path": ("info", "PATH"),
}


def _tree(folder):
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*"))


@pytest.mark.parametrize("case", CLI)
def test_command_line(case, folder, capsys):
    words, *needles = CLI[case]
    before = _tree(folder)
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert shown.out == ""
    assert shown.err.startswith("lrbias: ")
    assert shown.err.count("\n") == 1, "one line"
    for needle in needles:
        assert needle in shown.err
    assert _tree(folder) == before


TARGET = lb.from_singular_values((6, 5), [3.0, 1.5])


SQUARES = np.ones((3, 2, 2))
RAGGED = [[1, 0], [1]]
HOLE = np.where(np.eye(6, 5), NAN, TARGET)


def _entries(**changes):
    return lambda: lb.Completion(TARGET, **changes)


def _sgd(problem=None, **changes):
    """A run of SGD on 20 entries, or on another problem."""
    problem = problem or lb.Completion(TARGET, entries=20)
    return _train(problem=problem, method=lb.SGD(lr=0.1, **changes))


def _train(**changes):
    return lambda: lb.train(**settings(**changes), store="new")


API = {
    "GD lr": (lambda: lb.GD(lr=-1), "lr = -1", "greater than 0"),
    "GD lr array": (lambda: lb.GD(lr=np.ones(3)), "lr = ", "greater than 0"),
    "GD lr boolean": (lambda: lb.GD(lr=True), "lr = True", "greater than 0"),
    "GD by position": (lambda: lb.GD(0.1), "by name", "lr"),
    "GD extra": (lambda: lb.GD(lr=0.1, momentum=0.9), "momentum = 0.9", "knows only ridge, lr"),
    "flow dt": (lambda: lb.GradientFlow(dt=NAN), "dt = nan", "finite"),
    "flow scheme": (lambda: lb.GradientFlow(dt=0.1, scheme="x"), "scheme = 'x'", "rk4"),
    "record every": (lambda: lb.Record(every=0), "every = 0", "at least 1"),
    "record every float": (lambda: lb.Record(every=2.5), "every = 2.5", "integer"),
    "record metric": (lambda: lb.Record(metrics=("stable_rank", "x")), "metrics = 'x'", "singular_values"),
    "record metric kind": (lambda: lb.Record(metrics=3), "metrics = 3", "names"),
    "record function name": (lambda: lb.Record(metrics={"stable_rank": len}), "metrics = 'stable_rank'", "new name"),
    "record function path": (lambda: lb.Record(metrics={"../x": len}), "metrics = '../x'", "a name like"),
    "record function is a folder": (
        _train(record=lb.Record(metrics={"layer": lambda n: 1.0, "stable_rank": 1})),
        "metrics = 'layer'",
        "apart from those of layer/1/stable_rank",
    ),
    "record function is the loss": (
        _train(record=lb.Record(metrics={"loss": lambda n: 1.0})),
        "metrics = 'loss'",
        "apart from those of loss",
    ),
    "stop": (lambda: lb.Stop(loss=0), "loss = 0", "greater than 0"),
    "plateaus": (lambda: lb.Stop(plateaus=0), "plateaus = 0", "at least 1"),
    "plateaus of what": (
        lambda: lb.train(**settings(record=lb.Record(metrics=()), stop=lb.Stop(plateaus=1))),
        "metrics = ()",
        "effective_rank",
    ),
    "teacher shape": (lambda: lb.teacher(shape=(3,)), "shape = (3,)", "two integers"),
    "teacher rank": (lambda: lb.teacher(shape=(3, 4), rank=4), "rank = 4", "at most 3"),
    "teacher scale": (lambda: lb.teacher(spectral_norm=INF), "spectral_norm = inf", "finite"),
    "spectrum values": (lambda: lb.from_singular_values((3, 3), [1, -1]), "values = ", "at least 0"),
    "spectrum too many": (lambda: lb.from_singular_values((2, 3), [1, 1, 1]), "values = ", "at most 2"),
    "spectrum none": (lambda: lb.from_singular_values((2, 3), []), "values = []", "at least one"),
    "target dimension": (lambda: lb.Factorization(np.ones(3)), "target = <an array of shape (3,)>", "2 dimensions"),
    "target inf": (lambda: lb.Factorization([[1, INF]]), "target = ", "finite"),
    "target text": (lambda: lb.Factorization([["a"]]), "target = ", "real numbers"),
    "target ragged": (lambda: lb.Factorization([[1], [1, 2]]), "target = ", "equal length"),
    "target too large": (lambda: lb.Factorization([[1e200]]), "target = ", "1e150"),
    "mask without entries": (_entries(mask=np.zeros((6, 5))), "mask = <no entry is observed>", "at least one"),
    "mask shape": (_entries(mask=np.ones((5, 6))), "mask = <an array of shape (5, 6)>", "shape (6, 5)"),
    "mask text": (_entries(mask="all"), "mask = ", "True or False"),
    "mask ragged": (_entries(mask=RAGGED), "mask = [[1, 0], [1]]", "equal length"),
    "mask nan": (_entries(mask=HOLE), "mask = <5 entries are NaN>", "True or False"),
    "mask and fraction": (_entries(mask=np.ones((6, 5)), fraction=0.5), "fraction = 0.5", "only one of mask"),
    "mask of what is not known": (
        lambda: lb.Completion(HOLE, np.ones((6, 5))),
        "mask = <5 observed entries are NaN>",
        "entries that are known",
    ),
    "nothing known": (lambda: lb.Completion([[NAN]], fraction=0.5), "target = <all entries are NaN>", "at least one"),
    "partly known and infinite": (lambda: lb.Completion([[INF, NAN]]), "target = ", "finite"),
    "partly known and ragged": (lambda: lb.Completion(RAGGED), "target = [[1, 0], [1]]", "equal length"),
    "fraction": (_entries(fraction=0), "fraction = 0", "greater than 0"),
    "fraction above one": (_entries(fraction=1.5), "fraction = 1.5", "at most 1"),
    "fraction nan": (_entries(fraction=NAN), "fraction = nan", "at most 1"),
    "entries too many": (_entries(entries=31), "entries = 31", "at most 30"),
    "entries float": (_entries(entries=2.5), "entries = 2.5", "integer"),
    "positions outside": (_entries(entries=[[6, 0]]), "entries = ", "inside a matrix of shape (6, 5)"),
    "positions negative": (_entries(entries=[[0, -1]]), "entries = ", "inside a matrix"),
    "positions twice": (_entries(entries=[[1, 1], [1, 1]]), "entries = ", "each once"),
    "positions float": (_entries(entries=[[1.0, 1.0]]), "entries = ", "pairs (row, column)"),
    "positions none": (_entries(entries=[]), "entries = ", "pairs (row, column)"),
    "positions ragged": (_entries(entries=RAGGED), "entries = [[1, 0], [1]]", "equal length"),
    "mask seed": (_entries(entries=9, seed=-1), "seed = -1", "0 to 2^64"),
    "reduction": (_entries(entries=9, reduction="max"), "reduction = 'max'", "sum or mean"),
    "mean of nothing": (
        lambda: Experiment.from_words({"reduction": "mean"}),
        "reduction = 'mean'",
        "a setting of problem completion",
    ),
    "sensing lengths": (lambda: lb.Sensing(SQUARES, [1, 2]), "values = <2 numbers>", "as many as matrices, 3"),
    "sensing dimension": (lambda: lb.Sensing(np.ones((3, 2)), [1]), "matrices = ", "(K, outputs, inputs)"),
    "sensing none": (lambda: lb.Sensing(SQUARES[:0], []), "matrices = ", "at least one"),
    "sensing ragged": (lambda: lb.Sensing(RAGGED, [1]), "matrices = [[1, 0], [1]]", "equal length"),
    "sensing nan": (lambda: lb.Sensing(SQUARES * NAN, [1, 1, 1]), "matrices = ", "finite"),
    "sensing values": (lambda: lb.Sensing(SQUARES, [1, 1, NAN]), "values = ", "finite"),
    "sensing target": (lambda: lb.Sensing(SQUARES, [1, 1, 1], TARGET), "target = ", "shape (2, 2)"),
    "ridge": (lambda: lb.GradientFlow(dt=0.1, ridge=-1), "ridge = -1", "at least 0"),
    "ridge of GD": (lambda: lb.GD(lr=0.1, ridge=5), "ridge = 5.0", "less than 1/(2 lr) = 5"),
    "ridge of SGD": (lambda: lb.SGD(lr=0.1, ridge=6), "ridge = 6.0", "less than 1/(2 lr) = 5"),
    "SGD batch": (lambda: lb.SGD(lr=0.1, batch=0), "batch = 0", "at least 1"),
    "SGD replacement": (lambda: lb.SGD(lr=0.1, replacement=1), "replacement = 1", "True or False"),
    "batch above entries": (_sgd(batch=21), "batch = 21", "at most 20"),
    "SGD on measurements": (
        _sgd(lb.Sensing(np.ones((1, 6, 5)), [1])),
        "problem = Sensing",
        "a Completion or Factorization",
    ),
    "schedule": (lambda: lb.GD(lr=0.1, lr_schedule=3), "lr_schedule = 3", "exponential_decay, linear_decay"),
    "schedule kind": (
        lambda: lb.GD(lr=0.1, lr_schedule={"kind": "cosine"}),
        "lr_schedule = ",
        "square_wave",
    ),
    "schedule kind is a list": (
        lambda: lb.GD(lr=0.1, lr_schedule={"kind": [1]}),
        "lr_schedule = ",
        "exponential_decay",
    ),
    "schedule without end": (lambda: lb.ExponentialDecay(factor=0.1), "stop is missing", "greater than start"),
    "schedule without steps": (
        lambda: lb.PiecewiseConstant(factor=0.1, milestones=[]),
        "milestones = []",
        "at least one step",
    ),
    "schedule share": (lambda: lb.SquareWave(factor=0.1, period=9, share=1), "share = 1", "between 0 and 1"),
    "absorbing": (lambda: lb.Record(absorbing_slack=0), "absorbing_slack = 0", "greater than 0"),
    "widths text": (lambda: lb.Network.gaussian("ab"), "widths = 'a'", "at least 1"),
    "widths none": (lambda: lb.Network.gaussian(3), "widths = 3", "at least two"),
    "layers none": (lambda: lb.Network.from_layers([]), "layers = []", "at least one"),
    "layers unfit": (lambda: lb.Network.from_layers([np.ones((3, 2)), np.ones((2, 2))]), "layers[1]", "3 columns"),
    "layers nan": (lambda: lb.Network.from_layers([np.full((2, 2), NAN)]), "layers[0]", "finite"),
    "train problem": (_train(problem=TARGET), "problem = ", "a Factorization"),
    "train network": (_train(network=TARGET), "network = ", "a Network"),
    "train method": (_train(method=0.1), "method = 0.1", "a method: GD, GradientFlow"),
    "train record": (_train(record=10), "record = 10", "a Record"),
    "train stop": (_train(stop=1e-3), "stop = 0.001", "a Stop"),
    "train steps": (_train(steps=0), "steps = 0", "at least 1"),
    "train steps float": (_train(steps=1e3), "steps = 1000.0", "integer"),
    "train checkpoint_every": (_train(checkpoint_every=-1), "checkpoint_every = -1", "at least 1"),
    "train widths": (_train(network=lb.Network.gaussian((5, 5))), "widths = (5, 5)", "end with 6"),
    "train metric result": (_train(record=lb.Record(metrics={"f": lambda n: "x"})), "metrics.f returned 'x'", "number"),
    "train store empty": (lambda: lb.train(**settings(), store=""), "store = ''", "does not exist yet"),
    "open nothing": (lambda: lb.open("nowhere"), "path = 'nowhere'", "run directory"),
    "resume nothing": (lambda: lb.resume("nowhere"), "path = 'nowhere'", "run directory"),
    "compare one": (lambda: lb.compare(["a"]), "runs = ['a']", "at least two"),
    "compare text": (lambda: lb.compare("ab"), "runs = 'ab'", "a list"),
    "quantity": (lambda: lb.train(**settings())["x/y"], "'x/y' was not recorded", "product/effective_rank"),
    "checkpoint": (lambda: lb.train(**settings()).checkpoint(7), "step = 7", "[0, 50, 100"),
}


@pytest.mark.parametrize("case", API)
def test_api(case, folder):
    call, *needles = API[case]
    before = _tree(folder)
    with pytest.raises(lb.InvalidInput) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence
    for needle in needles:
        assert needle in sentence
    assert _tree(folder) == before


def test_resume_refuses_bad_arguments(tmp_path):
    lb.train(**settings(), store=tmp_path / "run")
    with pytest.raises(lb.InvalidInput, match=r"steps = 100 .* at least 200"):
        lb.resume(tmp_path / "run", steps=100)
    with pytest.raises(lb.InvalidInput, match=r"from_checkpoint = 7 .* \[0, 50, 100, 150, 200\]"):
        lb.resume(tmp_path / "run", from_checkpoint=7)


def test_numpy_scalars_are_numbers():
    assert lb.GD(lr=np.float32(0.5)).lr == 0.5
    assert lb.Record(every=np.int64(3)).every == 3


def test_settings_are_frozen():
    method = lb.GD(lr=0.1)
    with pytest.raises(ValueError, match="frozen"):
        method.lr = 0.2


@pytest.mark.parametrize("argument", ["progress", "forecast"])
def test_a_switch_that_is_an_array_is_refused_before_anything_is_made(small, tmp_path, argument):
    with pytest.raises(lb.InvalidInput, match=f"{argument} = .* is not accepted: expected True, False or None"):
        lb.train(*small, 2, store=tmp_path / "run", **{argument: np.ones((2, 2))})
    assert not (tmp_path / "run").exists()


def test_a_switch_is_checked_wherever_runs_are_made(tmp_path):
    """Also by what makes many runs; nothing is there afterwards."""
    array = np.ones((2, 2))
    store = tmp_path / "s"
    problem = lb.Completion(lb.from_singular_values((4, 4), [1.0], seed=0), entries=8)
    start = lb.Network.gaussian((4, 4, 4), seed=1)
    for call in (
        lambda: lb.sweep({"shape": [4, 4], "rank": 1, "steps": 2}, {"seed": [1]}, store, progress=array),
        lambda: lb.ensemble(problem, start, lb.SGD(lr=0.1), 2, runs=2, every=1, store=store, progress=array),
        lambda: lb.reproduce("chou", store=store, progress=array),
        lambda: lb.report(tmp_path, tmp_path / "s", progress=array),
        lambda: lb.sweep({"shape": [4, 4], "rank": 1, "steps": 2}, {"seed": [1]}, store, progress=7),
    ):
        with pytest.raises(lb.InvalidInput, match=r"progress = .* is not accepted: expected True, False or None"):
            call()
    assert not store.exists()
