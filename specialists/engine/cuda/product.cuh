// Rows of weights times rows of activations, in units: some rows of activations with one matrix.
//
// An output is eight sums, one a lane: lane j takes the 32-blocks b with b mod 8 = j, in
// super-blocks the small block j of each, in rows of numbers the groups g of eight with g mod 8 =
// j, in rising order by fma; then the eight are added in halves. So its bits depend on its row of
// weights and its row of activations alone: not on the unit, nor on what else is in it. Products of
// quantised numbers are sums of integers, so exact.
//
// Weights are read once for all rows of a unit, up to PICKS.
#pragma once

#include "formats.cuh"

// Lanes that share an output.
constexpr int LANES = 8;
// Rows of weights in a warp and in a block of 128 threads.
constexpr int ROWS_OF_WARP = WARP / LANES;
constexpr int PRODUCT_THREADS = 128;
constexpr int ROWS_OF_BLOCK = PRODUCT_THREADS / LANES;
// Rows of activations in a unit.
constexpr int PICKS = 8;

// Rows of activations that share a matrix.  Its outputs are rows `first` and on; so are its inputs,
// or they are picks[first] and on.
struct Unit {
    uint32_t expert, first, count;
};

// Where weights, activations and outputs are.
struct Product {
    // [experts], where each one's memory begins; zero is none, and its outputs are no numbers.
    const uint64_t *slots;
    // From there to the matrix.
    uint64_t offset;
    // [units] and how many; without them as many as PICKS go into `count`, of expert zero.
    const Unit *units;
    const uint32_t *count;
    // Null: rows of activations are those of outputs.
    const uint32_t *picks;
    // [experts, rows], or null.
    const float *bias;
    // Weights in a row, rows, bytes of a row.
    int k, rows, row_bytes;
};

// Activations as `quantise.cu` leaves them, or numbers.
struct Rounded {
    const void *quants;
    const float *scales;
    const void *sums;
    const float *totals;
};

// The unit of this block; false where there is none.
__device__ inline bool unit_of(const Product &p, uint32_t index, Unit &unit) {
    if (p.units) {
        if (index >= *p.count) {
            return false;
        }
        unit = p.units[index];
        return true;
    }
    uint32_t first = index * PICKS;
    if (first >= *p.count) {
        return false;
    }
    unit = {0, first, min(*p.count - first, uint32_t(PICKS))};
    return true;
}

// The sums of one lane of a row of weights with N rows of activations, `at[r]` each.
template <class F, int N>
struct Numbers {
    __device__ static void add(const uint8_t *row, const Product &p, const Rounded &x,
                               const uint32_t *at, int lane, float *sums) {
        auto *floats = static_cast<const float *>(x.quants);
        bool wide = p.k % 8 == 0;
        for (int g = lane; g * 8 < p.k; g += LANES) {
            if (wide) {
                float w[8], y[8];
                F::eight(row + size_t(g) * 8 * F::BYTES, w);
#pragma unroll
                for (int r = 0; r < N; r++) {
                    F32::eight(
                        reinterpret_cast<const uint8_t *>(floats + size_t(at[r]) * p.k + g * 8), y);
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        sums[r] = fmaf(w[i], y[i], sums[r]);
                    }
                }
                continue;
            }
            for (int i = g * 8; i < p.k && i < g * 8 + 8; i++) {
                float w = F::one(row + size_t(i) * F::BYTES);
#pragma unroll
                for (int r = 0; r < N; r++) {
                    sums[r] = fmaf(w, floats[size_t(at[r]) * p.k + i], sums[r]);
                }
            }
        }
    }
};

// The 32 quants of a part of a row of activations.
__device__ inline void quants_of(const Rounded &x, size_t part, int *y) {
    words<8, 16>(static_cast<const uint8_t *>(x.quants) + part * PART, y);
}

template <class F, int N>
struct Blocks {
    __device__ static void add(const uint8_t *row, const Product &p, const Rounded &x,
                               const uint32_t *at, int lane, float *sums) {
        int blocks = p.k / PART;
        for (int b = lane; b < blocks; b += LANES) {
            Block w = F::part(row, b);
#pragma unroll
            for (int r = 0; r < N; r++) {
                size_t part = size_t(at[r]) * blocks + b;
                int y[8];
                quants_of(x, part, y);
                int dot = F::OFFSET ? -F::OFFSET * static_cast<const int *>(x.sums)[part] : 0;
#pragma unroll
                for (int g = 0; g < 8; g++) {
                    dot = __dp4a(w.w[g], y[g], dot);
                }
                sums[r] = fmaf(float(dot), w.scale * x.scales[part], sums[r]);
                if (F::LEAST) {
                    sums[r] = fmaf(w.least, x.totals[part], sums[r]);
                }
            }
        }
    }
};

template <class F, int N>
struct Supers {
    __device__ static void add(const uint8_t *row, const Product &p, const Rounded &x,
                               const uint32_t *at, int lane, float *sums) {
        int parts = p.k / PART;
        for (int b = lane; b < parts; b += LANES) {
            Small w = F::part(row, b);
#pragma unroll
            for (int r = 0; r < N; r++) {
                size_t part = size_t(at[r]) * parts + b;
                int y[8];
                quants_of(x, part, y);
                int both = static_cast<const int *>(x.sums)[part];
                int sum[2] = {int16_t(both), both >> 16};
                int whole = 0, less = 0;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    int dot = -F::OFFSET * sum[h];
#pragma unroll
                    for (int g = 4 * h; g < 4 * h + 4; g++) {
                        dot = __dp4a(w.w[g], y[g], dot);
                    }
                    whole += w.small[h] * dot;
                    less += w.less[h] * sum[h];
                }
                float scale = x.scales[part / (SUPER / PART)];
                sums[r] = fmaf(float(whole), w.scale * scale, sums[r]);
                if (F::LEAST) {
                    sums[r] = fmaf(float(less), -(w.least * scale), sums[r]);
                }
            }
        }
    }
};

// What N rows of activations give with this lane's row of weights of each matrix, MATRICES of one
// shape; every lane has all of it.  Rows beyond `unit.count` are the last one again.
template <template <class, int> class How, class F, int N, int MATRICES>
__device__ inline void outputs(const Product (&p)[MATRICES], const Rounded &x, const Unit &unit,
                               int row, float (&out)[MATRICES][PICKS]) {
    uint32_t at[N];
#pragma unroll
    for (int r = 0; r < N; r++) {
        uint32_t place = unit.first + min(uint32_t(r), unit.count - 1);
        at[r] = p[0].picks ? p[0].picks[place] : place;
    }
#pragma unroll
    for (int m = 0; m < MATRICES; m++) {
#pragma unroll
        for (int r = 0; r < PICKS; r++) {
            out[m][r] = 0;
        }
        uint64_t slot = p[m].slots[unit.expert];
        if (slot == 0) {
#pragma unroll
            for (int r = 0; r < N; r++) {
                out[m][r] = __uint_as_float(0x7fc00000);
            }
            continue;
        }
        auto *weights =
            reinterpret_cast<const uint8_t *>(slot + p[m].offset) + size_t(row) * p[m].row_bytes;
        How<F, N>::add(weights, p[m], x, at, threadIdx.x % LANES, out[m]);
#pragma unroll
        for (int r = 0; r < N; r++) {
            out[m][r] = sum_of_lanes<LANES>(out[m][r]);
            if (p[m].bias) {
                out[m][r] += p[m].bias[size_t(unit.expert) * p[m].rows + row];
            }
        }
    }
}

// Grid: (rows of weights / ROWS_OF_BLOCK, most units).  `act` is what comes of gate and up; with
// one matrix it is not read.
template <template <class, int> class How, class F, int MATRICES>
__device__ inline void multiply(const Product (&p)[MATRICES], const Rounded &x, int act,
                                float *out) {
    Unit unit;
    int row = blockIdx.x * ROWS_OF_BLOCK + threadIdx.x / LANES;
    if (!unit_of(p[0], blockIdx.y, unit)) {
        return;
    }
    // Lanes beyond the last row go along with it, since warps trade sums.
    int real = min(row, p[0].rows - 1);
    float sums[MATRICES][PICKS];
    if (unit.count == 1) {
        outputs<How, F, 1>(p, x, unit, real, sums);
    } else if (unit.count <= 4) {
        outputs<How, F, 4>(p, x, unit, real, sums);
    } else {
        outputs<How, F, PICKS>(p, x, unit, real, sums);
    }
    // Each lane writes one.
    int lane = threadIdx.x % LANES;
    float mine = 0;
#pragma unroll
    for (int r = 0; r < PICKS; r++) {
        if (r == lane) {
            mine = MATRICES == 2 ? activate(act, sums[0][r], sums[MATRICES - 1][r]) : sums[0][r];
        }
    }
    if (row < p[0].rows && lane < int(unit.count)) {
        out[size_t(unit.first + lane) * p[0].rows + row] = mine;
    }
}
