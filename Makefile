# make demo: install, draw sample data, train, evaluate, predict.   make test: lint, types, tests.
# make bench: how fast, against what a tutorial would write; for example make bench ROWS='--only S1,S4 --pairs 7'.
PYTHON ?= python3
BIN := .venv/bin
DEMO := .demo

.PHONY: install demo test lint bench readme clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	touch $@

demo: install
	rm -rf $(DEMO)
	$(BIN)/imgcls sample-data $(DEMO)/dataset
	cd $(DEMO) && ../$(BIN)/imgcls train --data dataset --arch resnet18 --epochs 5
	cd $(DEMO) && ../$(BIN)/imgcls evaluate --data dataset
	cd $(DEMO) && ../$(BIN)/imgcls predict dataset/test/star/star-000.png --top-k 3
	@echo
	@echo 'What you would type next:'
	@echo '  . $(BIN)/activate && cd $(DEMO)'
	@echo '  imgcls inspect-batch --data dataset --output grid.png'
	@echo '  imgcls train --data YOUR_FOLDER --arch resnet18 --epochs 20'
	@echo '  imgcls predict cat.jpg --ckpt best.pt'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2 --dist loadfile -q

bench: install
	$(BIN)/python tests/bench/rows.py $(ROWS)

# The tables of the README that are made from the code.
readme: install
	$(BIN)/python tests/test_readme.py

clean:
	rm -rf .venv $(DEMO) .mypy_cache .ruff_cache .pytest_cache
