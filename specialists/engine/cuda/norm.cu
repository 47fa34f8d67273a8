// RMS norms (1910.07467) of rows: out[r] = x[r] / rms(x[r]) * weight.
//
// x, out [rows, dim]; they may be one.  weight [dim].  Squares are added in F32 by `sum_of_block`.
//
// Grid: most rows; THREADS threads have a row.
#include "common.cuh"

__device__ float squares(const float *x, int dim) {
    float sum = 0;
    for (int i = threadIdx.x; i < dim; i += THREADS) {
        sum = fmaf(x[i], x[i], sum);
    }
    return sum_of_block<THREADS>(sum);
}

extern "C" __global__ void rms_norm(const float *x, const float *weight, const uint32_t *rows,
                                    float *out, int dim, float eps) {
    size_t row = blockIdx.x;
    if (row >= *rows) {
        return;
    }
    x += row * dim;
    float scale = inverse_rms(squares(x, dim), dim, eps);
    for (int i = threadIdx.x; i < dim; i += THREADS) {
        out[row * dim + i] = x[i] * scale * weight[i];
    }
}

// What passes through an expert that every token takes: out[r] = y[r] * sigmoid(gate · x[r]).
//
// y, out [rows, dim]; x [rows, dim], gate [dim]; y and out may be one.
extern "C" __global__ void gate_rows(const float *y, const float *x, const float *gate,
                                     const uint32_t *rows, float *out, int dim) {
    size_t row = blockIdx.x;
    if (row >= *rows) {
        return;
    }
    float sum = 0;
    for (int i = threadIdx.x; i < dim; i += THREADS) {
        sum = fmaf(gate[i], x[row * dim + i], sum);
    }
    float open = sigmoid(sum_of_block<THREADS>(sum));
    for (int i = threadIdx.x; i < dim; i += THREADS) {
        out[row * dim + i] = y[row * dim + i] * open;
    }
}

// Logits of rows that hold what is no number become none: products of some formats pass over such.
//
// x [rows, dim], logits [rows, vocab].
extern "C" __global__ void refuse(const float *x, const uint32_t *rows, float *logits, int dim,
                                  int vocab) {
    size_t row = blockIdx.x;
    if (row >= *rows) {
        return;
    }
    float bad = 0;
    for (int i = threadIdx.x; i < dim; i += THREADS) {
        uint32_t exponent = __float_as_uint(x[row * dim + i]) & 0x7f800000;
        bad = exponent == 0x7f800000 ? 1.0f : bad;
    }
    if (sum_of_block<THREADS>(bad) == 0) {
        return;
    }
    for (int i = threadIdx.x; i < vocab; i += THREADS) {
        logits[row * vocab + i] = __uint_as_float(0x7fc00000);
    }
}
