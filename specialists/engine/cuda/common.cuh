// What all kernels share: how a block sums, and functions of single numbers as the CPU's kernels
// have them.
//
// Compiled without contraction: a product and a sum are one rounding only where the source says
// fma.  Sums run in one order, which depends on how long a row is and on nothing else, so that a
// row's numbers do not depend on its batch.
//
// Kernels that go by rows read how many there are from memory (`rows`), and a grid may be larger:
// one graph serves all batches up to its size.
#pragma once

#include <cuda_fp16.h>
#include <stdint.h>

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
// Threads of a block where nothing else is said.
constexpr int THREADS = 256;

__device__ inline float from_half(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ inline uint16_t to_half(float v) { return __half_as_ushort(__float2half_rn(v)); }

__device__ inline float from_brain(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }
// To the nearest, ties to even; no number stays none.
__device__ inline uint16_t to_brain(float v) {
    uint32_t bits = __float_as_uint(v);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return bits >> 16 | 0x40;
    }
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Halves of the lanes are added, each to its partner's: all lanes have the same bits.
template <int LANES>
__device__ inline float sum_of_lanes(float v) {
    for (int by = LANES / 2; by > 0; by /= 2) {
        v += __shfl_xor_sync(ALL, v, by);
    }
    return v;
}

// The sum of a block of BLOCK threads, in every thread.  All threads come here.
template <int BLOCK>
__device__ inline float sum_of_block(float v) {
    __shared__ float warps[BLOCK / WARP];
    v = sum_of_lanes<WARP>(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        warps[threadIdx.x / WARP] = v;
    }
    __syncthreads();
    float sum = warps[0];
    for (int i = 1; i < BLOCK / WARP; i++) {
        sum += warps[i];
    }
    return sum;
}

// What a row of so many numbers with this sum of squares is divided by, inverted.
__device__ inline float inverse_rms(float squares, int dim, float eps) {
    return 1.0f / sqrtf(squares / float(dim) + eps);
}

// e^x as `kernels::exp` has it, bit for bit.  Source: Cephes, expf.
__device__ inline float exponential(float x) {
    constexpr float INTEGERS = 12582912.0f;
    float shifted = fmaf(x, 1.44269504088896341f, INTEGERS);
    float n = shifted - INTEGERS;
    float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, x));
    float p = fmaf(1.9875691e-4f, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r * r, r + 1.0f);
    float power = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
    float value = x < -87.3f ? 0.0f : p * power;
    return x > 88.3f ? __uint_as_float(0x7f800000) : value;
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
__device__ inline float silu(float x) { return x / (1.0f + exponential(-x)); }

// By its tanh approximation (1606.08415), rounded to F16 before and after as ggml's table is.
__device__ inline float gelu(float x) {
    if (x <= -10.0f) {
        return 0.0f;
    }
    if (x >= 10.0f) {
        return x;
    }
    float v = from_half(to_half(x));
    float inner = 0.7978846f * v * (1.0f + 0.044715f * v * v);
    return from_half(to_half(0.5f * v * (1.0f + tanhf(inner))));
}

// As `Activation`, in its order.
enum Act { SILU = 0, GELU = 1, CLAMPED_SWIGLU = 2 };

__device__ inline float activate(int act, float gate, float up) {
    switch (act) {
    case SILU: return silu(gate) * up;
    case GELU: return gelu(gate) * up;
    default: {
        // No number stays none in what is limited by comparison.
        float x = gate > 7.0f ? 7.0f : gate;
        float y = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
        return x * sigmoid(1.702f * x) * (y + 1.0f);
    }
    }
}
