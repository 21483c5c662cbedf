# Every target sets itself up: in a fresh clone there is nothing to do first.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format pages zoo zoo-mutants zoo-timm zoo-moves bench bench-audit bench-rates bench-kernel bench-tables bench-population bench-sampling bench-search bench-search-compare bench-search-scale test-cluster test-loops conformance conformance-triton reproduce-uci clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet

# By environment, so that it reaches what builds the C++ kernels too (new pips have a word for that).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

# Another source tree on the path would be run in place of this one.
unexport PYTHONPATH

# A name on PATH can be a launcher of nothing, so each candidate is asked. 3.11: see constraints.txt.
PYTHON ?= $(shell for name in python3.11 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/ready ## fit a network to a real table of 1,000 loans, and write its report
	$(BIN)/dropkit fit examples/credit_german.csv --target risk --budget 16000 --out build/demo
	@echo "Open build/demo/report.html in a browser."

test: lint ## lint, types, layers, then every test, docstring example and README block
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile

test-cluster: $(VENV)/ready-cluster ## searches over a real PostgreSQL and two nodes of Ray, with workers killed (minutes)
	CLUSTER=1 $(BIN)/python -m pytest tests/test_tuning_cluster.py

test-loops: $(VENV)/ready-loops ## schedules and log-probabilities in Lightning, Transformers and skorch as they are (a minute)
	PYTHONPATH=$(VENV)/loops $(BIN)/python -m pytest tests/test_callbacks.py tests/test_consistency.py

lint: $(VENV)/ready ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/ready ## let ruff mend and lay out the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

pages: $(VENV)/ready ## write the pages that are made from the code: docs/rules.md, docs/ensemble.md
	$(BIN)/dropkit rules --format markdown > docs/rules.md
	$(BIN)/python benchmarks/ensemble.py docs/ensemble.md

zoo: $(VENV)/ready-bench-kernel ## audit every text model of Transformers (half an hour); writes docs/census.md
	$(BIN)/python -m benchmarks.zoo torch transformers --write docs/census.md

zoo-mutants: $(VENV)/ready-bench-kernel ## put each rule's bug into 44 models, and see whether it is found (minutes); writes docs/census.md
	$(BIN)/python -m benchmarks.zoo.mutants --write docs/census.md

zoo-timm: $(VENV)/ready-timm ## audit every model of timm (an hour); writes docs/census.md
	PYTHONPATH=$(VENV)/timm $(BIN)/python -m benchmarks.zoo timm --write docs/census.md

zoo-moves: $(VENV)/ready-bench-kernel ## move every rate of every text model of Transformers, and count (half an hour); writes docs/moves.md
	$(BIN)/python -m benchmarks.zoo.moves torch transformers --write docs/moves.md

bench-rates: $(VENV)/ready-bench-kernel ## what a plan of rates costs: to be made and proven, and at each step (a minute)
	$(BIN)/python benchmarks/rates.py

bench-audit: $(VENV)/ready-bench-kernel ## what an audit costs: Llama-3-70B's shape, ResNet-50 (a minute)
	$(BIN)/python benchmarks/audit.py

bench: bench-kernel bench-population bench-tables ## all benchmarks

bench-kernel: $(VENV)/ready-bench-kernel ## what a mask costs, and a training step with dropout (minutes); writes docs/speed.md
	GOMP_SPINCOUNT=5000 $(BIN)/python benchmarks/kernel.py --write docs/speed.md

ifdef KERNEL
conformance: $(VENV)/ready
	DROPKIT_KERNEL=$(KERNEL) $(if $(filter triton,$(KERNEL)),TRITON_INTERPRET=1) $(BIN)/python benchmarks/conformance_kernels.py
else
conformance: $(VENV)/ready-bench-kernel ## holds the field's dropouts against what they claim, or with KERNEL=avx2 ours on that kernel; writes docs/conformance.md
	$(BIN)/python benchmarks/conformance.py --markdown docs/conformance.md
endif

conformance-triton: $(VENV)/ready ## the same of ours on the GPU's kernels, interpreted (half an hour); goes on where it stopped
	OMP_NUM_THREADS=1 $(MAKE) conformance KERNEL=triton

reproduce-uci: $(VENV)/ready ## the UCI table of Gal & Ghahramani 2016 (an hour or two); goes on where it stopped; writes docs/uci.md
	GOMP_SPINCOUNT=5000 $(BIN)/python -m benchmarks.uci $(if $(UCI),--data $(UCI)) --write docs/uci.md

bench-tables: $(VENV)/ready-bench ## dropkit and its peers on nine tables (hours); continues where it stopped
	$(BIN)/python benchmarks/tables.py

bench-population: $(VENV)/ready ## 32 networks as one computation against 32 loops (minutes)
	GOMP_SPINCOUNT=5000 $(BIN)/python benchmarks/population.py

bench-sampling: $(VENV)/ready-sampling ## Monte Carlo dropout beside its peers: what is sampled, and how fast (an hour); writes docs/sampling-benchmark.md
	PYTHONPATH=$(VENV)/sampling GOMP_SPINCOUNT=5000 $(BIN)/python -m benchmarks.sampling --write docs/sampling-benchmark.md

bench-search: bench-rates bench-search-compare bench-search-scale ## plans and searches of rates: what they cost, find and survive

bench-search-compare: $(VENV)/ready ## the discovered space beside other ways of choosing, five seeds (an hour); writes docs/tuning.md
	$(BIN)/python -m benchmarks.search.compare $(if $(DATA),--data $(DATA)) --write docs/tuning.md

bench-search-scale: $(VENV)/ready-cluster ## a search by 1 to 8 workers over PostgreSQL and Ray, some killed (minutes); writes docs/tuning.md
	$(BIN)/python -m benchmarks.search.scale --write docs/tuning.md

clean: ## remove all that these targets made, .venv too
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Expected Python 3.11 or newer; found none. Try: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; takes a few minutes, torch is large)"
	@"$(PYTHON)" -m venv --clear $(VENV)

# Stamps: installed again whenever the project's needs, or its C++, change.
KERNELS := $(wildcard src/dropkit/kernel/native/*pp)
$(VENV)/ready: pyproject.toml constraints.txt CMakeLists.txt $(KERNELS) | $(BIN)/python
	@$(PIP) --editable '.[tables,audit,tune,onnx,dev]'
	@touch $@

$(VENV)/ready-bench-kernel: $(VENV)/ready
	@$(PIP) --editable '.[tables,audit,tune,onnx,dev,bench-kernel]'
	@touch $@

$(VENV)/ready-cluster: $(VENV)/ready
	@$(PIP) --editable '.[tables,audit,tune,onnx,dev,postgres,ray,bench-search]'
	@touch $@

# Apart from the rest, and without what they need: torchvision asks for a torch of its own.
$(VENV)/ready-timm: $(VENV)/ready-bench-kernel
	@$(PIP) --no-deps --target $(VENV)/timm torchvision timm
	@touch $@

# As timm is, and for its reason; the peers ask for notebooks and data sets besides.
PEERS := baal torch-uncertainty lightning-uq-box
PEERS_NEED := torchvision timm structlog einops h5py lightning lightning-utilities torchmetrics kornia \
	kornia-rs gpytorch linear-operator ema-pytorch laplace-torch asdfghjkl backpack-for-pytorch \
	curvlinops-for-pytorch einconv unfoldnd torchseg opt-einsum
$(VENV)/ready-sampling: $(VENV)/ready-bench-kernel
	@$(PIP) --no-deps --target $(VENV)/sampling $(PEERS) $(PEERS_NEED)
	@touch $@

# As timm is, and for its reason.
$(VENV)/ready-loops: $(VENV)/ready-bench-kernel
	@$(PIP) --no-deps --target $(VENV)/loops lightning pytorch-lightning lightning-utilities torchmetrics \
		skorch tabulate accelerate psutil
	@touch $@

$(VENV)/ready-bench: $(VENV)/ready
	@$(PIP) --editable '.[tables,audit,tune,onnx,dev,bench]'
	@touch $@
