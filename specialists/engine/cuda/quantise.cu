// Rows of activations rounded to eight bits, the numbers of `kernels/activations.rs` bit for bit.
//
// x [rows, k].  quants [rows, k].  Rows that hold what is no number become any quants, under a
// scale that is none.
#include "common.cuh"

// Adding it leaves the nearest integer in the lowest bits.
constexpr float INTEGERS = 12582912.0f;

__device__ int8_t rounded(float v, float inverse) {
    return int8_t(__float_as_uint(v * inverse + INTEGERS));
}

// The largest of all lanes; as integers, sizes are in order and what is no number is largest.
__device__ uint32_t largest(uint32_t most) {
    for (int by = WARP / 2; by > 0; by /= 2) {
        most = max(most, __shfl_xor_sync(ALL, most, by));
    }
    return most;
}

// Blocks of 32.  scales, sums and totals [rows, k / 32]: the scale, the sum of the quants, and what
// a least value is multiplied with.  Grid: (blocks / 8, most rows); a warp has a block, a lane a
// number.
extern "C" __global__ void quantise_q8(const float *x, const uint32_t *rows, int8_t *quants,
                                       float *scales, int *sums, float *totals, int k) {
    int block = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (blockIdx.y >= *rows || block >= k / WARP) {
        return;
    }
    size_t at = size_t(blockIdx.y) * (k / WARP) + block;
    float v = x[at * WARP + lane];
    float most = __uint_as_float(largest(__float_as_uint(v) & 0x7fffffff));
    int quant = rounded(v, most == 0 ? 0.0f : 127.0f / most);
    quants[at * WARP + lane] = int8_t(quant);
    int sum = quant;
    for (int by = WARP / 2; by > 0; by /= 2) {
        sum += __shfl_xor_sync(ALL, sum, by);
    }
    if (lane == 0) {
        scales[at] = from_half(to_half(most / 127.0f));
        sums[at] = sum;
        float exact = most / 127.0f * float(sum), through = from_half(to_half(exact));
        bool infinite = (__float_as_uint(through) & 0x7fffffff) == 0x7f800000;
        totals[at] = infinite ? exact : through;
    }
}

// Super-blocks of 256.  scales [rows, k / 256]; sums [rows, k / 16], of 16 quants each.
// Grid: (super-blocks / 8, most rows); a warp has a super-block, a lane eight numbers.
extern "C" __global__ void quantise_q8k(const float *x, const uint32_t *rows, int8_t *quants,
                                        float *scales, int16_t *sums, int k) {
    constexpr int SUPER = 256, EACH = SUPER / WARP;
    int super = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (blockIdx.y >= *rows || super >= k / SUPER) {
        return;
    }
    size_t at = size_t(blockIdx.y) * (k / SUPER) + super;
    x += at * SUPER + lane * EACH;
    uint32_t most = 0;
    for (int i = 0; i < EACH; i++) {
        most = max(most, __float_as_uint(x[i]) & 0x7fffffff);
    }
    most = largest(most);
    // The first of the largest in size becomes -127, whatever its sign: the lowest place, its sign
    // below.
    uint32_t first = ~0u;
    for (int i = EACH - 1; i >= 0; i--) {
        uint32_t bits = __float_as_uint(x[i]);
        if ((bits & 0x7fffffff) == most) {
            first = uint32_t(lane * EACH + i) << 1 | bits >> 31;
        }
    }
    for (int by = WARP / 2; by > 0; by /= 2) {
        first = min(first, __shfl_xor_sync(ALL, first, by));
    }
    float size = __uint_as_float(most);
    float inverse = most == 0 ? 0.0f : -127.0f / (first & 1 ? -size : size);
    int sum = 0;
    for (int i = 0; i < EACH; i++) {
        int8_t quant = rounded(x[i], inverse);
        quants[at * SUPER + lane * EACH + i] = quant;
        sum += quant;
    }
    sum += __shfl_xor_sync(ALL, sum, 1);
    if (lane % 2 == 0) {
        sums[at * 16 + lane / 2] = int16_t(sum);
    }
    if (lane == 0) {
        scales[at] = most == 0 ? 0.0f : 1.0f / inverse;
    }
}
