# `make test` and `make demo` need nothing but make and, where system packages are missing, root (or sudo) on Debian.
# Everything Python goes into .venv; every step is done once and again only when its inputs change.

SHELL := /bin/sh
.NOTPARALLEL:
.DELETE_ON_ERROR:

# An installation made under PYTHONDONTWRITEBYTECODE has no .pyc files and starts several times slower.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH
unexport PYTHONHOME

VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet
SOURCE := $(shell find src -type f ! -name '*.pyc')

# What the tests cannot do without, and the real programs that some of them dump and restore.
# The last three: an assembler, an emulator and headers for the code that is another machine's (kernel/arch/aarch64).
APT_TEST := gcc libc6-dev iproute2 procps util-linux git \
            binutils-aarch64-linux-gnu qemu-user linux-libc-dev-arm64-cross
APT_REAL := redis-server redis-tools nginx-light postgresql default-jdk-headless golang-go nodejs sqlite3
# Podman and what it needs, and what makes the images and the hosts that it is tested with.
APT_E2E  := podman runc conmon netavark aardvark-dns catatonit iptables nftables iproute2 mmdebstrap openssh-server \
            openssh-client curl gcc libc6-dev default-jdk-headless golang-go busybox-static systemd
# Machines with other kernels (tests/vm), and what makes their disks.
APT_VM   := qemu-system-x86 qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross mmdebstrap \
            e2fsprogs cpio kmod busybox-static util-linux

# Said before anything is installed: what, why, and how much.
ABOUT_VENV := .venv: torpor with protobuf and xxhash, and for its tests pytest, mypy, ruff and pexpect (about 120 MB)
WHY_TEST   := the tests need a compiler and system tools
WHY_REAL   := real programs that some tests put to sleep and wake (without them these tests are skipped)
WHY_VM     := a machine with another kernel, in which one test runs (without it that is skipped)
WHY_E2E    := container engines, hosts and images that some tests use (without them these tests are skipped)

.PHONY: announce unit help test demo demo-containers bench bench-ways bench-containers interop test-vm lint format install clean

help:
	@echo 'make test               set everything up, run all tests, one a core (PYTEST_ARGS="-k pipe -x" to choose)'
	@echo 'make unit               the tests that need no system packages and no root; installs into .venv only'
	@echo 'make demo               set up, then show what torpor does'
	@echo 'make demo-containers    the same with containers, on two hosts, with Podman (Debian)'
	@echo 'make bench [PEER=path]  measure; PEER is another criu to compare with'
	@echo 'make bench-ways [PEER=path]        memory on its way to another process, in processor time'
	@echo 'make bench-containers [PEER=path]  the same for containers under Podman'
	@echo 'make interop PEER=path CRIT=path   cross images with another criu'
	@echo 'make test-vm [KERNEL=6.1]          the tests in machines with other kernels, under qemu (tests/vm/README.md)'
	@echo 'make lint / format      check / rewrite the sources'
	@echo 'make install            only the virtual environment with torpor in it'
	@echo 'make clean              remove what the other targets made here'

test: announce $(VENV)/.dev $(VENV)/.installed
	@tools/apt-install --why '$(WHY_TEST)' $(APT_TEST)
	@tools/apt-install --optional --why '$(WHY_REAL)' $(APT_REAL)
	@tools/apt-install --optional --why '$(WHY_E2E)' $(APT_E2E)
	@tools/apt-install --optional --why '$(WHY_VM)' $(APT_VM)
	$(if $(PYTEST_ARGS),$(PY) -m pytest $(PYTEST_ARGS),$(PY) tools/shards.py)

announce:
	@echo 'make test installs what is missing of this (no service is started, nothing is removed):'
	@test -e $(VENV)/.dev && echo '  $(VENV) is there' || echo '  $(ABOUT_VENV)'
	@tools/apt-install --tell --why '$(WHY_TEST)' $(APT_TEST)
	@tools/apt-install --tell --why '$(WHY_REAL)' $(APT_REAL)
	@tools/apt-install --tell --why '$(WHY_E2E)' $(APT_E2E)
	@tools/apt-install --tell --why '$(WHY_VM)' $(APT_VM)
	@echo

# No system packages, no root: seconds, once .venv is there.
unit: $(VENV)/.dev
	$(PY) -m pytest tests/unit $(PYTEST_ARGS)

demo: install
	$(PY) -m torpor.demo
	@if command -v podman >/dev/null; then $(MAKE) --no-print-directory demo-containers; \
	else echo; echo 'make demo-containers installs Podman and shows the same with containers.'; fi

# The tests' hosts and images (tests/harness), with the torpor that is installed.
demo-containers: $(VENV)/.dev $(VENV)/.installed
	@tools/apt-install $(APT_E2E)
	@echo
	@PYTHONPATH=tests $(PY) -m e2e.slides

bench: install
	@test -e tests/bench/__main__.py || { echo 'make bench: there are no benchmarks yet (tests/bench)' >&2; exit 1; }
	PYTHONPATH=tests $(PY) -m bench $(if $(PEER),--peer '$(PEER)')

bench-ways: install
	PYTHONPATH=tests $(PY) -m bench.ways $(if $(PEER),--peer '$(PEER)')

bench-containers: $(VENV)/.dev $(VENV)/.installed
	@tools/apt-install $(APT_E2E)
	PYTHONPATH=tests $(PY) -m bench.containers $(if $(PEER),--peer '$(PEER)')

interop: $(VENV)/.dev
	@tools/apt-install $(APT_TEST)
	@test -n '$(PEER)' && test -n '$(CRIT)' || { echo 'make interop: name another criu and its crit: PEER=path CRIT=path' >&2; exit 1; }
	TORPOR_PEER='$(PEER)' TORPOR_CRIT='$(CRIT)' $(PY) -m pytest tests/interop $(PYTEST_ARGS)

test-vm: $(VENV)/.dev
	@tools/apt-install $(APT_VM)
	TORPOR_VM='$(or $(KERNEL),all)' $(PY) -m pytest tests/vm $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

install: $(VENV)/.installed

$(VENV)/.created:
	@tools/find-python >/dev/null || tools/apt-install python3 python3-venv
	rm -rf $(VENV)
	"$$(tools/find-python)" -m venv $(VENV)
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	$(PIP) install '.[dev]'
	@touch $@

# A regular installation, not an editable one: it is what users get, and it is compiled.
$(VENV)/.installed: $(VENV)/.created pyproject.toml hatch_build.py README.md $(SOURCE)
	$(PIP) install .
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
