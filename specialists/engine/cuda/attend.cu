// Attention of each row over the tokens it sees, grouped queries, softmax as it goes (2205.14135).
//
// The context falls into pieces of PIECE positions, counted from position zero.  Of a piece and a
// head come the largest score, the sum of powers and the sum of values times powers; pieces are
// merged in order.  Whether pieces run side by side, with `merge` behind, or one after the other in
// one block, is the same arithmetic, so the same bits.
//
// Scores are fma(q[d], k[d], score), number after number, and values fma(power, v[d], sum), token
// after token.
#include "pages.cuh"

constexpr int PIECE = 128;
// Heads of queries over one head of keys that a block has.
constexpr int HEADS = 8;

struct Attend {
    // [rows, heads, head_dim]
    const float *q;
    Places places;
    const uint32_t *rows;
    // [heads], a score that takes a share and gives nothing (2309.17453); or null.
    const float *sinks;
    // Of head h of row r at gate[r * gate_row + h * gate_head]: its sigmoid multiplies the output;
    // or null.
    const float *gate;
    // [rows, heads, head_dim]
    float *out;
    // [rows, heads, pieces, 2 + head_dim]: largest score, sum, answer.  Null: one block does all
    // pieces.
    float *partial;
    int gate_row, gate_head, heads, kv_heads, head_dim;
    // Tokens that a row sees, itself among them; 0 is all.
    int window;
    // Pieces that a row may see at most.
    int pieces;
    float scale;
};

// Positions that a row sees, the last one not.
struct Seen {
    int from, to;
    __device__ Seen(const Attend &a, size_t row) {
        to = int(a.places.positions[row]) + 1;
        from = a.window > 0 ? max(0, to - a.window) : 0;
    }
    __device__ int first_piece() const { return from / PIECE; }
    __device__ int count() const { return (to - 1) / PIECE - first_piece() + 1; }
};

// Sums that were made under a largest score each, under the larger one.
__device__ inline float blend(float x, float x_most, float y, float y_most) {
    float most = fmaxf(x_most, y_most);
    return x * exponential(x_most - most) + y * exponential(y_most - most);
}

// The answer's number d of a head.
__device__ inline void finish(const Attend &a, size_t row, int head, int d, float answer,
                              float most, float sum) {
    if (a.sinks) {
        float sink = a.sinks[head];
        sum = blend(sum, most, 1.0f, sink);
        answer = blend(answer, most, 0.0f, sink);
    }
    float v = answer * (1.0f / sum);
    if (a.gate) {
        v *= sigmoid(a.gate[row * a.gate_row + size_t(head) * a.gate_head + d]);
    }
    a.out[(row * a.heads + head) * a.head_dim + d] = v;
}

// Scores of the block's heads with one token.
template <class S, int DIM>
__device__ inline void score(const uint8_t *keys, const Attend &a, int head, int token,
                             const float (&q)[HEADS][DIM], float *scores) {
    bool wide = a.head_dim % 8 == 0;
    for (int d = 0; d < a.head_dim; d += wide ? 8 : 1) {
        float k[8];
        if (wide) {
            S::eight(keys, a.kv_heads, a.head_dim, head, token, d, k);
        } else {
            k[0] = S::get(keys, a.kv_heads, a.head_dim, head, token, d);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (i == 0 || wide) {
#pragma unroll
                for (int g = 0; g < HEADS; g++) {
                    scores[g] = fmaf(q[g][d + i], k[i], scores[g]);
                }
            }
        }
    }
}

// Heads of up to DIM numbers.  Grid: (pieces, or 1; heads of keys * groups of HEADS; most rows),
// PIECE threads.
template <class S, int DIM>
__device__ void attend(const Attend &a) {
    __shared__ float q[HEADS][DIM], answers[HEADS][DIM];
    // Scores, then powers.
    __shared__ float powers[HEADS][PIECE];
    __shared__ float most[HEADS], sums[HEADS], most_of_all[HEADS], sum_of_all[HEADS];
    size_t row = blockIdx.z;
    if (row >= *a.rows) {
        return;
    }
    int group = a.heads / a.kv_heads, groups = (group + HEADS - 1) / HEADS;
    int kv_head = blockIdx.y / groups, first = blockIdx.y % groups * HEADS;
    int head = kv_head * group + first, heads = min(HEADS, group - first);
    const Seen seen(a, row);
    int begin = a.partial ? int(blockIdx.x) : 0,
        end = a.partial ? min(begin + 1, seen.count()) : seen.count();
    if (begin >= end) {
        return;
    }
    for (int i = threadIdx.x; i < HEADS * DIM; i += PIECE) {
        int g = i / DIM, d = i % DIM;
        q[g][d] =
            g < heads && d < a.head_dim ? a.q[(row * a.heads + head + g) * a.head_dim + d] : 0.0f;
        answers[g][d] = 0;
    }
    if (threadIdx.x < HEADS) {
        most_of_all[threadIdx.x] = -INFINITY;
        sum_of_all[threadIdx.x] = 0;
    }
    size_t values_at = S::half_bytes(a.kv_heads, a.head_dim);
    for (int piece = begin; piece < end; piece++) {
        int start = (seen.first_piece() + piece) * PIECE;
        int t0 = max(seen.from - start, 0), t1 = min(seen.to - start, PIECE);
        __syncthreads();
        int t = threadIdx.x;
        float scores[HEADS] = {};
        bool sees = t0 <= t && t < t1;
        if (sees) {
            const uint8_t *page = page_of(a.places, row, (start + t) / PAGE);
            score<S, DIM>(page, a, kv_head, t % PAGE, q, scores);
        }
#pragma unroll
        for (int g = 0; g < HEADS; g++) {
            powers[g][t] = sees ? scores[g] * a.scale : -INFINITY;
        }
        __syncthreads();
        for (int g = t / WARP; g < heads; g += PIECE / WARP) {
            float largest = -INFINITY, sum = 0;
            for (int i = t % WARP; i < PIECE; i += WARP) {
                largest = fmaxf(largest, powers[g][i]);
            }
            for (int by = WARP / 2; by > 0; by /= 2) {
                largest = fmaxf(largest, __shfl_xor_sync(ALL, largest, by));
            }
            for (int i = t % WARP; i < PIECE; i += WARP) {
                powers[g][i] = exponential(powers[g][i] - largest);
                sum += powers[g][i];
            }
            sum = sum_of_lanes<WARP>(sum);
            if (t % WARP == 0) {
                most[g] = largest;
                sums[g] = sum;
            }
        }
        __syncthreads();
        for (int d = t; d < a.head_dim; d += PIECE) {
            float answer[HEADS] = {};
            for (int at = t0; at < t1;) {
                const uint8_t *values = page_of(a.places, row, (start + at) / PAGE) + values_at;
                for (int stop = min(t1, (at / PAGE + 1) * PAGE); at < stop; at++) {
                    float v = S::get(values, a.kv_heads, a.head_dim, kv_head, at % PAGE, d);
#pragma unroll
                    for (int g = 0; g < HEADS; g++) {
                        answer[g] = fmaf(powers[g][at], v, answer[g]);
                    }
                }
            }
#pragma unroll
            for (int g = 0; g < HEADS; g++) {
                if (g < heads && a.partial) {
                    size_t at = ((row * a.heads + head + g) * a.pieces + piece) * (2 + a.head_dim);
                    a.partial[at + 2 + d] = answer[g];
                } else if (g < heads) {
                    answers[g][d] = blend(answers[g][d], most_of_all[g], answer[g], most[g]);
                }
            }
        }
        if (t < heads && a.partial) {
            size_t at = ((row * a.heads + head + t) * a.pieces + piece) * (2 + a.head_dim);
            a.partial[at] = most[t];
            a.partial[at + 1] = sums[t];
        }
        __syncthreads();
        if (t < heads) {
            sum_of_all[t] = blend(sum_of_all[t], most_of_all[t], sums[t], most[t]);
            most_of_all[t] = fmaxf(most_of_all[t], most[t]);
        }
    }
    __syncthreads();
    if (a.partial) {
        return;
    }
    for (int g = 0; g < heads; g++) {
        for (int d = threadIdx.x; d < a.head_dim; d += PIECE) {
            finish(a, row, head + g, d, answers[g][d], most_of_all[g], sum_of_all[g]);
        }
    }
}

#define ATTEND(NAME, S)                                                                 \
    extern "C" __global__ void __launch_bounds__(PIECE) attend_##NAME##_128(Attend a) { \
        attend<S, 128>(a);                                                              \
    }                                                                                   \
    extern "C" __global__ void __launch_bounds__(PIECE) attend_##NAME##_256(Attend a) { \
        attend<S, 256>(a);                                                              \
    }                                                                                   \
    extern "C" __global__ void __launch_bounds__(PIECE) attend_##NAME##_512(Attend a) { \
        attend<S, 512>(a);                                                              \
    }
PRECISIONS(ATTEND)

// Pieces that ran side by side become the answer.  Grid: (heads, most rows), PIECE threads.
extern "C" __global__ void merge(Attend a) {
    size_t row = blockIdx.y;
    int head = blockIdx.x;
    if (row >= *a.rows) {
        return;
    }
    int count = Seen(a, row).count();
    const float *pieces = a.partial + (row * a.heads + head) * a.pieces * (2 + a.head_dim);
    for (int d = threadIdx.x; d < a.head_dim; d += PIECE) {
        float most = -INFINITY, sum = 0, answer = 0;
        for (int i = 0; i < count; i++) {
            const float *piece = pieces + size_t(i) * (2 + a.head_dim);
            answer = blend(answer, most, piece[2 + d], piece[0]);
            sum = blend(sum, most, piece[1], piece[0]);
            most = fmaxf(most, piece[0]);
        }
        finish(a, row, head, d, answer, most, sum);
    }
}
