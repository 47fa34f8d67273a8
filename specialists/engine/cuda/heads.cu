// Heads of queries, keys and values after their projection: norm, then rotation (RoFormer,
// 2104.09864).
//
// - in: head h of row r begins at in[r * in_row + h * in_head], so that queries are read from
//   between their gates.
// - out: at out[r * out_row + h * head_dim].  It may be `in` where heads lie there alike, unless
//   they are normed together.
// - weight: [head_dim], or [heads, head_dim] together; not read otherwise.
// - cos and sin: [rows, turned / 2]; nothing turns with `turned` 0.
//
// Grid: (heads, most rows); HEAD_THREADS threads have a head.
#include "common.cuh"

constexpr int HEAD_THREADS = 128;
constexpr int MOST = 512;

// As `heads::Norm`, in its order.
enum Norm {
    NONE = 0,
    // RMS of each head.
    EACH = 1,
    // RMS of all heads of a row.
    TOGETHER = 2,
    // RMS of each head, without a weight.
    UNIT = 3,
    // To length one; eps is added to the square of the length.
    LENGTH = 4,
};

extern "C" __global__ void turn_heads(const float *in, int in_row, int in_head, const float *weight,
                                      const float *cos, const float *sin, const uint32_t *rows,
                                      float *out, int out_row, int head_dim, int turned,
                                      int neighbours, int norm, float eps) {
    __shared__ float head[MOST];
    size_t row = blockIdx.y;
    int h = blockIdx.x, heads = gridDim.x;
    if (row >= *rows) {
        return;
    }
    in += row * in_row;
    float scale = 1;
    if (norm != NONE) {
        int first = norm == TOGETHER ? 0 : h, last = norm == TOGETHER ? heads : h + 1;
        float sum = 0;
        for (int i = threadIdx.x; i < (last - first) * head_dim; i += HEAD_THREADS) {
            float v = in[(first + i / head_dim) * in_head + i % head_dim];
            sum = fmaf(v, v, sum);
        }
        sum = sum_of_block<HEAD_THREADS>(sum);
        scale = norm == LENGTH ? 1.0f / sqrtf(sum + eps)
                               : inverse_rms(sum, (last - first) * head_dim, eps);
    }
    if (norm == EACH || norm == TOGETHER) {
        weight += norm == TOGETHER ? h * head_dim : 0;
    }
    for (int i = threadIdx.x; i < head_dim; i += HEAD_THREADS) {
        float v = in[h * in_head + i];
        v = norm == NONE ? v : v * scale;
        head[i] = norm == EACH || norm == TOGETHER ? v * weight[i] : v;
    }
    __syncthreads();
    out += row * out_row + h * head_dim;
    int half = turned / 2;
    for (int i = threadIdx.x; i < head_dim; i += HEAD_THREADS) {
        if (i >= turned) {
            out[i] = head[i];
            continue;
        }
        int pair = neighbours ? i / 2 : i % half;
        bool second = neighbours ? i % 2 : i >= half;
        float x = head[neighbours ? 2 * pair : pair],
              y = head[neighbours ? 2 * pair + 1 : pair + half];
        float c = cos[row * half + pair], s = sin[row * half + pair];
        out[i] = second ? x * s + y * c : x * c - y * s;
    }
}
