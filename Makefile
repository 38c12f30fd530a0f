# Two commands, each of which sets up everything it needs in .venv:
#   make demo   compiles a trained date converter into a verified chip and lets it convert a date
#   make test   runs the tests
# Needed beforehand: python3 (3.11 or newer) with venv, g++, make, perl.

PYTHON ?= python3
BIN := .venv/bin
DEMO := dates-hwcompile

.PHONY: demo test lint clean

demo: .venv/ready
	$(BIN)/hwcompile examples/dates/dates.onnx -o $(DEMO)
	$(BIN)/hwcompile generate $(DEMO) --vocab examples/dates/vocab.json --text "mar 5, 1987"
	$(BIN)/hwcompile eval $(DEMO) --data examples/dates/eval.npz --metric exact-match

test: .venv/ready
	@command -v iverilog >/dev/null || test "$$(id -u)" != 0 || \
		{ apt-get update -qq && apt-get install -y -qq iverilog; } >/dev/null || \
		echo "Icarus Verilog could not be installed: its tests are skipped"
	$(BIN)/python -m pytest -n 2

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv $(DEMO)

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@
