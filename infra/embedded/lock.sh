#!/usr/bin/env bash
# Writes requirements/*.txt: pinned versions with hashes, and no index address. `make lock`.
set -euo pipefail
cd "$(dirname "$0")/../.."

compile() {
    .venv/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host "$@"
}

compile pyproject.toml -o requirements/portal.txt
compile pyproject.toml --extra dev -c requirements/portal.txt -o requirements/dev.txt
compile requirements/node.in -o requirements/node.txt
compile --unsafe-package torch requirements/programs.in -o requirements/programs.txt
# torch has a file of its own (see torch.txt): pip-compile puts it last, under this heading.
sed -i '/^# The following packages are considered to be unsafe/,$d' requirements/programs.txt
# Reads from `pyproject.toml`, not from this machine's folder.
sed -i "s#$PWD/##g" requirements/*.txt
if grep -nE '(https?|file)://' requirements/*; then
    echo "An address got into a lock file: see above." >&2
    exit 1
fi
