# Two commands for users (demo, test), others for contributors (develop, check, quick, exhaustive, docs, sanitize).
PYTHON ?= python3
# Installed before the package, so that a CPU build is used where one is at hand.
TORCH ?= torch==2.13.0

# How tests are spread over processes, each with one thread of torch: more would wait for each other.
JOBS ?= 2
PARALLEL := -n $(JOBS) --dist worksteal

# Tests start dozens of Pythons: what they import is compiled once, whatever the caller's environment says.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
TEST_VENV := .venv-test
DOCS_VENV := .venv-docs
PIP := -m pip --disable-pip-version-check install --quiet
SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc kernels rledit -type f -not -name '*.pyc')
CPP := $(shell find csrc tests/native tests/cuda_shim -name '*.[ch]*' -not -name '*.pyc' -type f)

.PHONY: demo test environment wheel requirements develop check quick \
	exhaustive sanitize sanitize-brief sanitizers-brief checks docs clean

demo: $(VENV)/.installed ## forget a class from a real CNN, in both worlds
	$(VENV)/bin/rledit demo --out runs/demo

$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) "$(TORCH)"
	$(VENV)/bin/python $(PIP) ".[demo]"
	touch $@

test: ## wheel into a clean environment, linters, types, tests, the core's under AddressSanitizer
	$(MAKE) BESIDE="sanitizers-brief checks" environment
	$(MAKE) sanitize-brief
	OMP_NUM_THREADS=1 $(TEST_VENV)/bin/pytest -m "not exhaustive" $(PARALLEL)

exhaustive: ## the tests that make test takes a sample of, before a release
	test -x $(TEST_VENV)/bin/pytest || $(MAKE) environment
	OMP_NUM_THREADS=1 $(TEST_VENV)/bin/pytest -m exhaustive $(PARALLEL)

environment: # for tests: the wheel in a clean one
	$(PYTHON) -m venv --clear $(TEST_VENV)
	$(TEST_VENV)/bin/python $(PIP) --upgrade pip # Python 3.11's takes half a minute more for what follows
	$(MAKE) --jobs 3 requirements wheel $(BESIDE)
	$(TEST_VENV)/bin/python $(PIP) --no-compile --no-deps "$$(ls dist/rledit-*.whl)"
	$(TEST_VENV)/bin/python -m pip --disable-pip-version-check check

wheel:
	rm -rf dist
	$(TEST_VENV)/bin/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

requirements: # beside the wheel; not compiled to bytecode: tests import a part of it
	$(TEST_VENV)/bin/python tests/requirements.py > $(TEST_VENV)/requirements.txt
	$(TEST_VENV)/bin/python $(PIP) --no-compile "$(TORCH)"
	$(TEST_VENV)/bin/python $(PIP) --no-compile --requirement $(TEST_VENV)/requirements.txt

checks: requirements # which linters and types need, and not the wheel
	$(MAKE) BIN=$(TEST_VENV)/bin check

sanitizers-brief: wheel # built while requirements are installed
	tests/native/sanitize.sh build $(TEST_VENV)/bin brief

sanitize-brief: # a sample of make sanitize
	tests/native/sanitize.sh test $(TEST_VENV)/bin brief

sanitize: ## the core's tests under AddressSanitizer, UBSan and ThreadSanitizer (five minutes)
	test -x $(TEST_VENV)/bin/pytest || $(MAKE) environment
	tests/native/sanitize.sh build $(TEST_VENV)/bin
	tests/native/sanitize.sh test $(TEST_VENV)/bin

develop: ## an editable installation in .venv for working on rledit
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) "$(TORCH)" "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.18" ninja
	$(VENV)/bin/python $(PIP) --no-build-isolation --editable ".[test]"

BIN ?= $(VENV)/bin
check: ## linters, formatters, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/mypy

quick: ## the tests but those marked slow, in the editable installation
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -x -q -m "not slow and not exhaustive" $(PARALLEL)

# The extra's list alone, without rledit and torch: docstrings are read, not imported.
DOCS := $(shell sed -n "/^docs = \[/,/^\]/s/^ *\"\(.*\)\",.*/'\1'/p" pyproject.toml)
docs: $(DOCS_VENV)/.installed ## the documentation as a site, in site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet

$(DOCS_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python $(PIP) $(DOCS)
	touch $@

clean:
	rm -rf $(VENV) $(TEST_VENV) $(DOCS_VENV) build dist site
