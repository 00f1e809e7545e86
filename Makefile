# Everything runs in a local environment, .venv, that is made on first use and again when pyproject.toml changes.
PYTHON ?= python3
# Another build of the same release may be named here, for example one for a GPU.
TORCH ?= torch==2.13.0

INPUT ?= Resources/samples/hip_ct.nii.gz
PROMPTS ?= --all

BIN := .venv/bin

.PHONY: help demo view test lint format bench clean

help:
	@echo "make demo    segment a sample; INPUT=scan.nii.gz for your own, PROMPTS='--box R,A,S,R,A,S' for one bone"
	@echo "make view    look at it and correct it in the browser"
	@echo "make test    run the tests; TESTS=Testing/lib for some"
	@echo "make lint    check format, style and types"
	@echo "make format  apply format and safe style fixes"
	@echo "make bench   measure speed and memory, beside the parts of SegmentAnyBone"
	@echo "make clean   remove the environment and everything made"

demo: .venv/.demo
	@mkdir -p demo
	@$(BIN)/bonesam segment "$(INPUT)" $(PROMPTS) \
		--output demo/mask.seg.nrrd --overlay demo/overlay.png --report demo/report.html
	@echo "$(INPUT)" > demo/input
	@echo 'To look at it and correct it in the browser: make view INPUT="$(INPUT)"'

view: .venv-web/.web
	@test -e demo/mask.seg.nrrd -a "$$(cat demo/input 2>/dev/null)" = "$(INPUT)" || $(MAKE) demo
	@.venv-web/bin/bonesam view "$(INPUT)" --mask demo/mask.seg.nrrd

# TESTS narrows the runs. What is for one of Slicer's environments only is left to it; each part of that has a process
# of its own, because there is one scene in a process.
IN_SLICER = Testing/slicer Testing/panel
IN_VIEWS = Testing/mouse Testing/browser
GENERAL_TESTS = $(filter-out $(addsuffix %,$(IN_SLICER) $(IN_VIEWS)),$(TESTS))
SLICER_TESTS = $(if $(TESTS),$(filter $(addsuffix %,$(IN_SLICER)),$(TESTS)),$(IN_SLICER))
MOUSE_TESTS = $(if $(TESTS),$(filter $(addsuffix %,$(IN_VIEWS)),$(TESTS)),$(IN_VIEWS))

test: .venv/.dev $(if $(SLICER_TESTS),.venv-slicer/.slicer) $(if $(MOUSE_TESTS),.venv-web/.web)
	$(if $(TESTS),$(if $(GENERAL_TESTS),$(BIN)/python -m pytest $(GENERAL_TESTS)),$(BIN)/python -m pytest)
	for tests in $(SLICER_TESTS); do .venv-slicer/bin/python -m pytest $$tests || exit; done
	for tests in $(MOUSE_TESTS); do .venv-web/bin/python -m pytest $$tests || exit; done

lint: .venv/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.dev
	$(BIN)/python -m Testing.bench.bench

clean:
	rm -rf .venv .venv-slicer .venv-web demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "BoneSAM needs Python 3.11 or newer: name one, for example make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv

# The two stamps: what a user needs (no torch), and what developing needs.
.venv/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# 3D Slicer's own classes, for the tests of what works on them. They need a vtk of their own, hence the environment.
.venv-slicer/.slicer: pyproject.toml
	$(PYTHON) -m venv .venv-slicer
	.venv-slicer/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[slicer]"
	@touch $@

# Slicer's slice views, for a mouse. They pin another vtk and slicer-core than the above, and draw through EGL.
.venv-web/.web: pyproject.toml
	$(PYTHON) -m venv .venv-web
	.venv-web/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[web]" playwright "pytest>=8.3"
	@touch $@

# torch comes first and pinned: left to the dependency resolver it may bring gigabytes of CUDA libraries.
.venv/.dev: .venv/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[cluster,dev,dicom,stl,train]"
	@touch $@
