// Keys and values of each row, [rows, kv heads, head_dim], go to their pages.
// Grid: (kv heads, most rows); a warp has 32 numbers at a time.
#include "pages.cuh"

template <class S>
__device__ void store(const float *keys, const float *values, const Places &places,
                      const uint32_t *rows, int head_dim) {
    size_t row = blockIdx.y;
    int head = blockIdx.x, heads = gridDim.x;
    if (row >= *rows) {
        return;
    }
    uint32_t position = places.positions[row];
    uint8_t *page = page_of(places, row, position / PAGE);
    const float *from[2] = {keys, values};
    for (int i = 0; i < 2; i++) {
        const float *x = from[i] + (row * heads + head) * head_dim;
        uint8_t *half = page + (i ? S::half_bytes(heads, head_dim) : 0);
        // Whole warps, since they trade sizes.
        for (int d = threadIdx.x; d - int(threadIdx.x) % WARP < head_dim; d += blockDim.x) {
            S::put(half, heads, head_dim, head, position % PAGE, d, d < head_dim ? x[d] : 0.0f);
        }
    }
}

#define STORE(NAME, S)                                                                             \
    extern "C" __global__ void store_##NAME(const float *keys, const float *values, Places places, \
                                            const uint32_t *rows, int head_dim) {                  \
        store<S>(keys, values, places, rows, head_dim);                                            \
    }
PRECISIONS(STORE)
