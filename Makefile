# `make help` lists the targets: each has its line behind `##`.

PYTHON ?= /usr/bin/python3
VENV ?= .venv
BUILD ?= build

# What the shipped whitelist `spack` names, and what the virtual environment is made with.
DEMO_PACKAGES = bzip2 ca-certificates curl file g++ gcc gfortran git gnupg gzip libc6-dev \
	lsb-release make patch perl python3 tar unzip xz-utils zstd \
	python3-apt python3-venv
# What the tests need besides: what the shipped whitelist `build` names, and programs that they
# compare with or look through.
TEST_PACKAGES = $(DEMO_PACKAGES) autoconf automake bison build-essential cmake flex gettext libtool m4 pkg-config \
	chromium chromium-driver dropbear-bin fish graphviz groff-base lz4 man-db mandoc \
	bubblewrap busybox-static createrepo-c db5.3-util dnf e2fsprogs erofs-utils fakeroot fuse3 libarchive-tools makepkg \
	mtree-netbsd openssh-client pacman-package-manager podman procps python3-solv qemu-system-x86 qemu-user-static rpm runc \
	skopeo squashfs-tools squashfs-tools-ng squashfuse strace systemd-container \
	uidmap umoci util-linux zlib1g-dev zsh zypper
LONG_TEST_PACKAGES = charliecloud gcc-aarch64-linux-gnu libc6-dev-arm64-cross libvirt-clients libxml2-utils meson mmdebstrap \
	python3-dev python3-setuptools qemu-system-arm

RUN = $(VENV)/bin/python -m pkgjail

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@echo "Each target installs what it needs: Debian packages by apt, all else in $(VENV)."
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: demo
demo: $(VENV)/runtime ## resolve the whitelist `spack` on this host, then compile and run programs in its jail
	@.ci/prerequisites $(DEMO_PACKAGES)
	rm -rf $(BUILD)/demo && mkdir -p $(BUILD) && cp -r examples $(BUILD)/demo
	$(RUN) resolve spack --blacklist docs -o $(BUILD)/spack.manifest.jsonl
	$(RUN) show $(BUILD)/spack.manifest.jsonl
	cd $(BUILD)/demo && $(abspath $(VENV))/bin/python -m pkgjail run --cwd ../spack.manifest.jsonl -- make --no-print-directory

.PHONY: quick
quick: $(VENV)/development ## run the tests that start no process, in half a minute
	$(VENV)/bin/python -m pytest -q -n 2 -p tests.pure -rfE

.PHONY: test
test: lint $(VENV)/docs ## run the gates, and all tests but those that take minutes (COVERAGE=1 measures, as CI does)
ifdef COVERAGE
	$(VENV)/bin/python -m pytest -n 2 -m "not long and unmeasured"
	$(VENV)/bin/python -m pytest -n 2 -m "not long and not unmeasured" --cov --cov-report=term
else
	$(VENV)/bin/python -m pytest -n 2 -m "not long"
endif

.PHONY: test-long
test-long: lint $(VENV)/docs ## run the gates and all tests
	@.ci/prerequisites $(LONG_TEST_PACKAGES)
	PKGJAIL_EXAMPLES=10000 $(VENV)/bin/python -m pytest --cov --cov-report=term

.PHONY: spack-table
spack-table: ## run Spack's commands bare and in the jail, for the table in docs/spack.md; needs PKGJAIL_SPACK_ROOT
	/usr/bin/python3 -m tests.spack.table --write docs/spack.md

FUZZ = 1000000
.PHONY: fuzz
fuzz: $(VENV)/fuzz ## give changed inputs to all readers of files from others (FUZZ=100000 TARGETS="elf rpm")
	@.ci/prerequisites --lists $(TEST_PACKAGES)
	$(VENV)/bin/python -m tests.fuzz.run --build $(BUILD)/fuzz --inputs $(FUZZ) $(TARGETS)

.PHONY: lint
lint: $(VENV)/development ## run the gates: ruff, mypy, pyright and vermin
	@.ci/prerequisites --lists $(TEST_PACKAGES)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright
	$(VENV)/bin/vermin --quiet --no-tips --violations --target=3.9- pkgjail/ backends/

.PHONY: hooks
hooks: $(VENV)/development ## make Git run the gates before each commit, and `make quick` before each push
	$(VENV)/bin/pre-commit install

.PHONY: matrix
matrix: $(VENV)/development ## run the tests on each Python from 3.9 to 3.13 that is here (MINORS="9 13" for some)
	@.ci/prerequisites --lists $(TEST_PACKAGES)
	$(VENV)/bin/python .ci/matrix.py $(MINORS)

.PHONY: bench
bench: $(VENV)/development ## compare with other tools and with no jail
	@.ci/prerequisites --lists $(TEST_PACKAGES) apt
	$(VENV)/bin/python benchmarks/run.py

.PHONY: docs
docs: $(VENV)/docs ## make the documentation's site in build/site (LINKS=1 also visits each external address)
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -d $(BUILD)/doctrees docs $(BUILD)/site
	$(if $(LINKS),$(VENV)/bin/python -m sphinx -b linkcheck -d $(BUILD)/doctrees docs $(BUILD)/links)
	@echo "$(BUILD)/site/index.html"

.PHONY: release
release: $(VENV)/development ## build the sdist and the wheel, check them, and say how to publish them
	$(VENV)/bin/python .ci/release.py $(BUILD)/release

$(VENV)/bin/python:
	@.ci/prerequisites python3-apt python3-venv
	$(PYTHON) -m venv --system-site-packages $(VENV)

$(VENV)/runtime: pyproject.toml setup.py | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable .
	touch $@

$(VENV)/development: tests/requirements.txt tests/requirements-alone.txt $(VENV)/runtime
	$(VENV)/bin/python -m pip install --quiet --requirement tests/requirements.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --requirement tests/requirements-alone.txt
	touch $@

$(VENV)/docs: docs/requirements.txt $(VENV)/development
	$(VENV)/bin/python -m pip install --quiet --requirement docs/requirements.txt
	touch $@

$(VENV)/fuzz: tests/fuzz/requirements.txt $(VENV)/development
	$(VENV)/bin/python -m pip install --quiet --requirement tests/fuzz/requirements.txt
	touch $@

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(VENV) .venv-matrix $(BUILD) *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
