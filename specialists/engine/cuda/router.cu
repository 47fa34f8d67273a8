// Experts of each row and their gates: with the row's mask, and without, as `parts/routed.rs`
// chooses.
//
// - logits: [rows, experts], at most MOST experts, of which at most CHOSEN are chosen.
// - masks: [rows], where a row's bits of this layer begin once `mask_offset` bytes are added, an
//   expert a bit in words of 64; zero, or no masks at all, is no mask.
// - ids and gates: [rows, top_k], best first, with the mask; full_ids and full_gates without it.
// - missing: [rows], the share of the full gates that is on experts out of the mask.
//
// Ties go to the lower index.  Sums run over experts in order, one after the other, so that what is
// masked, a zero, changes no bit of the others: they are those of a router without it.
//
// Grid: most rows; one warp.
#include "common.cuh"

constexpr int MOST = 1024;
constexpr int EACH = MOST / WARP;
constexpr int CHOSEN = 64;

// As `Gates`, in its order.
enum Gates { RENORMALISED = 0, OF_ALL = 1, OF_CHOSEN = 2 };

// As an integer in the order of floats; what is no number comes last, zero has one sign.
__device__ inline uint32_t order(float v) {
    if (v != v) {
        return 0;
    }
    uint32_t bits = __float_as_uint(v + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The largest of a warp's values, the lowest index among equals.  Lane l holds those of experts l,
// l + 32, ...; `taken` has a bit for each that is out.
__device__ inline uint32_t largest(const float *values, int experts, uint32_t taken) {
    uint64_t best = 0;
    for (int i = 0; i < EACH; i++) {
        uint32_t e = i * WARP + threadIdx.x;
        if (e < uint32_t(experts) && !(taken >> i & 1)) {
            // A lower index is a larger low half.
            best = max(best, uint64_t(order(values[e])) << 32 | (MOST - e));
        }
    }
    for (int by = WARP / 2; by > 0; by /= 2) {
        best = max(best, __shfl_xor_sync(ALL, best, by));
    }
    return MOST - uint32_t(best);
}

// Softmax of n values in place, the sum in order.
__device__ inline void softmax(float *values, int n) {
    float most = -INFINITY;
    for (int i = threadIdx.x; i < n; i += WARP) {
        most = fmaxf(most, values[i]);
    }
    for (int by = WARP / 2; by > 0; by /= 2) {
        most = fmaxf(most, __shfl_xor_sync(ALL, most, by));
    }
    for (int i = threadIdx.x; i < n; i += WARP) {
        values[i] = exponential(values[i] - most);
    }
    __syncwarp();
    // Every lane adds all: the reads are broadcasts, and nobody waits for one.
    float sum = 0;
    for (int i = 0; i < n; i++) {
        sum += values[i];
    }
    __syncwarp();
    for (int i = threadIdx.x; i < n; i += WARP) {
        values[i] /= sum;
    }
    __syncwarp();
}

// Chooses among `values`, which are destroyed; ids and gates are in shared memory.
__device__ inline void choose(float *values, int experts, int top_k, int kind, int *ids,
                              float *gates) {
    if (kind != OF_CHOSEN) {
        softmax(values, experts);
    }
    uint32_t taken = 0;
    for (int rank = 0; rank < top_k; rank++) {
        uint32_t e = largest(values, experts, taken);
        if (e % WARP == threadIdx.x) {
            taken |= 1u << (e / WARP);
            ids[rank] = int(e);
            gates[rank] = values[e];
        }
    }
    __syncwarp();
    if (kind == OF_CHOSEN) {
        softmax(gates, top_k);
        return;
    }
    float sum = 0;
    for (int rank = 0; rank < top_k; rank++) {
        sum += gates[rank];
    }
    // The bound is llama.cpp's: the smallest normal F16.
    float by = kind == RENORMALISED ? fmaxf(sum, 6.1035156e-5f) : 1.0f;
    __syncwarp();
    for (int rank = threadIdx.x; rank < top_k; rank += WARP) {
        gates[rank] /= by;
    }
    __syncwarp();
}

extern "C" __global__ void __launch_bounds__(WARP)
    route(const float *logits, const uint64_t *masks, uint64_t mask_offset, const uint32_t *rows,
          int experts, int top_k, int kind, int *ids, float *gates, int *full_ids,
          float *full_gates, float *missing) {
    __shared__ float values[MOST];
    __shared__ int chosen[2][CHOSEN];
    __shared__ float shares[2][CHOSEN];
    size_t row = blockIdx.x;
    if (row >= *rows) {
        return;
    }
    logits += row * experts;
    auto *mask = masks && masks[row] ? reinterpret_cast<const uint64_t *>(masks[row] + mask_offset)
                                     : nullptr;
    // Without a mask both are one.
    int last = mask ? 1 : 0;
    for (int masked = 0; masked <= last; masked++) {
        for (int e = threadIdx.x; e < experts; e += WARP) {
            values[e] = !masked || (mask[e / 64] >> (e % 64) & 1) ? logits[e] : -INFINITY;
        }
        __syncwarp();
        choose(values, experts, top_k, kind, chosen[masked], shares[masked]);
    }
    for (int rank = threadIdx.x; rank < top_k; rank += WARP) {
        size_t at = row * top_k + rank;
        full_ids[at] = chosen[0][rank];
        full_gates[at] = shares[0][rank];
        ids[at] = chosen[last][rank];
        gates[at] = shares[last][rank];
    }
    if (threadIdx.x == 0) {
        float lacks = 0, all = 0;
        for (int rank = 0; rank < top_k; rank++) {
            int e = chosen[0][rank];
            all += shares[0][rank];
            lacks += mask && !(mask[e / 64] >> (e % 64) & 1) ? shares[0][rank] : 0.0f;
        }
        missing[row] = mask ? lacks / all : 0.0f;
    }
}
