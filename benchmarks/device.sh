#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in about 400 s: each step under a time limit of its own, output as it
# comes, no installation. Run it at the root of the repository with a Python that has torch, transformers and pytest:
#
#     bash benchmarks/device.sh [--device cuda:1] [options of `python -m benchmarks device`] 2>&1 | tee device.log
#
# A rehearsal without a GPU:
#
#     bash benchmarks/device.sh --device cpu --tokens 512 --layers 2 --texts 20 --rounds 1 --training-steps 2 \
#         --product 256 --precision float32
#
# The steps parity, end-to-end and twice need all-MiniLM-L6-v2: the package of the extra `minilm`, or --minilm FOLDER.
# The time limits are multiplied by TIMES (default 1), for slow machines. A step that fails or runs out of time is
# named, and the next one begins; the exit code is the number of such steps.
set -u
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="src:." PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
python=${PYTHON:-python3}
times=${TIMES:-1}
failed=0

step() { # seconds command...
    local limit=$(($1 * times))
    shift
    timeout --kill-after=5 "$limit" "$@"
    local code=$?
    if [ "$code" -ne 0 ]; then
        failed=$((failed + 1))
        [ "$code" -eq 124 ] && echo "-- out of time after $limit s: $*" || echo "-- exit code $code: $*"
    fi
}

step 30 "$python" -m benchmarks device versions "$@"
step 40 "$python" -m benchmarks device floors "$@"
step 100 "$python" -m pytest -q -x -p no:cacheprovider tests/backends/torch/test_backend_cuda.py -W default
step 40 "$python" -m benchmarks device parity "$@"
step 80 "$python" -m benchmarks device batch "$@"
step 50 "$python" -m benchmarks device biases "$@"
step 90 "$python" -m benchmarks device end-to-end "$@"
step 40 "$python" -m benchmarks device states "$@"
step 50 "$python" -m benchmarks device training "$@"
step 40 "$python" -m benchmarks device twice "$@"
echo "-- $failed of 10 steps failed"
exit "$failed"
