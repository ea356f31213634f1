# The entry points of the project. `make book` and `make test` set up all they need in .venv, on a
# machine with Python 3.11+ and make; only the package installs use the network.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
# Named after what it was installed from, and where: times say nothing in a fresh clone.
STAMP := $(VENV)/.installed-$(shell (cat pyproject.toml requirements.lock; pwd) | cksum | cut -d' ' -f1)
PY := $(VENV)/bin/python
BOOK = $(PY) -c "from jupyter_book.cli.main import main; main()"
OUT := .

# A relative data folder is meant from here; notebooks are executed in their own folder.
ifdef GENCORE_DATA
export GENCORE_DATA := $(shell cd "$(GENCORE_DATA)" 2>/dev/null && pwd || printf %s "$(GENCORE_DATA)")
endif

.PHONY: help book offline test lab notebooks runs repo links lighthouse clean

help:
	@echo "make book       build the HTML book"
	@echo "make offline    pack the HTML book into dist/...-html.zip, with its sha256"
	@echo "make test       run every test: package, notebooks, book"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make notebooks  execute the notebooks again and keep their outputs"
	@echo "make runs       train all published runs that are missing or stale"
	@echo "make repo REPO=https://github.com/you/your-fork   point every link to your repository"
	@echo "make links      check every external link (needs the network)"
	@echo "make lighthouse measure three pages with Lighthouse (needs Node and Chromium)"
	@echo "make clean      remove what was built (the environment .venv stays)"

# First the lock, whose every file is checked against its hash; it has all that torch needs but
# the GPU libraries. Then torch and torchvision, unpinned, so that each machine gets the build that
# fits it: they may add to what is there (nvidia-*, cuda-*, triton), and replace none of it.
$(STAMP):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with PYTHON=..."; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(PY) -m pip freeze --exclude-editable >$(VENV)/constraints.txt
	$(PY) -m pip install --quiet --constraint $(VENV)/constraints.txt torch torchvision
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed* && touch $@

# A clean build each time: Sphinx does not repeat the warnings of pages it has cached.
book: $(STAMP)
	@rm -rf $(OUT)/_build
	@$(BOOK) build . --path-output $(OUT) -n -W --keep-going --quiet
	@! find $(OUT)/_build/html -name '*.err.log' | grep .
	@echo "The book is built. Open $(abspath $(OUT))/_build/html/index.html"

offline: book
	@$(PY) tools/offline.py $(OUT)/_build/html dist

test: $(STAMP)
	@$(PY) -m pytest

lab: $(STAMP)
	@$(PY) -c "import jupyterlab" 2>/dev/null || $(PY) -m pip install --quiet \
	  --no-build-isolation -e ".[lab]"
	@cd notebooks && ../$(PY) -m jupyter lab

notebooks: $(STAMP)
	@$(PY) tools/execute_notebooks.py

runs: $(STAMP)
	@$(PY) -m gencore train --all

repo:
	@$(PYTHON) tools/stamp_repository.py $(REPO)

links: $(STAMP)
	@$(BOOK) build . --path-output _build/links --builder linkcheck --quiet
	@! grep -F '[broken]' _build/links/_build/html/output.txt

lighthouse: book
	@$(PY) tools/lighthouse.py $(OUT)/_build/html

clean:
	rm -rf _build build dist *.egg-info .pytest_cache
