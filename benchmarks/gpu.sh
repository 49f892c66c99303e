#!/usr/bin/env bash
# Runs benchmarks/gpu.py on a machine without network: `bash benchmarks/gpu.sh [--small]`.
# Where forgetguard is not installed it is put on the path from this checkout, with its pytest
# plugin, and the wheels in ./.whl, if there are any, beside it.
set -u
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if ! python3 -c 'from importlib.metadata import version; version("forgetguard")' 2>/dev/null; then
    site=$(mktemp -d)
    if compgen -G '.whl/*.whl' >/dev/null; then
        python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
            --target "$site" .whl/*.whl || exit 1
    fi
    ln -s "$PWD/forgetguard" "$site/forgetguard"
    ln -s "$PWD/circuits" "$site/forgetguard_circuits"
    ln -s "$PWD/plugins/pytest_forgetguard" "$site/pytest_forgetguard"
    mkdir "$site/forgetguard-0.dist-info"
    printf 'Metadata-Version: 2.1\nName: forgetguard\nVersion: 0\n' \
        >"$site/forgetguard-0.dist-info/METADATA"
    printf '[pytest11]\nforgetguard = pytest_forgetguard.plugin\n' \
        >"$site/forgetguard-0.dist-info/entry_points.txt"
    export PYTHONPATH="$site:${PYTHONPATH:-}"
fi
exec python3 benchmarks/gpu.py "$@"
