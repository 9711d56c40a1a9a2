# Every target sets up what it needs, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IMAGE ?= noderestrict:0.1.0

.PHONY: install run test lint fuzz docs manifests image bench bench-compare test-e2e e2e-kind lock clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("noderestrict needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@

run: install
	$(BIN)/noderestrict serve --dev --bind-address 127.0.0.1 --metrics-address '' --log-format console --state examples/state.json

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check noderestrict tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# Bases may be pinned: IMAGE_ARGS="--build-arg RUN_IMAGE=…@sha256:…".
image:
	docker build --tag $(IMAGE) $(IMAGE_ARGS) .

e2e-kind: install image
	$(BIN)/python -m tests.kind

test-e2e: install
	$(BIN)/python -m pytest -m e2e tests/e2e

# Bytes to bytes, for about a minute.
fuzz: install
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/admission/test_fuzz.py tests/authorization/test_fuzz.py

# The pages of docs/reference, from the code.
docs: install
	$(BIN)/python -m tests.reference

manifests: install
	$(BIN)/noderestrict render manifests

# For example BENCH_ARGS="--only server --json new.json --peer https://127.0.0.1:9443/validate".
bench: install
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

bench-compare: install
	$(BIN)/python -m tests.benchmarks.compare $(OLD) $(NEW)

# The versions that the tests passed with; run after a change of dependencies.
lock: install
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock

clean:
	rm -rf $(VENV) .noderestrict-dev .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
