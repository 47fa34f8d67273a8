#!/bin/sh
# Tests the CUDA backend where there is no GPU: the kernels' own sources, compiled for this processor by the stand-in of
# `emulator/`, under a driver that is one too.
# Usage: tests/gpu/emulate.sh [cargo test arguments]; by itself it runs the tests of kernels, forwards and backwards, and
# what is said of machines that lack something.
#
# On a machine with a GPU the same tests are
#     cargo test -p engine --features cuda --lib cuda::
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
toolkit=${CARGO_TARGET_DIR:-$(pwd)/target}/emulator
make --silent -C "$here/emulator" OUT="$toolkit"
export CUDA_HOME="$toolkit"
drivers=${LD_LIBRARY_PATH:-}
if [ $# -gt 0 ]; then
    LD_LIBRARY_PATH="$toolkit/lib:$drivers" exec cargo test --features cuda "$@"
fi
tests() { cargo test -p engine --features cuda --lib "$1"; }
lacking=cuda::tests::device::what_is_lacking
echo 'without a driver'
tests $lacking
export LD_LIBRARY_PATH="$toolkit/lib:$drivers"
tests cuda::
echo 'blocks, warps and lanes from the last to the first, on two threads'
EMULATOR_BACKWARDS=1 EMULATOR_THREADS=2 tests cuda::
for lacks in device version capability; do
    echo "without a $lacks that will do"
    EMULATOR_LACKS=$lacks tests $lacking
done
