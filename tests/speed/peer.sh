#!/bin/sh
# Builds llama-bench, llama-batched-bench, llama-quantize and llama-server of llama.cpp into DIR/bin, for this processor.
#
#     pip install cmake ninja && tests/speed/peer.sh DIR [cuda]
#
# With `cuda` it runs on NVIDIA devices too; the toolkit's nvcc must be on the path, and it takes far longer.
# The source is what the Python package of llama.cpp carries, of one version, so that figures can be compared; about
# 70 MB and four minutes on two cores.  What is there already is not made again.
set -eu

version=0.3.36
case "$#${2:-}" in
1) cuda=OFF ;;
2cuda) cuda=ON ;;
*) echo "usage: $0 DIR [cuda]" >&2; exit 2 ;;
esac
mkdir -p "$1"
cd "$1"

source=llama_cpp_python-$version
if [ ! -d "$source" ]; then
    # Only this package itself: from source its build dependencies would need compilers of their own.
    [ -f "$source.tar.gz" ] ||
        pip download --no-deps --no-binary llama-cpp-python "llama-cpp-python==$version"
    tar xzf "$source.tar.gz"
fi

# The server's page for browsers would be downloaded; nobody looks at it here.
cmake -S "$source/vendor/llama.cpp" -B . -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DGGML_OPENMP=ON \
    -DGGML_CUDA=$cuda -DCMAKE_CUDA_ARCHITECTURES=native -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_NUMBER=1 \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
cmake --build . --target llama-bench llama-batched-bench llama-quantize llama-server
echo "built in $(pwd)/bin"
