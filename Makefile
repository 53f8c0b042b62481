# make demo | test | test-long | fuzz | lint | matrix | bench | docs | clean; each installs what it needs.

PYTHON ?= /usr/bin/python3
VENV ?= .venv
BUILD ?= build

# What the shipped whitelist `spack` names, and what the virtual environment is made with.
DEMO_PACKAGES = bzip2 ca-certificates curl file g++ gcc gfortran git gnupg gzip libc6-dev \
	lsb-release make patch perl python3 tar unzip xz-utils zstd \
	python3-apt python3-venv
# What the tests need besides: what the shipped whitelist `build` names, and programs that they
# compare with or look through.
TEST_PACKAGES = $(DEMO_PACKAGES) autoconf automake bison build-essential flex gettext libtool m4 pkg-config \
	chromium chromium-driver graphviz groff-base lz4 \
	bubblewrap busybox-static createrepo-c db5.3-util dnf e2fsprogs erofs-utils fakeroot fuse3 libarchive-tools makepkg \
	mtree-netbsd pacman-package-manager procps python3-solv rpm squashfs-tools squashfuse strace systemd-container \
	util-linux zlib1g-dev zypper
LONG_TEST_PACKAGES = mmdebstrap qemu-system-x86

RUN = $(VENV)/bin/python -m pkgjail

.PHONY: help demo test test-long fuzz lint matrix bench docs clean

help:
	@sed -n '1s/^# //p' Makefile

demo: $(VENV)/runtime
	@.ci/prerequisites $(DEMO_PACKAGES)
	rm -rf $(BUILD)/demo && mkdir -p $(BUILD) && cp -r examples $(BUILD)/demo
	$(RUN) resolve spack --blacklist docs -o $(BUILD)/spack.manifest.jsonl
	$(RUN) show $(BUILD)/spack.manifest.jsonl
	cd $(BUILD)/demo && $(abspath $(VENV))/bin/python -m pkgjail run --cwd ../spack.manifest.jsonl -- make --no-print-directory

test: lint $(VENV)/docs
	$(VENV)/bin/python -m pytest -n 2 -m "not long" --cov --cov-report=term

test-long: lint $(VENV)/docs
	@.ci/prerequisites $(LONG_TEST_PACKAGES)
	PKGJAIL_EXAMPLES=10000 $(VENV)/bin/python -m pytest --cov --cov-report=term

# Changed inputs for everything that reads what others wrote: as many as FUZZ says, or TARGETS="elf rpm" alone.
FUZZ = 1000000
fuzz: $(VENV)/fuzz
	@.ci/prerequisites --lists $(TEST_PACKAGES)
	$(VENV)/bin/python -m tests.fuzz.run --build $(BUILD)/fuzz --inputs $(FUZZ) $(TARGETS)

lint: $(VENV)/development
	@.ci/prerequisites --lists $(TEST_PACKAGES)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright
	$(VENV)/bin/vermin --quiet --no-tips --violations --target=3.9- pkgjail/ backends/

# The tests on every Python from 3.9 to 3.13 that this machine has; says which ran. MINORS="9 13" for some.
matrix: $(VENV)/development
	@.ci/prerequisites --lists $(TEST_PACKAGES)
	$(VENV)/bin/python .ci/matrix.py $(MINORS)

bench: $(VENV)/development
	@.ci/prerequisites --lists $(TEST_PACKAGES) apt
	$(VENV)/bin/python benchmarks/run.py

# The documentation as a site, in build/site. LINKS=1 also visits each external address.
docs: $(VENV)/docs
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -d $(BUILD)/doctrees docs $(BUILD)/site
	$(if $(LINKS),$(VENV)/bin/python -m sphinx -b linkcheck -d $(BUILD)/doctrees docs $(BUILD)/links)
	@echo "$(BUILD)/site/index.html"

$(VENV)/bin/python:
	@.ci/prerequisites python3-apt python3-venv
	$(PYTHON) -m venv --system-site-packages $(VENV)

$(VENV)/runtime: setup.py | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable .
	touch $@

$(VENV)/development: tests/requirements.txt $(VENV)/runtime
	$(VENV)/bin/python -m pip install --quiet --requirement tests/requirements.txt
	touch $@

$(VENV)/docs: docs/requirements.txt $(VENV)/development
	$(VENV)/bin/python -m pip install --quiet --requirement docs/requirements.txt
	touch $@

$(VENV)/fuzz: tests/fuzz/requirements.txt $(VENV)/development
	$(VENV)/bin/python -m pip install --quiet --requirement tests/fuzz/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-matrix $(BUILD) *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
