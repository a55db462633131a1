#!/bin/sh
# Resolve pyproject.toml in a fresh environment and write requirements.lock: every package of the tested environment,
# pinned; and what some extras need beside it, requirements-EXTRA.lock. Build labels (torch's +cpu) are dropped, so that a CUDA
# build satisfies the same lock. torch is installed without its CUDA libraries and stays at the locked version, unless TORCH=<version> names another.
set -eu
cd "$(dirname "$0")/.."
torch=${TORCH:-$(sed -n 's/^torch==//p' requirements.lock)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch"
pip() { "$scratch/bin/python" -m pip "$@"; }
pip install --quiet --upgrade 'setuptools>=77'
# Without its dependencies: PyTorch's index has older releases of them.
pip install --quiet --no-deps --retries 0 --timeout 5 --index-url https://download.pytorch.org/whl/cpu "torch==$torch" ||
    pip install --quiet "torch==$torch"
pip install --quiet "torch==$torch" -e '.[dev]'
{
    echo "# Written by 'make lock' from pyproject.toml: the environment that the tests run in."
    pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+[A-Za-z0-9.]*$//'
} >"$scratch/lock"
cp "$scratch/lock" requirements.lock
# The extras eval and docs stay out of it: hosts install that file, and some of these packages have no wheel.
beside() { # beside EXTRA USER: what an extra needs besides, in a file of its own
    pip install --quiet -c requirements.lock -e ".[$1]"
    {
        echo "# Written by 'make lock' from the extra $1: what $2 needs beside requirements.lock."
        pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+[A-Za-z0-9.]*$//' | grep -vxF -f requirements.lock
    } >"$scratch/$1"
    cp "$scratch/$1" "requirements-$1.lock"
    pip uninstall --quiet --yes -r "$scratch/$1"
}
beside eval lm-eval
beside docs "the site of docs/"
