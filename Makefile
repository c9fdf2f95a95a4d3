# Slingshot. `make help` lists the targets; README.md gives the plain commands behind them.
# Every target sets up what it needs; a second call installs nothing.

PYTHON ?= python3
VENV_PYTHON = $(if $(filter Windows_NT,$(OS)),.venv/Scripts/python.exe,.venv/bin/python)
BOOTSTRAP = $(PYTHON) tools/bootstrap.py
SHARED = -n 2 --dist loadfile --no-loadscope-reorder --durations=20

# tools/common/inherited.py says what is let through of the variables that pip and Python read, and why.
INHERITED = $(addprefix PIP_,INDEX_URL PYPI_URL EXTRA_INDEX_URL NO_INDEX FIND_LINKS TRUSTED_HOST CERT \
	CLIENT_CERT PROXY TIMEOUT DEFAULT_TIMEOUT RETRIES RESUME_RETRIES CACHE_DIR NO_CACHE_DIR CONSTRAINT \
	BUILD_CONSTRAINT KEYRING_PROVIDER USE_FEATURE USE_DEPRECATED CONFIG_FILE LOG PROGRESS_BAR NO_COLOR \
	NO_INPUT DISABLE_PIP_VERSION_CHECK) $(addprefix PYTHON,DONTWRITEBYTECODE FAULTHANDLER HASHSEED \
	IOENCODING PYCACHEPREFIX UNBUFFERED UTF8)
unexport $(filter-out $(INHERITED),$(filter PIP_% PYTHON%,$(.VARIABLES))) VIRTUAL_ENV \
	__PYVENV_LAUNCHER__ SETUPTOOLS_USE_DISTUTILS DIST_EXTRA_CONFIG MYPYPATH JUPYTER_PATH \
	JUPYTER_PREFER_ENV_PATH MPLBACKEND MATPLOTLIBRC
export PYTHONUTF8 = 1

.NOTPARALLEL:
.PHONY: help book pdf test test-fast links newest model lab progress notebooks experiments bench assignments grade clean distclean setup \
	setup-dev setup-instructor python

# The value of a variable as one word of the shell, whatever it holds.
as_typed = '$(subst ','\'',$(value $(1)))'

help: ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

book: setup ## build the book in _build/html
	@$(VENV_PYTHON) tools/book.py

pdf: setup-dev ## print the whole book, _build/slingshot.pdf
	@$(VENV_PYTHON) tools/pdf.py

test: setup-dev model ## lint, check types and spelling, run the tests and re-execute the notebooks
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV_PYTHON) -m codespell_lib
	$(VENV_PYTHON) -m pytest -p tests.notebook_counts_plugin $(SHARED) tests notebooks \
		--ignore=notebooks/assignments --nbval --nbval-current-env \
		--nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 600

test-fast: setup-dev model ## lint, check types and spelling, and test the library: no browser, notebook, build or experiment
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV_PYTHON) -m codespell_lib
	$(VENV_PYTHON) -m pytest $(SHARED) -m "not slow" tests

links: setup ## ask every address that the book names whether it is still there (needs the network)
	@$(VENV_PYTHON) tools/links.py

newest: python ## test the library with the newest releases of all that is pinned, in .venv-newest
	@$(PYTHON) tools/newest.py

model: setup ## bring the pretrained language model, 93 MB, once
	@$(VENV_PYTHON) tools/model.py

lab: setup ## open JupyterLab on your own copies of chapters and assignments, in workspace/
	@$(VENV_PYTHON) tools/lab.py $(if $(NEW_EDITIONS),--new-editions)

progress: setup ## run the checks on your assignments in workspace/ and show which exercises pass
	@$(VENV_PYTHON) tools/show_progress.py

notebooks: setup model ## re-execute the notebooks and store their outputs
	$(VENV_PYTHON) tools/notebooks.py

experiments: setup model ## train what the notebooks only read; makes the runs that are missing (about two hours)
	set -e; for experiment in experiments/[a-z]*.py; do $(VENV_PYTHON) "$$experiment" \
		$(if $(SCHEDULER),--scheduler $(call as_typed,SCHEDULER)); done

bench: setup-dev ## compare the library with its peers (several minutes)
	@$(BOOTSTRAP) --requirements benchmarks/requirements.txt
	set -e; for bench in benchmarks/bench_*.py; do $(VENV_PYTHON) "$$bench"; done

assignments: setup-instructor ## make the student edition of the assignments from the source edition
	$(VENV_PYTHON) tools/assignments.py

grade: setup-instructor ## grade a folder: make grade SUBMISSIONS=folder [ASSIGNMENT=claim]
	@$(VENV_PYTHON) tools/grade.py $(if $(ASSIGNMENT),--assignment $(call as_typed,ASSIGNMENT)) \
		$(if $(SCHEDULER),--scheduler $(call as_typed,SCHEDULER)) $(if $(NO_SANDBOX),--no-sandbox) \
		-- $(call as_typed,SUBMISSIONS)

clean: ## remove what was built; keeps .venv and workspace/
	rm -rf _build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -name .venv -o -name .venv-newest -o -name workspace -o -name .git \) -prune -o -type d \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf .venv .venv-newest

setup: python ## install what the book and the notebooks need
	@$(BOOTSTRAP)

setup-instructor: python ## install what grading needs
	@$(BOOTSTRAP) --requirements requirements-instructor.txt

setup-dev: python ## install what the tests need, a browser and a sandbox included
	@$(BOOTSTRAP) --dev

python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "$(PYTHON) was not found:" \
		"install Python 3.11 to 3.14, or name yours: make book PYTHON=/path/to/python3" >&2; exit 1; }
