#!/usr/bin/env bash
# Checks and measures the GPU kernels on a machine with one CUDA card and no network.
#
#   benchmarks/gpu_check.sh prepare                 beforehand, with a network: fetch what the others need
#   benchmarks/gpu_check.sh [build|parity|speed|train ...] [--out FOLDER] [--device cuda|cpu]
#
# Without a stage it runs build, parity, speed and train. PYTHON names the interpreter (default: python3).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
carried="$root/benchmarks/gpu/carried/wheels"
python="${PYTHON:-python3}"
# seconds a stage may take
limit=475

stages=() out="results/gpu_check" device="cuda"
while (($#)); do
    case "$1" in
        prepare | build | parity | speed | train) stages+=("$1") ;;
        --out | --device)
            (($# > 1)) || { echo "gpu_check: $1 needs a value" >&2; exit 2; }
            [[ "$1" == --out ]] && out="$2" || device="$2"
            shift
            ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *)
            echo "gpu_check: unknown stage or option '$1'" >&2
            sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
            exit 2
            ;;
    esac
    shift
done
((${#stages[@]})) || stages=(build parity speed train)
if ! command -v "$python" > /dev/null; then
    echo "gpu_check: no $python here: name an interpreter that has torch, PYTHON=/path/to/python3" >&2
    exit 1
fi
if ! "$python" -c 'import torch' 2> /dev/null; then
    echo "gpu_check: $python has no torch: name an interpreter that has it, PYTHON=.venv/bin/python after make setup" >&2
    exit 1
fi
# the stages run in the tree's folder, not in this one
[[ "$python" != */* ]] || python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
cd "$root"
export PYTHONPATH="$root:$out/site${PYTHONPATH:+:$PYTHONPATH}:$out/wheels" PYTHONUNBUFFERED=1
[[ "$device" != cpu ]] || export TRITON_INTERPRET=1

if [[ "$device" == cuda && "${stages[0]}" != prepare ]] \
    && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_check: no CUDA device: run this on a machine with a card, or pass --device cpu for what can be" \
        "tried without one" >&2
    exit 1
fi
# Prints those of the wheels given whose distribution is not installed.
missing() {
    "$python" - "$@" << 'END'
import importlib.metadata, os, sys
for wheel in sys.argv[1:]:
    try:
        importlib.metadata.version(os.path.basename(wheel).split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        print(wheel)
END
}
if [[ -d "$carried" && "${stages[0]}" != prepare ]]; then
    mapfile -t needed < <(missing "$carried"/*.whl)
    ((${#needed[@]} == 0)) || "$python" -m pip install --quiet --no-index --no-deps --no-compile \
        --disable-pip-version-check --target "$out/wheels" "${needed[@]}" \
        || echo "gpu_check: the carried wheels could not be installed, see above" >&2
fi

failed=()
for stage in "${stages[@]}"; do
    echo "== $stage"
    [[ "$stage" == prepare ]] && seconds=3600 || seconds=$limit
    status=0
    timeout --kill-after=10 "$seconds" "$python" -m benchmarks.gpu "$stage" --device "$device" --out "$out" \
        || status=$?
    if ((status == 124 || status == 137)); then
        echo "gpu_check: $stage was stopped after $seconds s; its table holds what was done" >&2
    fi
    ((status == 0)) || failed+=("$stage")
done
if ((${#failed[@]})); then
    echo "gpu_check: failed: ${failed[*]} (tables in $out)" >&2
    exit 1
fi
