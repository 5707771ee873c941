# The habits of the project: demo, test, lint, dashboard, miniature.
# Everything is kept in .venv (packages) and .gift (data, outputs, reports, Prefect's history).

PYTHON ?= python3
BIN := .venv/bin
PORT ?= 4200
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

export PREFECT_HOME ?= $(CURDIR)/.gift/prefect
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# The newer dashboard asks an analytics host from the browser, this one asks nobody.
export PREFECT_SERVER_UI_V2_ENABLED := false
export HF_HUB_OFFLINE := 1

.PHONY: demo demo-s3 seeds baselines ablations adaptation data test soak bench lint format dashboard miniature clean

demo: .venv/demo data  ## GIFT and plain fine-tuning over the miniature's four tasks
	$(BIN)/python -m deployments.miniature.demo

demo-s3: .venv/test data  ## The same on object storage, compared digest for digest
	$(BIN)/python -m deployments.miniature.demo --object-storage

seeds: .venv/demo data  ## The demo's comparison on seeds 0, 1 and 2
	$(BIN)/python -m deployments.miniature.demo --seeds 0 1 2

baselines: .venv/demo data  ## Every baseline and GIFT on the miniature, seeds 0, 1 and 2 (about an hour)
	$(BIN)/python -m deployments.cli compare deployments/comparisons/miniature-baselines.yaml

ablations: .venv/demo data  ## GIFT's parts on the miniature, one changed at a time, seeds 0, 1 and 2
	$(BIN)/python -m deployments.miniature.captions .gift/data/miniature/pretraining-captions.parquet
	$(BIN)/python -m deployments.cli compare deployments/comparisons/miniature-ablations.yaml

adaptation: .venv/demo data  ## A generator adapted to each task against a plain one, seeds 0, 1 and 2
	$(BIN)/python -m deployments.cli compare deployments/comparisons/miniature-adaptation.yaml
	$(BIN)/python -m deployments.miniature.recognisability \
		$(foreach seed,0 1 2,$(foreach row,plain adapted,miniature-adapted-$(row)-seed-$(seed)))

data: .venv/demo  ## The miniature's data sets, drawn and taken from scikit-learn and scikit-image
	$(BIN)/python -m deployments.miniature.data_sets .gift/data/miniature

test: .venv/test data  ## Everything that README promises
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy --strict gift_core
	$(BIN)/lint-imports
	$(PYTEST) tests/gift_core --cov=gift_core --cov-fail-under=95
	$(PYTEST) --ignore tests/gift_core

soak: .venv/test data  ## A hundred kills of the demo's run, each resumed and compared (about an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.sweep --folder 50 --s3 50

bench: .venv/test  ## Training step, generation and evaluation against the plain ways (minutes)
	$(BIN)/python -m tests.benchmarks.step --ladder
	$(BIN)/python -m tests.benchmarks.step --miniature
	$(BIN)/python -m tests.benchmarks.generation
	$(BIN)/python -m tests.benchmarks.evaluation

lint: .venv/test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy --strict gift_core
	$(BIN)/lint-imports

format: .venv/test
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

dashboard: .venv/demo  ## Prefect's dashboard over the demo's history
	$(BIN)/prefect server start --host 127.0.0.1 --port $(PORT) --analytics-off

miniature: .venv/demo  ## Retrain the miniature's CLIP and generator (about 80 minutes)
	$(BIN)/python -m deployments.miniature.train_clip
	$(BIN)/python -m deployments.miniature.train_generator

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[miniature]'
	touch $@

.venv/test: .venv/demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:  ## Forget outputs, reports and history; packages stay
	rm -rf .gift
