// Rows number by number.  x, y, out [rows, dim]; out may be any of the others.
// Grid: (dim / THREADS, most rows).
#include "common.cuh"

// Calls BODY with `i` for the number of this thread, if there is one.
#define EACH(BODY)                                \
    int at = blockIdx.x * THREADS + threadIdx.x;  \
    if (blockIdx.y < *rows && at < dim) {         \
        size_t i = size_t(blockIdx.y) * dim + at; \
        BODY;                                     \
    }

extern "C" __global__ void add(const float *x, const float *y, const uint32_t *rows, float *out,
                               int dim) {
    EACH(out[i] = x[i] + y[i])
}

extern "C" __global__ void scale(const float *x, const uint32_t *rows, float *out, int dim,
                                 float by) {
    EACH(out[i] = x[i] * by)
}

// Brings logits within -cap and cap.
extern "C" __global__ void softcap(const float *x, const uint32_t *rows, float *out, int dim,
                                   float cap) {
    EACH(out[i] = tanhf(x[i] / cap) * cap)
}

// act(gate, up), for matrices of different formats, which cannot be multiplied at once.
extern "C" __global__ void activated(const float *gate, const float *up, const uint32_t *rows,
                                     float *out, int dim, int act) {
    EACH(out[i] = activate(act, gate[i], up[i]))
}

// out[r] = x[picks[r]]
extern "C" __global__ void gather(const float *x, const uint32_t *picks, const uint32_t *rows,
                                  float *out, int dim) {
    EACH(out[i] = x[size_t(picks[blockIdx.y]) * dim + at])
}

// F32 that F16 and BF16 hold.
extern "C" __global__ void round_f16(const float *x, const uint32_t *rows, float *out, int dim) {
    EACH(out[i] = from_half(to_half(x[i])))
}

extern "C" __global__ void round_bf16(const float *x, const uint32_t *rows, float *out, int dim) {
    EACH(out[i] = from_brain(to_brain(x[i])))
}
