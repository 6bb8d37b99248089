# Every target sets itself up: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: demo test types cuda-check examples bench bench-check bench-gpu evidence data clean

## demo: the protocol (n = 100, rank 10, depth 3, 50 000 steps, every metric every 10), figures in runs/demo/figures
demo: .venv/base
	rm -rf runs/demo
	$(BIN)/lrbias run examples/protocol.toml --store runs/demo

## test: style, types, import contracts, tests; a file of tests stays in one process, which makes its fixtures once
test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs 2 kernels-float64 types kernels-float32
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

types: .venv/test
	$(BIN)/mypy
	$(BIN)/lint-imports

# side by side, before the processes of the tests would each compile the same
kernels-%: .venv/base
	$(BIN)/lrbias warmup --dtypes $*

## cuda-check: every kernel for GPUs compiled and assembled for three generations of them; needs no GPU
cuda-check: .venv/cuda-check
	NUMBA_ENABLE_CUDASIM=0 $(BIN)/python -m lrcore.cuda.check

## examples: the numbered scripts of examples/ in runs/examples; one that fails, warns or makes no figure ends it
examples: .venv/test
	$(BIN)/python examples/run_all.py

## bench: start-up, memory, steps and ratios to peers; one thread, nothing else should run meanwhile
bench: .venv/bench
	$(BIN)/python benchmarks/run_all.py

## bench-check: every benchmark at its smallest size, so that none of them rots; about two minutes
bench-check: .venv/bench .venv/cuda-check
	NUMBA_ENABLE_CUDASIM=0 $(BIN)/python benchmarks/run_all.py --smallest

## bench-gpu: training on a GPU against the model on paper and against peers; without a GPU the model alone
bench-gpu: .venv/bench .venv/cuda
	$(BIN)/python benchmarks/gpu.py --write

## data: Fashion-MNIST, from its Debian package (as root)
data:
	test -d /usr/share/datasets/fashion-mnist || apt-get install --yes dataset-fashion-mnist

## evidence: the slow proofs (kills at every store write and at random times), then the studies (more than two hours)
evidence: .venv/test data
	$(BIN)/python -m pytest -m evidence -s
	$(BIN)/lrbias reproduce chou
	$(BIN)/lrbias reproduce glrl
	$(BIN)/lrbias reproduce regimes
	$(BIN)/lrbias reproduce wang-jacot
	$(BIN)/lrbias reproduce galanti
	$(BIN)/lrbias reproduce protocol

.venv/created:
	$(PYTHON) -m venv .venv
	touch $@

.venv/base: .venv/created pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/%: .venv/base
	$(INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv runs sweeps reproduced build dist lrcore/cpu/__pycache__
