#!/usr/bin/env bash
# Measurements on a GPU, at most ten minutes; called again, it goes on where it stopped.
#
#     benchmarks/gpu.sh DATA_ROOT [REFERENCE]
#
# DATA_ROOT: folder with CIFAR-10 (of later rows also CIFAR-100 and Fashion-MNIST); what is missing is downloaded.
# REFERENCE: a checkout of github.com/VICO-UoE/DatasetCondensation, with which iteration times are compared.
# It takes torch, torchvision, numpy, scipy, scikit-learn, safetensors and Pillow; PYTHON names the interpreter.
# The results are JSON files in benchmarks/results: check-gpu.json (closeness to the CPU and time of a step, without and
# with CUDA graphs), speed-gpu-ipc*.json (in turn with the public code), and gpu-*.json for each row of the table of
# accuracies, the most important rows first.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
data=$(realpath "$1") reference=${2:+$(realpath "$2")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python} results=benchmarks/results end=$((SECONDS + 600))

# Run a script with what is left of the time, at most $1 seconds; a part that fails or ends early stops no other part.
part() {
    local seconds=$((end - SECONDS < $1 ? end - SECONDS : $1)) status=0
    printf '\n%s\n' "${*:2}"
    [ "$seconds" -gt 0 ] || { echo "no time left: call it again"; return; }
    timeout --foreground --signal=INT --kill-after=30 "$seconds" "$python" "${@:2}" || status=$?
    [ $status -ne 124 ] || echo "the time is over: call it again"
    return 0
}

"$python" -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "torch sees no CUDA GPU here")'
part 240 benchmarks/speed/gpu_check.py --device cuda --out $results/check-gpu.json
if [ -n "$reference" ]; then
    for ipc in 10 1 50; do
        out=$results/speed-gpu-ipc$ipc.json
        [ -e $out ] || part 60 benchmarks/speed/run.py --reference "$reference" --ipc $ipc --pairs 50 --precision fp32,mixed --out $out
    done
fi
part 600 benchmarks/accuracy/run.py --scale gpu --device cuda --data-root "$data" --download
