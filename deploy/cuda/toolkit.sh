#!/bin/sh
# The part of CUDA's toolkit that compiles kernels, out of PyPI wheels: no root, no GPU, no driver; 0.4 GB.
# Usage: deploy/cuda/toolkit.sh FOLDER.  Prints what to export for `cargo build --features cuda`.
#
# 13.0 on purpose: what a newer toolkit makes, drivers of the 580 series refuse.
set -eu
[ $# -eq 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
# cccl: cuda_fp16.h includes a header of it.
${PYTHON:-python3} -m pip install --quiet --no-deps --upgrade --target "$folder" \
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 >&2
home=$folder/nvidia/cu13
[ -x "$home/bin/nvcc" ] || { echo "there is no nvcc in $home/bin: the wheels are laid out otherwise" >&2; exit 1; }
echo "export CUDA_HOME=$home"
