// How weights lie in a file, and how 32 of them become registers.  Layouts are ggml's; the CPU
// reads them in `kernels/blocks.rs` and `kernels/supers.rs`.
//
// A format's `part` reads the p-th 32 weights of a row.  A weight of a block format is
//     scale * (stored - OFFSET) + least
// and of a format in super-blocks of 256, with small scales for 16 weights each (the same twice
// where a small block is 32),
//     scale * small[h] * (stored - OFFSET) - least * less[h].
// Word g of `w` holds the stored numbers of weights 4g to 4g + 3, a byte each.
//
// Matrices begin at multiples of 16 bytes.  To add a format: a type here, its line in FORMATS.
#pragma once

#include "common.cuh"

// Weights that are read at once.
constexpr int PART = 32;
constexpr int SUPER = 256;

struct Block {
    int w[8];
    float scale, least;
};
struct Small {
    int w[8];
    float scale, least;
    int small[2], less[2];
};

// N words that begin at a multiple of ALIGN; no word is touched that holds none of their bytes.
template <int N, int ALIGN>
__device__ inline void words(const uint8_t *p, int *out) {
    if constexpr (ALIGN == 16) {
        static_assert(N % 4 == 0);
        for (int i = 0; i < N / 4; i++) {
            int4 v = reinterpret_cast<const int4 *>(p)[i];
            out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
        }
    } else if constexpr (ALIGN == 4) {
        for (int i = 0; i < N; i++) {
            out[i] = reinterpret_cast<const int *>(p)[i];
        }
    } else {
        unsigned off = unsigned(reinterpret_cast<uintptr_t>(p) & 3);
        auto *q = reinterpret_cast<const unsigned *>(p - off);
        unsigned low = q[0];
        for (int i = 0; i < N; i++) {
            unsigned high = off == 0 && i == N - 1 ? 0 : q[i + 1];
            out[i] = int(__funnelshift_r(low, high, 8 * off));
            low = high;
        }
    }
}

// A scale, at an even address.
__device__ inline float half_at(const uint8_t *p) {
    return from_half(*reinterpret_cast<const uint16_t *>(p));
}

// Sixteen bytes are 32 nibbles: weight i in the low half of byte i for i < 16, in the high half of
// byte i - 16 otherwise.
template <int ALIGN>
__device__ inline void nibbles(const uint8_t *p, int *w) {
    int v[4];
    words<4, ALIGN>(p, v);
    for (int g = 0; g < 4; g++) {
        w[g] = v[g] & 0x0f0f0f0f;
        w[g + 4] = v[g] >> 4 & 0x0f0f0f0f;
    }
}

// Bit i of 32 as 16 on top of weight i.
__device__ inline void fifth(int bits, int *w) {
    for (int g = 0; g < 8; g++) {
        w[g] |= ((bits >> (4 * g) & 15) * 0x00204081 & 0x01010101) << 4;
    }
}

struct Q8_0 {
    static constexpr int BYTES = 34, OFFSET = 0;
    static constexpr bool LEAST = false;
    __device__ static Block part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p) * BYTES;
        Block b{{}, half_at(at), 0};
        words<8, 2>(at + 2, b.w);
        return b;
    }
};

struct Q4_0 {
    static constexpr int BYTES = 18, OFFSET = 8;
    static constexpr bool LEAST = false;
    __device__ static Block part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p) * BYTES;
        Block b{{}, half_at(at), 0};
        nibbles<2>(at + 2, b.w);
        return b;
    }
};

struct Q4_1 {
    static constexpr int BYTES = 20, OFFSET = 0;
    static constexpr bool LEAST = true;
    __device__ static Block part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p) * BYTES;
        Block b{{}, half_at(at), half_at(at + 2)};
        nibbles<4>(at + 4, b.w);
        return b;
    }
};

struct Q5_0 {
    static constexpr int BYTES = 22, OFFSET = 16;
    static constexpr bool LEAST = false;
    __device__ static Block part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p) * BYTES;
        Block b{{}, half_at(at), 0};
        int bits;
        words<1, 2>(at + 2, &bits);
        nibbles<2>(at + 6, b.w);
        fifth(bits, b.w);
        return b;
    }
};

struct Q5_1 {
    static constexpr int BYTES = 24, OFFSET = 0;
    static constexpr bool LEAST = true;
    __device__ static Block part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p) * BYTES;
        Block b{{}, half_at(at), half_at(at + 2)};
        int bits;
        words<1, 4>(at + 4, &bits);
        nibbles<4>(at + 8, b.w);
        fifth(bits, b.w);
        return b;
    }
};

// Four numbers of four bits (E2M1), twice as large, as signed bytes; `v` holds their codes in its
// low half.
__device__ inline unsigned four_bits(unsigned v) {
    unsigned plus = __byte_perm(0x03020100, 0x0c080604, v & 0x7777);
    unsigned minus = __byte_perm(0xfdfeff00, 0xf4f8fafc, v & 0x7777);
    // A code's top bit picks the byte of ones.
    unsigned negative = __byte_perm(0x0000ff00, 0, v >> 3 & 0x1111);
    return (plus & ~negative) | (minus & negative);
}

struct MXFP4 {
    static constexpr int BYTES = 17, OFFSET = 0;
    static constexpr bool LEAST = false;
    __device__ static Block part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p) * BYTES;
        // Half of 2^(exponent - 127), since the numbers are doubled; the two smallest are below the
        // normal numbers.
        unsigned exponent = at[0];
        unsigned bits = exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23;
        Block b{{}, __uint_as_float(bits), 0};
        int v[4];
        words<4, 1>(at + 1, v);
        for (int g = 0; g < 4; g++) {
            // Weights g and g + 16 lie side by side: the even bytes are the former.
            unsigned first = four_bits(unsigned(v[g]) & 0xffff),
                     last = four_bits(unsigned(v[g]) >> 16);
            b.w[g] = int(__byte_perm(first, last, 0x6420));
            b.w[g + 4] = int(__byte_perm(first, last, 0x7531));
        }
        return b;
    }
};

// Eight words shifted down, and of each byte the bits of `mask`.
template <int ALIGN>
__device__ inline void field(const uint8_t *p, int by, int mask, int *w) {
    words<8, ALIGN>(p, w);
    for (int g = 0; g < 8; g++) {
        w[g] = w[g] >> by & mask;
    }
}

// Further bits on top.
template <int ALIGN>
__device__ inline void above(const uint8_t *p, int by, int mask, int to, int *w) {
    int high[8];
    field<ALIGN>(p, by, mask, high);
    for (int g = 0; g < 8; g++) {
        w[g] |= high[g] << to;
    }
}

// Scale and least of six bits, of small block j of eight, in twelve bytes.
__device__ inline void six_bits(const uint8_t *p, int j, Small &s) {
    int small = j < 4 ? p[j] & 63 : (p[j + 4] & 15) | p[j - 4] >> 6 << 4;
    int less = j < 4 ? p[j + 4] & 63 : p[j + 4] >> 4 | p[j] >> 6 << 4;
    s.small[0] = s.small[1] = small;
    s.less[0] = s.less[1] = less;
}

struct Q4_K {
    static constexpr int BYTES = 144, OFFSET = 0;
    static constexpr bool LEAST = true;
    __device__ static Small part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p / 8) * BYTES;
        int j = p % 8;
        Small s{{}, half_at(at), half_at(at + 2), {}, {}};
        six_bits(at + 4, j, s);
        field<16>(at + 16 + 32 * (j / 2), 4 * (j % 2), 0x0f0f0f0f, s.w);
        return s;
    }
};

struct Q5_K {
    static constexpr int BYTES = 176, OFFSET = 0;
    static constexpr bool LEAST = true;
    __device__ static Small part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p / 8) * BYTES;
        int j = p % 8;
        Small s{{}, half_at(at), half_at(at + 2), {}, {}};
        six_bits(at + 4, j, s);
        field<16>(at + 48 + 32 * (j / 2), 4 * (j % 2), 0x0f0f0f0f, s.w);
        above<16>(at + 16, j, 0x01010101, 4, s.w);
        return s;
    }
};

struct Q6_K {
    static constexpr int BYTES = 210, OFFSET = 32;
    static constexpr bool LEAST = false;
    __device__ static Small part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p / 8) * BYTES;
        int j = p % 8, half = j / 4, quarter = j % 4;
        auto *scales = reinterpret_cast<const int8_t *>(at + 192);
        Small s{{}, half_at(at + 208), 0, {scales[2 * j], scales[2 * j + 1]}, {}};
        field<2>(at + 64 * half + 32 * (quarter % 2), 4 * (quarter / 2), 0x0f0f0f0f, s.w);
        above<2>(at + 128 + 32 * half, 2 * quarter, 0x03030303, 4, s.w);
        return s;
    }
};

struct Q2_K {
    static constexpr int BYTES = 84, OFFSET = 0;
    static constexpr bool LEAST = true;
    __device__ static Small part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p / 8) * BYTES;
        int j = p % 8;
        Small s{{}, half_at(at + 80), half_at(at + 82), {}, {}};
        for (int h = 0; h < 2; h++) {
            s.small[h] = at[2 * j + h] & 15;
            s.less[h] = at[2 * j + h] >> 4;
        }
        field<4>(at + 16 + 32 * (j / 4), 2 * (j % 4), 0x03030303, s.w);
        return s;
    }
};

struct Q3_K {
    static constexpr int BYTES = 110, OFFSET = 4;
    static constexpr bool LEAST = false;
    // Of small block i of sixteen, -32 to 31.
    __device__ static int small_scale(const uint8_t *p, int i) {
        int four = p[i % 8] >> (4 * (i / 8)) & 15, two = p[8 + i % 4] >> (2 * (i / 4)) & 3;
        return (four | two << 4) - 32;
    }
    __device__ static Small part(const uint8_t *row, int p) {
        const uint8_t *at = row + size_t(p / 8) * BYTES;
        int j = p % 8;
        Small s{{},
                half_at(at + 108),
                0,
                {small_scale(at + 96, 2 * j), small_scale(at + 96, 2 * j + 1)},
                {}};
        field<2>(at + 32 + 32 * (j / 4), 2 * (j % 4), 0x03030303, s.w);
        above<2>(at, j, 0x01010101, 2, s.w);
        return s;
    }
};

// Rows of numbers: one by one, and eight that begin at a multiple of 16 bytes.
struct F32 {
    static constexpr int BYTES = 4;
    __device__ static float one(const uint8_t *p) { return *reinterpret_cast<const float *>(p); }
    __device__ static void eight(const uint8_t *p, float *out) {
        int v[8];
        words<8, 16>(p, v);
        for (int i = 0; i < 8; i++) {
            out[i] = __uint_as_float(v[i]);
        }
    }
};

struct F16 {
    static constexpr int BYTES = 2;
    __device__ static float one(const uint8_t *p) { return half_at(p); }
    __device__ static void eight(const uint8_t *p, float *out) {
        int v[4];
        words<4, 16>(p, v);
        for (int i = 0; i < 8; i++) {
            out[i] = from_half(uint16_t(unsigned(v[i / 2]) >> (16 * (i % 2))));
        }
    }
};

struct BF16 {
    static constexpr int BYTES = 2;
    __device__ static float one(const uint8_t *p) {
        return from_brain(*reinterpret_cast<const uint16_t *>(p));
    }
    __device__ static void eight(const uint8_t *p, float *out) {
        int v[4];
        words<4, 16>(p, v);
        for (int i = 0; i < 8; i++) {
            out[i] = from_brain(uint16_t(unsigned(v[i / 2]) >> (16 * (i % 2))));
        }
    }
};

// X(name in kernels, type) for each.
#define NUMBER_FORMATS(X) X(f32, F32) X(f16, F16) X(bf16, BF16)
#define BLOCK_FORMATS(X) \
    X(q4_0, Q4_0) X(q4_1, Q4_1) X(q5_0, Q5_0) X(q5_1, Q5_1) X(q8_0, Q8_0) X(mxfp4, MXFP4)
#define SUPER_FORMATS(X) X(q2_k, Q2_K) X(q3_k, Q3_K) X(q4_k, Q4_K) X(q5_k, Q5_K) X(q6_k, Q6_K)
