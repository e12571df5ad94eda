# Everything that is done twice. Needs Python 3.11 to 3.13, git and make; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_VERSION := 26.3
# Such as WHEELS=wheels: install from that folder alone, which `make wheelhouse` has filled.
WHEELS ?=
FROM := $(if $(WHEELS),--no-index --find-links $(WHEELS))
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup wheelhouse setup-encoders setup-export setup-lineage setup-served setup-pacs setup-plots setup-dask setup-dev demo up down test test-all lint bench crate docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.runtime ## virtual environment in .venv, exact versions from the lock

$(VENV)/.runtime: requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed (found %d.%d); say which with: make PYTHON=/path/to/python3" % sys.version_info[:2])'
	@echo "packages of requirements/lock.txt into $(VENV)/: some minutes, the more the slower the network"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(FROM) pip==$(PIP_VERSION)
	$(BIN)/python -m pip install --quiet $(FROM) -c requirements/lock-cuda.txt -r requirements/lock.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@echo "done: $(BIN)/lapvqa --help; or \`. $(BIN)/activate\`, then lapvqa"

wheelhouse: ## all packages as wheels in wheels/, for a machine without internet: make setup WHEELS=wheels
	$(PYTHON) -m pip wheel --quiet --wheel-dir wheels pip==$(PIP_VERSION) -c requirements/lock-cuda.txt -r requirements/lock.txt -r requirements/lock-pacs.txt

setup-encoders: ## what encoders of transformers and timm need besides
setup-export: ## what export.onnx needs besides
setup-lineage: ## what `lapvqa export-lineage` needs besides
setup-served: ## drivers for PostgreSQL and S3, for servers that keep the records there
setup-pacs: ## what `lapvqa receive` and `pull` need besides
setup-plots: ## what `lapvqa open plots` needs besides
setup-dask: ## what reading an archive on a Dask cluster needs besides, here and on every worker

EXTRAS := encoders export lineage served pacs plots dask
$(EXTRAS:%=setup-%): setup-%: setup
	$(BIN)/python -m pip install --quiet $(FROM) -c requirements/lock-cuda.txt -r requirements/lock.txt -r requirements/lock-$*.txt
# timm without its needs: they would bring torchvision, and another torch.
	$(if $(filter encoders,$*),$(BIN)/python -m pip install --quiet $(FROM) --no-deps -r requirements/lock-parity.txt)

setup-dev: $(VENV)/.dev

$(VENV)/.dev: requirements/lock-dev.txt requirements/lock-docs.txt requirements/lock-plots.txt requirements/lock-dask.txt requirements/lock-export.txt requirements/lock-lineage.txt requirements/lock-pacs.txt requirements/lock-parity.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet -r requirements/lock-dev.txt -r requirements/lock-docs.txt -r requirements/lock-plots.txt -r requirements/lock-dask.txt -r requirements/lock-export.txt -r requirements/lock-lineage.txt -r requirements/lock-pacs.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/lock-parity.txt
	touch $@

demo: setup ## make the demo archive and run the whole pipeline on it
	$(BIN)/lapvqa demo

up: ## the served set-up in containers: PostgreSQL, S3 storage, Prefect, MLflow, a worker
	$(PYTHON) docker/make_secrets.py
	docker compose --file docker/compose.yaml up --detach --build --wait

down: ## stop it; the volumes with the records stay
	docker compose --file docker/compose.yaml down

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup-dev ## the tests, but for the slow ones
	$(PYTEST) -m "not slow"

test-all: setup-dev ## the slow ones too: whole pipelines, kills, servers
	$(PYTEST)

lint: setup-dev ## style, types, import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile && $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml

bench: setup-dev ## benchmarks, each beside its peer; results under benchmarks/results/
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

crate: setup-dev .venv-crate/.done ## what roc-validator says of an exported Provenance Run Crate
	LAPVQA_ROC_VALIDATOR=$(CURDIR)/.venv-crate/bin/python $(BIN)/python -m pytest tests/lineage/test_exports.py -k roc_validator -rA

# An environment of its own: roc-validator asks for an older rich than the lock has.
.venv-crate/.done:
	$(PYTHON) -m venv .venv-crate
	.venv-crate/bin/python -m pip install --quiet roc-validator==0.13.0
	touch $@

docs: setup-dev ## the generated pages from the code, then site/: the documentation, offline, every link checked
	$(BIN)/python docs/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean: ## remove what the pipeline wrote here, the demo too; ledger, key, arrivals and open erasures stay
	rm -rf data models results reports demo
	[ ! -d .lapvqa ] || find .lapvqa -mindepth 1 -maxdepth 1 ! -name deid.key ! -name erasures ! -name wanted.json ! -name arrivals.jsonl -exec rm -rf {} +
