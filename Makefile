# Two commands for a fresh machine: `make demo` and `make test`. Both make and reuse .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CLIENTS := $(VENV)/clients
CLIENTS_READY := $(CLIENTS)/.ready
WORKERS ?= 2

# Command lines of other projects that the tests hold our files against, each in its environment.
TOOLS := $(VENV)/sam/.ready $(VENV)/checkov/.ready $(VENV)/podman-compose/.ready
PACKAGES := wrk curl podman buildah runc crun skopeo umoci containernetworking-plugins \
  netavark aardvark-dns iptables docker-registry mmdebstrap apache2-utils prometheus nginx-light

.PHONY: demo test check bench clean setup clients tools system

# The stamp holds what was installed, so that a changed pyproject.toml is installed again.
setup: $(READY)

$(READY): pyproject.toml tests/real_models.py tests/real_models.txt
	@echo "setting up $(VENV) (about two minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/python tests/real_models.py
	@touch $@

# The clients of other projects that the tests serve, apart from the frameworks: their pins collide.
clients: $(CLIENTS_READY)

$(CLIENTS_READY): $(READY) tests/clients/requirements.txt
	@echo "setting up $(CLIENTS) (about a minute the first time)"
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement tests/clients/requirements.txt --editable '.[grpc,image]'
	@touch $@

tools: $(TOOLS)

$(VENV)/sam/.ready: TOOL = aws-sam-cli
$(VENV)/checkov/.ready: TOOL = checkov
$(VENV)/podman-compose/.ready: TOOL = podman-compose
$(TOOLS): $(READY)
	@echo "setting up $(@D)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(TOOL)
	@touch $@

# What the tests and benchmarks run beside Python: a load generator, curl, containers, a registry.
system:
	@dpkg -s $(PACKAGES) >/dev/null 2>&1 || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	    apt-get update -qq && apt-get install -qq --yes --no-install-recommends $(PACKAGES) >/dev/null; } || \
	  echo "note: not installed: $(PACKAGES); the tests that need them are skipped" >&2

demo: setup
	@$(BIN)/modelport demo $(ARGS)

test: setup clients tools system
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup system
	$(BIN)/python benchmarks/run.py $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
