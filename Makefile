# Sets up an environment of the repository's own in .venv and runs the project in it. pip is called
# without an index of ours, so that pip.conf and PIP_* variables decide where packages come from.

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SUITS := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))
BASE := import sys; print(sys.base_prefix, sys.version_info[:3])

PYTHON ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=

# The environment is made anew where it is missing or broken, was copied here from another folder
# (its scripts name the folder they were made in), or was made by another Python than PYTHON names.
STALE := $(shell [ "$$(cat $(VENV)/.made_in 2>/dev/null)" = "$(CURDIR)" ] \
    && $(RUN) -c '$(SUITS)' 2>/dev/null || echo yes)
ifneq ($(PYTHON),)
ifneq ($(shell "$(PYTHON)" -c '$(BASE)' 2>/dev/null),$(shell $(RUN) -c '$(BASE)' 2>/dev/null))
STALE := yes
endif
endif

.PHONY: help setup demo results test test-all lint clean
ifneq ($(STALE),)
.PHONY: $(STAMP)
endif

# Words after `results` are rows of RESULTS.md, and no targets. A variable NAME of the shell means something else.
ifeq ($(firstword $(MAKECMDGOALS)),results)
ROWS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
ifneq ($(ROWS),)
.PHONY: $(ROWS)
$(ROWS): results
	@:
endif
endif
ifeq ($(origin NAME),command line)
ROWS := $(NAME)
endif

help: ## List the targets (what make does when none is given)
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  PYTHON=python3.12         the Python that .venv is made with (3.10 to 3.14)'
	@echo '  DEMO_ARGS="--seed 2"      passed on to examples/demo.py'
	@echo '  PYTEST_ARGS="-n 2 -x"     passed on to pytest; -n 2 runs two tests at once'

setup: $(STAMP) ## Make .venv and install requirements.txt and this project (only when they change)
	@echo "$(VENV) is ready"

demo: $(STAMP) ## Speak a small corpus, train a recogniser on it, test it on voices it has not heard
	$(RUN) examples/demo.py $(DEMO_ARGS)

results: $(STAMP) ## Repeat a row of RESULTS.md: make results NAME; without NAME list the rows
	@$(RUN) -m training.results_page repeat $(ROWS)

test: $(STAMP) ## Run the tests that a contributor needs, all but those marked exhaustive
	$(RUN) -m pytest -q --durations=10 -m "not exhaustive" $(PYTEST_ARGS)

test-all: $(STAMP) ## Run the exhaustive tests only; SPEECH_DATA=FOLDER adds those on real speech
	$(RUN) -m pytest -q --durations=10 -m exhaustive $(PYTEST_ARGS)

lint: $(STAMP) ## Check the style of the code
	$(RUN) -m ruff check .

clean: ## Remove .venv, caches and build output; data and results stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

define MAKE_VENV
python=; bare=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.12 python3.11 python3.13 python3.10 python3.14); do \
    "$$candidate" -c '$(SUITS)' 2>/dev/null || continue; \
    if "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then python=$$candidate; break; fi; \
    bare=$$candidate; \
done; \
if [ -z "$$python" ] && [ -n "$$bare" ]; then \
    version=$$("$$bare" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
    echo "$$bare cannot make virtual environments: install its venv module" \
        "(Debian, Ubuntu: apt install python$$version-venv), or name another Python:" \
        "make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
elif [ -z "$$python" ]; then \
    echo "$(if $(PYTHON),PYTHON=$(PYTHON) is not a Python from 3.10 to 3.14 that runs,No Python from 3.10 to 3.14 found)," \
        "and PyTorch 2.11 exists for those only. Install Python 3.12" \
        "(Debian, Ubuntu: apt install python3.12 python3.12-venv; macOS: brew install python@3.12)" \
        "and name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
fi; \
echo "Making $(VENV) with $$("$$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
"$$python" -m venv --clear $(VENV) && echo "$(CURDIR)" > $(VENV)/.made_in
endef

# PIP_USER=0: a pip.conf that says `user = true` cannot hold inside a virtual environment.
$(STAMP): requirements.txt pyproject.toml
	@rm -f $@
	@$(if $(STALE),$(MAKE_VENV),echo "requirements.txt or pyproject.toml changed: updating $(VENV)")
	@echo "Installing requirements.txt into $(VENV): a few minutes, and several GB where torch comes with CUDA"
	@{ PIP_USER=0 $(RUN) -m pip install --disable-pip-version-check -r requirements.txt \
	    && PIP_USER=0 $(RUN) -m pip install --disable-pip-version-check --quiet \
	        --no-deps --no-build-isolation -e . ; } || { \
	    echo "Installing failed; pip's message above says why. Without a network, or behind a proxy or" \
	        "mirror, set PIP_INDEX_URL or pip.conf; then run make setup again." \
	        "See docs/troubleshooting.md, 'Installing'." >&2; exit 1; }
	@$(RUN) -c 'import torch, torchaudio, speechbrain' || { \
	    echo "torch, torchaudio and speechbrain are installed and cannot be imported together." \
	        "See docs/troubleshooting.md, 'torch and torchaudio'." >&2; exit 1; }
	@touch $@
