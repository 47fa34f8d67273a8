// Rows that chose the same expert become units of `product.cuh`, and what experts made of them
// becomes rows again.
//
// A pair is a row and a rank: row * top_k + rank.  Sorted by expert, pairs keep their order, so
// that nothing depends on which thread came first.
#include "product.cuh"

constexpr int MOST = 1024;

// Of ids [rows, top_k]: place [pairs], where a pair is in the order of experts; picks [pairs], the
// row of each place; units and how many, at most `experts + pairs / PICKS`. Grid: one block of MOST
// threads; thread e counts expert e.
extern "C" __global__ void __launch_bounds__(MOST)
    group(const int *ids, const uint32_t *rows, int experts, int top_k, uint32_t *place,
          uint32_t *picks, Unit *units, uint32_t *count) {
    // Pairs and units of all experts up to this one.
    __shared__ uint32_t pairs_to[MOST], units_to[MOST];
    int e = threadIdx.x, pairs = int(*rows) * top_k;
    uint32_t mine = 0;
    if (e < experts) {
        for (int i = 0; i < pairs; i++) {
            mine += ids[i] == e;
        }
    }
    uint32_t of_it = (mine + PICKS - 1) / PICKS;
    pairs_to[e] = mine;
    units_to[e] = of_it;
    __syncthreads();
    for (int by = 1; by < MOST; by *= 2) {
        uint32_t p = e >= by ? pairs_to[e - by] : 0, u = e >= by ? units_to[e - by] : 0;
        __syncthreads();
        pairs_to[e] += p;
        units_to[e] += u;
        __syncthreads();
    }
    if (e == MOST - 1) {
        *count = units_to[e];
    }
    if (mine == 0) {
        return;
    }
    uint32_t at = pairs_to[e] - mine;
    for (uint32_t u = 0; u < of_it; u++) {
        units[units_to[e] - of_it + u] = {uint32_t(e), at + u * PICKS,
                                          min(mine - u * PICKS, uint32_t(PICKS))};
    }
    for (int i = 0; i < pairs; i++) {
        if (ids[i] == e) {
            place[i] = at;
            picks[at] = uint32_t(i / top_k);
            at++;
        }
    }
}

// One number of what a pair's expert made: y [pairs, dim] in the order of experts, times its scale,
// plus its bias [experts, dim], where there are any.
__device__ inline float made(const float *y, const float *scales, const float *bias, uint32_t place,
                             int expert, int dim, int i) {
    float v = y[size_t(place) * dim + i];
    v = scales ? v * scales[expert] : v;
    return bias ? v + bias[size_t(expert) * dim + i] : v;
}

// out[row] = sum over ranks, in order, of gate * y; out [rows, dim].  Grid: (dim / THREADS, most
// rows).
extern "C" __global__ void combine(const float *y, const float *scales, const float *bias,
                                   const uint32_t *place, const int *ids, const float *gates,
                                   const uint32_t *rows, float *out, int dim, int top_k) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    size_t row = blockIdx.y;
    if (row >= *rows || i >= dim) {
        return;
    }
    float sum = 0;
    for (size_t at = row * top_k; at < (row + 1) * top_k; at++) {
        sum += gates[at] * made(y, scales, bias, place[at], ids[at], dim, i);
    }
    out[row * dim + i] = sum;
}

// norms [rows, top_k]: the length of what each pair's expert made.  Grid: (top_k, most rows).
extern "C" __global__ void expert_norms(const float *y, const float *scales, const float *bias,
                                        const uint32_t *place, const int *ids, const uint32_t *rows,
                                        float *norms, int dim) {
    if (blockIdx.y >= *rows) {
        return;
    }
    size_t at = size_t(blockIdx.y) * gridDim.x + blockIdx.x;
    float sum = 0;
    for (int i = threadIdx.x; i < dim; i += THREADS) {
        float v = made(y, scales, bias, place[at], ids[at], dim, i);
        sum = fmaf(v, v, sum);
    }
    sum = sum_of_block<THREADS>(sum);
    if (threadIdx.x == 0) {
        norms[at] = sqrtf(sum);
    }
}
