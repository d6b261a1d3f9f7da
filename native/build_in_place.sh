#!/usr/bin/env bash
# Builds the module into src/layertap/backends/native, for work on the kernels: the source tree then runs as it is.
# Needs cmake, ninja, nanobind and a compiler in the active environment. Arguments go to cmake.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake -G Ninja -S native -B build/native -DPython_EXECUTABLE="$(command -v python)" "$@" > build-native.log 2>&1 || { cat build-native.log >&2; exit 1; }
rm build-native.log
cmake --build build/native
cmake --install build/native --prefix src > /dev/null
