// Keys and values of PAGE tokens of one layer as they lie in a page of the device:
//
//     keys    [kv heads][PAGE][head_dim] numbers
//     scales  [kv heads][PAGE][head_dim / 32] F16, in Q8 alone
//     values  and their scales alike
//
// so that a head's tokens lie side by side, whoever reads a token or a number of all tokens.  A
// page begins at a multiple of 16 bytes; `cuda::PageFormat` counts its bytes.
//
// Where a token is: page position / PAGE of its sequence's table of addresses, which a row names by
// where it begins among all tables.
#pragma once

#include "formats.cuh"

constexpr int PAGE = 32;
// Numbers that share a scale.
constexpr int SHARE = 32;

// Rows and their sequences; the host fills what they point to before each step.
struct Places {
    // [rows]
    const uint32_t *positions, *tables;
    // Addresses of pages, table after table.
    const uint64_t *pages;
    // From a page's address to this layer's part.
    uint64_t offset;
};

__device__ inline uint8_t *page_of(const Places &p, size_t row, int number) {
    return reinterpret_cast<uint8_t *>(p.pages[p.tables[row] + number] + p.offset);
}

// How a precision stores: where a head's token is in keys or in values, how it is written and read.
struct StoredF32 {
    __device__ static size_t half_bytes(int heads, int head_dim) {
        return size_t(heads) * PAGE * head_dim * 4;
    }
    __device__ static float get(const uint8_t *half, int, int head_dim, int head, int token,
                                int d) {
        return reinterpret_cast<const float *>(half)[(size_t(head) * PAGE + token) * head_dim + d];
    }
    // Eight from a multiple of eight on, where head_dim is one.
    __device__ static void eight(const uint8_t *half, int, int head_dim, int head, int token, int d,
                                 float *out) {
        F32::eight(half + ((size_t(head) * PAGE + token) * head_dim + d) * 4, out);
    }
    // A lane of a warp stores one number of SHARE.
    __device__ static void put(uint8_t *half, int, int head_dim, int head, int token, int d,
                               float v) {
        if (d < head_dim) {
            reinterpret_cast<float *>(half)[(size_t(head) * PAGE + token) * head_dim + d] = v;
        }
    }
};

struct StoredF16 {
    __device__ static size_t half_bytes(int heads, int head_dim) {
        return size_t(heads) * PAGE * head_dim * 2;
    }
    __device__ static float get(const uint8_t *half, int, int head_dim, int head, int token,
                                int d) {
        return from_half(
            reinterpret_cast<const uint16_t *>(half)[(size_t(head) * PAGE + token) * head_dim + d]);
    }
    __device__ static void eight(const uint8_t *half, int, int head_dim, int head, int token, int d,
                                 float *out) {
        F16::eight(half + ((size_t(head) * PAGE + token) * head_dim + d) * 2, out);
    }
    __device__ static void put(uint8_t *half, int, int head_dim, int head, int token, int d,
                               float v) {
        if (d < head_dim) {
            reinterpret_cast<uint16_t *>(half)[(size_t(head) * PAGE + token) * head_dim + d] =
                to_half(v);
        }
    }
};

// A scale is the largest of its numbers in size over 127; head_dim is a multiple of SHARE.
struct StoredQ8 {
    __device__ static size_t half_bytes(int heads, int head_dim) {
        return size_t(heads) * PAGE * (head_dim + head_dim / SHARE * 2);
    }
    __device__ static size_t scale_at(int heads, int head_dim, int head, int token, int d) {
        return size_t(heads) * PAGE * head_dim +
               ((size_t(head) * PAGE + token) * (head_dim / SHARE) + d / SHARE) * 2;
    }
    __device__ static float get(const uint8_t *half, int heads, int head_dim, int head, int token,
                                int d) {
        float quant = float(
            reinterpret_cast<const int8_t *>(half)[(size_t(head) * PAGE + token) * head_dim + d]);
        return quant * half_at(half + scale_at(heads, head_dim, head, token, d));
    }
    __device__ static void eight(const uint8_t *half, int heads, int head_dim, int head, int token,
                                 int d, float *out) {
        int quants[2];
        words<2, 4>(half + (size_t(head) * PAGE + token) * head_dim + d, quants);
        float scale = half_at(half + scale_at(heads, head_dim, head, token, d));
        for (int i = 0; i < 8; i++) {
            out[i] = float(int8_t(quants[i / 4] >> (8 * (i % 4)))) * scale;
        }
    }
    __device__ static void put(uint8_t *half, int heads, int head_dim, int head, int token, int d,
                               float v) {
        // As integers, sizes are in order and what is no number is largest.
        uint32_t bits = __float_as_uint(v) & 0x7fffffff;
        for (int by = WARP / 2; by > 0; by /= 2) {
            bits = max(bits, __shfl_xor_sync(ALL, bits, by));
        }
        float most = __uint_as_float(bits), inverse = most == 0 ? 0.0f : 127.0f / most;
        int quant = max(-128, min(127, __float2int_rn(v * inverse)));
        reinterpret_cast<int8_t *>(half)[(size_t(head) * PAGE + token) * head_dim + d] =
            int8_t(quant);
        if (d % SHARE == 0) {
            *reinterpret_cast<uint16_t *>(half + scale_at(heads, head_dim, head, token, d)) =
                to_half(most / 127.0f);
        }
    }
};

// X(name in kernels, type) for each.
#define PRECISIONS(X) X(f32, StoredF32) X(f16, StoredF16) X(q8, StoredQ8)
