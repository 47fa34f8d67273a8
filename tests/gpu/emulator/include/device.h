// What device code finds in the language, for g++: the same sources that nvcc compiles become
// functions of the processor.  A thread of a block is a fiber of `fibers.cpp`, so that barriers and
// shuffles are what they say; arithmetic is IEEE F32 without contraction, as nvcc gives it under
// --fmad=false.
//
// Promised: what is not here does not compile.  Absent: anything no kernel uses.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
// A block's own: blocks of one host thread run one after the other.
#define __shared__ static thread_local
#define __constant__ static const

#define threadIdx (emulator::here().thread)
#define blockIdx (emulator::here().block)
#define blockDim (emulator::here().block_size)
#define gridDim (emulator::here().grid_size)

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { emulator::warp_exchange(mask, 0, 0); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = emulator::warp_exchange(mask, bits, lane & 31);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return __shfl_sync(mask, value, int(emulator::here().lane) ^ lanes);
}

inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 32; i += 8) {
        sum += int(int8_t(a >> i)) * int(int8_t(b >> i));
    }
    return sum;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned places) {
    uint64_t both = uint64_t(high) << 32 | low;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned place = places >> (4 * i) & 15;
        unsigned byte = both >> (8 * (place & 7)) & 0xff;
        if (place & 8) {
            byte = byte & 0x80 ? 0xff : 0;
        }
        out |= byte << (8 * i);
    }
    return out;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (uint64_t(high) << 32 | low) >> (by & 31);
}

inline unsigned __float_as_uint(float v) {
    unsigned bits;
    std::memcpy(&bits, &v, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float v;
    std::memcpy(&v, &bits, 4);
    return v;
}
// To the nearest, ties to even; no number is zero and what is too large the largest.
inline int __float2int_rn(float v) {
    if (v != v) {
        return 0;
    }
    v = std::rint(v);
    return v >= 2147483648.0f ? INT32_MAX : v <= -2147483648.0f ? INT32_MIN : int(v);
}
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
