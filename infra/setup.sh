#!/bin/sh
# Make the virtual environment (.venv) from requirements.lock and, where Node.js is there, install Azurite.
# Returns at once when the lock is unchanged. Works from any folder, including one with a space in its path.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf 'setup: %s\n' "$1" >&2
    exit 1
}

usable() { # whether the project supports this Python
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13: set it to one, or leave it unset."
        printf '%s\n' "$PYTHON"
        return
    fi
    for name in python3 python3.11 python3.12 python3.13; do
        if command -v "$name" >/dev/null && usable "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    fail "No Python 3.11, 3.12 or 3.13 was found ($(python3 --version 2>&1 || echo 'no python3')): install one, or set PYTHON to its path."
}

# Without an NVIDIA GPU, prefer the CPU build of torch: it is a tenth of the size. If its index cannot be reached, the
# configured index serves whatever build it has.
install_torch_for_cpu() {
    command -v nvidia-smi >/dev/null && return 0
    pinned=$(grep '^torch==' requirements.lock)
    echo "setup: no NVIDIA GPU here, looking for the CPU build of $pinned"
    .venv/bin/python -m pip install --quiet --no-compile --no-deps --retries 0 --timeout 5 \
        --index-url https://download.pytorch.org/whl/cpu "$pinned" 2>/dev/null ||
        echo "setup: download.pytorch.org cannot be reached, taking $pinned from the configured package index"
}

install_python() {
    python=$(find_python) || exit 1
    wanted=$("$python" -c '
import hashlib, os, sys
parts = [open(name, "rb").read() for name in ("requirements.lock", "pyproject.toml", "infra/setup.sh")]
print(hashlib.sha256(b"\0".join([*parts, sys.version.encode(), os.getcwd().encode()])).hexdigest())')
    [ "$(cat .venv/.ready 2>/dev/null || true)" = "$wanted" ] && return 0
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)."
    echo "setup: installing the packages of requirements.lock into .venv (a few minutes, once)"
    # An environment that was moved, or made by another Python, still holds absolute paths to its old place.
    if [ -e .venv ] && ! .venv/bin/python -c "import os, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath('.venv'))" 2>/dev/null; then
        rm -rf .venv
    fi
    "$python" -m venv .venv || fail "The virtual environment .venv could not be made: see the message above."
    install_torch_for_cpu
    # Python compiles a file when it is imported: most of these 20,000 never are.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock ||
        fail "The packages of requirements.lock could not be installed: see the message above, then run again."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ||
        fail "FabRating itself could not be installed into .venv: see the message above."
    .venv/bin/python -m infra.local.database 2>/dev/null ||
        echo "setup: the server's database could not be prepared, the first start makes it" >&2
    printf '%s\n' "$wanted" >.venv/.ready
}

install_azurite() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        [ -e infra/node_modules/.ready ] || echo "setup: no Node.js here, so no Azurite: the demo reads its data from a folder"
        return 0
    fi
    cmp -s infra/package-lock.json infra/node_modules/.ready && return 0
    echo "setup: installing Azurite into infra/node_modules"
    if (cd infra && npm ci --silent --no-audit --no-fund); then
        cp infra/package-lock.json infra/node_modules/.ready
    else
        echo "setup: Azurite could not be installed, the demo reads its data from a folder" >&2
    fi
}

install_python
install_azurite
