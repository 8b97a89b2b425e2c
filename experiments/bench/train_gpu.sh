#!/bin/sh
# The GPU half of train.py, eight minutes on one H100, on a machine without a package registry.
#
#   sh experiments/bench/train_gpu.sh wheels     where there is one: brings the wheels to .whl
#   sh experiments/bench/train_gpu.sh [FILE]     on the machine with the GPU: measures, and writes
#                                                FILE (default: results/train.json)
#
# The machine with the GPU has Python 3.12 with torch, lightning, peft and transformers. The wheels
# are what the package and the peers need besides, less than 64 MiB in all with the rows; `.whl` is
# not committed.
set -eu
cd "$(dirname "$0")/../.."

bring() { # folder, packages...
    folder=$1 && shift && mkdir -p "$folder"
    for package in "$@"; do
        python3 -m pip download -qq --disable-pip-version-check --no-deps --only-binary=:all: \
            --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
            --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
            --platform manylinux_2_24_x86_64 --platform manylinux_2_28_x86_64 --platform any \
            --dest "$folder" "$package"
    done
}

if [ "${1:-}" = wheels ]; then
    # In the versions of requirements.lock, where it has them.
    locked=$(grep -E '^(datasets|dill|multiprocess|jsonargparse|typeshed_client|docstring_parser)==' \
        requirements.lock)
    bring .whl $locked trl==1.16.0
    # Unsloth asks for older releases of what the others use, so it has a folder of its own.
    bring .whl/unsloth unsloth==2026.10.9 unsloth_zoo==2026.10.9 trl==1.15.0 datasets==4.8.4 tyro \
        cut_cross_entropy hf_transfer msgspec einops torchao
    rows=general/natural_instructions
    if [ -d "../shared/data/$rows" ]; then # else the rows of the microworld are used
        mkdir -p ".whl/data/$rows"
        cp "../shared/data/$rows/natural_instructions_sample.jsonl" ".whl/data/$rows/"
    fi
    du -sh .whl
    exit
fi

install() { # folder of wheels, folder to put them in
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$2" "$1"/*.whl
}

unset PYTHONDONTWRITEBYTECODE # every process would compile all sources again
export PYTHONPYCACHEPREFIX=/tmp/bench-pycache
install .whl /tmp/bench-site
install .whl/unsloth /tmp/bench-site-unsloth_sft || true # it is listed with the reason then
export PYTHONPATH="$PWD:/tmp/bench-site"
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader || true
if [ -n "${1:-}" ]; then cp experiments/bench/results/train.json "$1"; fi # with the CPU half
exec python3 experiments/bench/train.py --gpu --data .whl/data ${1:+--out "$1"}
