# Two commands on a fresh machine with Python 3.11 and nothing else: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUTPUT ?= runs/demo
SEEDS  ?= 1

.PHONY: demo demo-quick test check clean

# The demo needs the library alone, tests and checks the development tools as well.
$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(BIN)/.installed
	$(BIN)/slackdlm demo --output $(OUTPUT) --seeds $(SEEDS)

demo-quick: $(BIN)/.installed
	$(BIN)/slackdlm demo --quick --output $(OUTPUT)-quick

# One torch thread per worker: two workers share two cores.
test: $(BIN)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

check: $(BIN)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

clean:
	rm -rf $(VENV) dist runs
