// Rows of a matrix as F32: out[r] = matrix[tokens[r]] * scale, the numbers of
// `kernels/dequantise.rs` bit for bit.
//
// matrix: `k` weights a row, `row_bytes` apart.  tokens [rows].  out [rows, k].
// Grid: (parts of 32 numbers / 32, most rows); a thread has one part.
#include "formats.cuh"

__device__ void put(const Block &b, int offset, bool least, float scale, float *out) {
    for (int i = 0; i < PART; i++) {
        float v = float(int(int8_t(b.w[i / 4] >> (8 * (i % 4)))) - offset) * b.scale;
        out[i] = (least ? v + b.least : v) * scale;
    }
}

__device__ void put(const Small &s, int offset, bool least, float scale, float *out) {
    for (int i = 0; i < PART; i++) {
        float stored = float(int(s.w[i / 4] >> (8 * (i % 4)) & 0xff) - offset);
        float v = s.scale * float(s.small[i / 16]) * stored;
        out[i] = (least ? v - s.least * float(s.less[i / 16]) : v) * scale;
    }
}

template <class F>
__device__ void embed_parts(const uint8_t *matrix, const uint32_t *tokens, const uint32_t *rows,
                            float *out, int k, int row_bytes, float scale) {
    uint32_t row = blockIdx.y;
    int part = blockIdx.x * WARP + threadIdx.x;
    if (row >= *rows || part >= k / PART) {
        return;
    }
    float *to = out + size_t(row) * k + part * PART;
    put(F::part(matrix + size_t(tokens[row]) * row_bytes, part), F::OFFSET, F::LEAST, scale, to);
}

template <class F>
__device__ void embed_numbers(const uint8_t *matrix, const uint32_t *tokens, const uint32_t *rows,
                              float *out, int k, int row_bytes, float scale) {
    uint32_t row = blockIdx.y;
    if (row >= *rows) {
        return;
    }
    const uint8_t *from = matrix + size_t(tokens[row]) * row_bytes;
    int first = (blockIdx.x * WARP + threadIdx.x) * PART;
    for (int i = first; i < first + PART && i < k; i++) {
        out[size_t(row) * k + i] = F::one(from + size_t(i) * F::BYTES) * scale;
    }
}

#define EMBED(OF, NAME, F)                                                                 \
    extern "C" __global__ void embed_##NAME(const uint8_t *matrix, const uint32_t *tokens, \
                                            const uint32_t *rows, float *out, int k,       \
                                            int row_bytes, float scale) {                  \
        OF<F>(matrix, tokens, rows, out, k, row_bytes, scale);                             \
    }
#define PARTS(NAME, F) EMBED(embed_parts, NAME, F)
#define NUMBERS(NAME, F) EMBED(embed_numbers, NAME, F)
BLOCK_FORMATS(PARTS)
SUPER_FORMATS(PARTS)
NUMBER_FORMATS(NUMBERS)
