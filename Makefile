.PHONY: test all lint format

test:        ## the default tests, under five minutes
	pytest

all:         ## slow ones too, with coverage
	pytest -m "not gpu" --cov --cov-report=term

lint:        ## style, types, import rules
	ruff check . && ruff format --check . && mypy && lint-imports

format:
	ruff check --fix . && ruff format .
