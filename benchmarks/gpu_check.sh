#!/usr/bin/env bash
# Checks and measures the GPU kernels on a machine with one CUDA card and no network.
#
#   benchmarks/gpu_check.sh prepare                 beforehand, with a network: fetch what the others need
#   benchmarks/gpu_check.sh [build|parity|speed|train ...] [--out FOLDER] [--device cuda|cpu]
#
# Without a stage it runs build, parity, speed and train. PYTHON names the interpreter (default: python3).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"
carried="$here/gpu/carried"
python="${PYTHON:-python3}"
# seconds a stage may take
limit=475

usage() { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

stages=()
options=()
out="results/gpu_check"
device="cuda"
while (($#)); do
    case "$1" in
        prepare | build | parity | speed | train) stages+=("$1") ;;
        --out | --device | --seed)
            if (($# < 2)); then
                echo "gpu_check: $1 needs a value" >&2
                exit 2
            fi
            case "$1" in
                --out) out="$2" ;;
                --device) device="$2" ;;
                --seed) options+=("$1" "$2") ;;
            esac
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "gpu_check: unknown stage or option '$1'" >&2
            usage >&2
            exit 2
            ;;
    esac
    shift
done
if ((${#stages[@]} == 0)); then
    stages=(build parity speed train)
fi
if ! command -v "$python" > /dev/null; then
    echo "gpu_check: no $python here: name an interpreter that has torch, PYTHON=/path/to/python3" >&2
    exit 1
fi

if [[ "$python" == */* ]]; then
    # the stages run in the tree's folder, not in this one
    python="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")"
fi

mkdir -p "$out"
out="$(cd "$out" && pwd)"

# Prints those of the wheels given whose distribution is not installed.
missing() {
    "$python" - "$@" << 'END'
import importlib.metadata
import os
import sys

for wheel in sys.argv[1:]:
    try:
        importlib.metadata.version(os.path.basename(wheel).split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        print(wheel)
END
}

# Lays out those of the carried wheels that are not installed here, beside the results.
use_carried() {
    local wheels="$out/wheels" needed=()
    export PYTHONPATH="$PYTHONPATH:$wheels"
    if [[ -d "$carried/wheels" ]]; then
        mapfile -t needed < <(missing "$carried"/wheels/*.whl)
    elif [[ -n "$(missing speechbrain)" ]]; then
        echo "gpu_check: speechbrain is not installed and no wheels are carried: the stage train needs" \
            "'benchmarks/gpu_check.sh prepare', run beforehand where there is a network" >&2
    fi
    if ((${#needed[@]})); then
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
            --root-user-action=ignore --target "$wheels" "${needed[@]}" \
            || echo "gpu_check: the carried wheels could not be installed, see above" >&2
    fi
}

cd "$root"
export PYTHONPATH="$root:$out/site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"
if [[ "$device" == cpu ]]; then
    export TRITON_INTERPRET=1
fi

carried_used=no
failed=()
for stage in "${stages[@]}"; do
    echo "== $stage"
    if [[ "$stage" == prepare ]]; then
        "$python" -m benchmarks.gpu prepare
        continue
    fi
    if [[ "$carried_used" == no ]]; then
        use_carried
        carried_used=yes
    fi
    status=0
    timeout --kill-after=10 "$limit" "$python" -m benchmarks.gpu "$stage" \
        ${options[@]+"${options[@]}"} --device "$device" --out "$out" || status=$?
    if ((status == 124 || status == 137)); then
        echo "gpu_check: $stage was stopped after $limit s; its table holds what was done" >&2
    fi
    if ((status)); then
        failed+=("$stage")
    fi
done
if ((${#failed[@]})); then
    echo "gpu_check: failed: ${failed[*]} (tables in $out)" >&2
    exit 1
fi
