# Every target sets up what it needs, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' noderestrict/__init__.py)
IMAGE ?= noderestrict:$(VERSION)
# The minor version for test-e2e; tests/assets/kubernetes-$(KUBERNETES)/go.mod pins the patch release.
KUBERNETES ?= 1.36
ASSETS := .assets/kubernetes-$(KUBERNETES)
# The major version for test-chart and release-check; tests/assets/helm-$(HELM_MAJOR)/go.mod pins the release.
HELM_MAJOR ?= 4

.DEFAULT_GOAL := help
# Tests start hundreds of processes, each of which would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
# Every target with a plain name is a command.
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

install: $(STAMP) ## Set up .venv

$(STAMP): pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("noderestrict needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[dev]'
	touch $@

run: install ## Serve the examples on https://127.0.0.1:8443
	$(BIN)/noderestrict serve --dev --metrics-address '' --log-format console --state examples/state.json

test: install lint ## Lint, check types and layers, and run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not e2e and not cluster and not release"

lint: install ## Run ruff, mypy and import-linter
	$(BIN)/ruff check noderestrict tests
	$(BIN)/ruff format --check --quiet noderestrict tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code, and fix what ruff can
	$(BIN)/ruff check --fix noderestrict tests
	$(BIN)/ruff format noderestrict tests

# The defaults, as some versions of buildah and podman miss stages that only defaults name.
BASES := --build-arg BUILD_IMAGE=pinned-build --build-arg RUN_IMAGE=pinned-run

# For other base images: IMAGE_ARGS="--build-arg RUN_IMAGE=…".
# BUILDER chooses the tool. podman and buildah would name the image after localhost.
image: ## Build the container image with docker, podman or buildah
	@tool=$(BUILDER) name=$(IMAGE); \
	for one in docker podman buildah; do \
	    if [ -z "$$tool" ] && $$one info > /dev/null 2>&1; then tool=$$one; fi; \
	done; \
	if [ -z "$$tool" ]; then \
	    echo "make image needs docker, podman or buildah, and an engine that docker reaches" >&2; \
	    exit 1; \
	fi; \
	case $$tool:$$name in *docker:*|*/*) ;; *) name=docker.io/library/$$name ;; esac; \
	set -x; $$tool build --tag $$name $(BASES) $(IMAGE_ARGS) .

# What this machine cannot run needs qemu-user-static.
PLATFORMS ?= linux/amd64,linux/arm64
image-layout: ## Build the image for all architectures into dist/image, as OCI lays it out, with buildah
	rm -rf dist/image
	mkdir -p dist
	if buildah manifest exists noderestrict-release; then buildah manifest rm noderestrict-release; fi
	buildah build --platform $(PLATFORMS) --manifest noderestrict-release \
	    --label org.opencontainers.image.title=noderestrict \
	    --label org.opencontainers.image.version=$(VERSION) \
	    --label org.opencontainers.image.licenses=Apache-2.0 $(BASES) $(IMAGE_ARGS) .
	buildah manifest push --all noderestrict-release oci:dist/image

e2e-kind: install image ## Test the manifests and the image in a kind cluster
	CLUSTER=kind $(BIN)/python -m pytest -s -m "cluster and not full" $(CLUSTER_ARGS) tests/containers

# CLUSTER_KEEP=1 keeps the cluster; python -m tests.containers looks into it and takes it down.
test-cluster: install assets node-assets ## Test in a cluster of containers on this machine, as root
	KUBERNETES=$(KUBERNETES) $(BIN)/python -m pytest -s -m "cluster and not full" $(CLUSTER_ARGS) tests/containers

test-cluster-full: install assets node-assets cert-manager-assets ## The same, with all transitions, failures and a soak
	KUBERNETES=$(KUBERNETES) $(BIN)/python -m pytest -s -m cluster $(CLUSTER_ARGS) tests/containers

ifdef KUBEBUILDER_ASSETS
assets:
	@echo "using the binaries in KUBEBUILDER_ASSETS: $(KUBEBUILDER_ASSETS)"
else
assets: $(ASSETS).built ## Build etcd and Kubernetes for test-e2e, with Go

$(ASSETS).built: tests/assets/build $(wildcard tests/assets/kubernetes-$(KUBERNETES)/go.* tests/assets/etcd/go.*)
	tests/assets/build $(KUBERNETES) $(ASSETS)
	touch $@

# The link may be dangling.
ifeq ($(wildcard $(ASSETS)/kube-apiserver),)
.PHONY: $(ASSETS).built
endif
endif

node-assets: ## Build the commands of a node for test-cluster, with Go
	tests/assets/build $(KUBERNETES) .assets/node-$(KUBERNETES) kubeadm kubelet kube-proxy

cert-manager-assets: ## Build cert-manager for test-cluster-full, with Go
	tests/assets/build-cert-manager .assets/cert-manager

prometheus-assets: ## Build Prometheus for the tests of alerts and dashboard, with Go
	tests/assets/build-prometheus .assets/prometheus

checkov-assets: ## Install checkov for release-check
	$(PYTHON) -m venv .assets/checkov
	.assets/checkov/bin/pip install --quiet --disable-pip-version-check -r tests/assets/checkov/requirements.txt

publish-assets: ## Build cosign, crane and syft for release-check, with Go
	tests/assets/build-publish .assets/publish

helm-assets: ## Build Helm for test-chart, with Go
	tests/assets/build-helm $(HELM_MAJOR) .assets/helm-$(HELM_MAJOR)

test-chart: install assets helm-assets ## Render the chart, and install it into a real API server
	KUBERNETES=$(KUBERNETES) HELM_MAJOR=$(HELM_MAJOR) $(BIN)/python -m pytest -m e2e $(E2E_ARGS) tests/e2e/test_chart_objects.py tests/e2e/test_chart.py

test-e2e: install ## Test against a real API server, from make assets or KUBEBUILDER_ASSETS
	KUBERNETES=$(KUBERNETES) $(BIN)/python -m pytest -m "e2e and not long" $(E2E_ARGS) tests/e2e

test-e2e-full: install ## The same, with the tests that take minutes
	KUBERNETES=$(KUBERNETES) $(BIN)/python -m pytest -m e2e $(E2E_ARGS) tests/e2e

# For example SOAK_ARGS="--minutes 5".
soak: install ## Attack and load the webhooks and the in-tree plugins for an hour
	KUBERNETES=$(KUBERNETES) $(BIN)/python -m tests.soak $(SOAK_ARGS)

fuzz: install ## Fuzz the decoders for about a minute
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/admission/test_fuzz.py tests/authorization/test_fuzz.py

docs: install ## Regenerate docs/reference and the tables of docs/rules.md
	$(BIN)/python -m tests.reference

site: install ## Build the documents as a site, into docs/.site
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[site]'
	$(BIN)/zensical build --strict --config-file docs/zensical.toml

manifests: install ## Regenerate manifests/, with the chart
	$(BIN)/noderestrict render manifests

# For example BENCH_ARGS="--only server --json new.json --peer https://127.0.0.1:9443/validate".
bench: install ## Measure speed and memory
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

bench-apiserver: install ## Measure what node isolation costs an API server
	KUBERNETES=$(KUBERNETES) $(BIN)/python -m tests.benchmarks.api_server $(BENCH_ARGS)

bench-scale: install ## Measure how many processes a large cluster needs
	$(BIN)/python -m tests.benchmarks.scale $(BENCH_ARGS)

bench-compare: install ## Compare two JSON results of make bench: OLD=, NEW=
	$(BIN)/python -m tests.benchmarks.compare $(OLD) $(NEW)

bench-ab: install ## Measure what a change costs compared with another checkout: AGAINST=
	$(BIN)/python -m tests.benchmarks.ab $(AGAINST) $(BENCH_ARGS)

# What it builds is left in dist/. IMAGE is the name that the chart and the manifests get. LAYOUT is a
# folder with the image, as image-layout makes it; without, it is built on stand-ins for its bases.
release-check: install helm-assets publish-assets checkov-assets ## Build and check what a release publishes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[release]'
	IMAGE=$(IMAGE) LAYOUT=$(LAYOUT) $(BIN)/python -m pytest -s -m release $(RELEASE_ARGS) tests/release

version:
	@echo $(VERSION)

# What uploads the wheel is pinned by hash, for the runner of the workflow.
lock: install ## Pin the installed dependencies in requirements.txt, with those of release-check
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[release]'
	$(BIN)/python -m pip freeze --exclude-editable > requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --dry-run --target build --only-binary :all: \
	    --python-version 3.13 --platform manylinux2014_x86_64 -c requirements.txt --report - twine \
	    | $(BIN)/python -m tests.release.hashes > tests/assets/twine/requirements.txt

clean: ## Remove everything that make creates
	rm -rf $(VENV) docs/.site docs/.cache .noderestrict-dev .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .assets build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
