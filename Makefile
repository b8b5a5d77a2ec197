.PHONY: test all lint format grid

test:        ## the default tests, under five minutes
	pytest

all:         ## slow ones too, with coverage
	pytest -m "not gpu and not extensive" --cov --cov-report=term

grid:        ## trains one step of every backbone with every head; writes docs/grid.md
	SPINE_WRITE_GRID=1 pytest -n 0 tests/test_runs.py -k "combination" -m "not gpu"

lint:        ## style, types, import rules
	ruff check . && ruff format --check . && mypy && lint-imports

format:
	ruff check --fix . && ruff format .
