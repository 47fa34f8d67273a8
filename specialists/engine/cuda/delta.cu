// Gated delta net (2412.06464), as `parts/delta.rs`: what a row projects is taken apart, passes
// through a convolution over time, and then through the state of each head of values.
//
// A sequence's state is F32: the convolution's past [taps - 1, channels], then a matrix for each
// head of values, [value, key].  Channels are queries [key heads, head_dim], keys alike, and values
// [value heads, head_dim].
#include "common.cuh"

// Rows of one sequence in a step, one after the other, and where its state of this layer is.
struct Stretch {
    uint32_t first, count;
    uint64_t state;
};

constexpr int MOST_TAPS = 8;

// For each head of keys a row holds query, key, its values and their gates, `share` each of the
// latter: all [rows, key heads, (2 + 2 share) head_dim] becomes qkv [rows, channels] and z [rows,
// value heads, head_dim]. Grid: (numbers of a row / THREADS, most rows).
extern "C" __global__ void untangle(const float *all, const uint32_t *rows, float *qkv, float *z,
                                    int key_heads, int share, int head_dim) {
    int group = (2 + 2 * share) * head_dim, i = blockIdx.x * THREADS + threadIdx.x;
    size_t row = blockIdx.y;
    if (row >= *rows || i >= key_heads * group) {
        return;
    }
    int head = i / group, at = i % group, piece = at / head_dim, d = at % head_dim;
    int keys = key_heads * head_dim, values = keys * share;
    float v = all[row * key_heads * group + i];
    qkv += row * (2 * keys + values);
    if (piece < 2) {
        qkv[piece * keys + head * head_dim + d] = v;
    } else if (piece < 2 + share) {
        qkv[2 * keys + head * share * head_dim + at - 2 * head_dim] = v;
    } else {
        z[row * values + head * share * head_dim + at - (2 + share) * head_dim] = v;
    }
}

// ln(1 + e^x); above 20 it is x.
__device__ inline float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// How much is learnt, beta, and what states are multiplied by, decay: both [rows, value heads].  Of
// head h the inputs are at [r * in_row + h / share * in_group + h % share] of `betas` and `alphas`,
// so that they may lie apart or in turn. dt is added to alpha; a is what a step of time is
// multiplied by.  Grid: most rows; a thread has a head.
extern "C" __global__ void rates(const float *betas, const float *alphas, int in_row, int in_group,
                                 int share, const float *dt, const float *a, const uint32_t *rows,
                                 float *beta, float *decay, int heads) {
    size_t row = blockIdx.x;
    if (row >= *rows) {
        return;
    }
    for (int h = threadIdx.x; h < heads; h += blockDim.x) {
        size_t from = row * in_row + h / share * in_group + h % share, to = row * heads + h;
        beta[to] = sigmoid(betas[from]);
        decay[to] = expf(softplus(alphas[from] + dt[h]) * a[h]);
    }
}

// out[r, c] = silu(sum over taps of kernel[c, t] * x[r - taps + 1 + t, c]), where what came before
// the stretch is its past. x, out [rows, channels], not one; kernel [channels, taps], oldest first;
// stretch_of [rows]. Grid: (channels / THREADS, most rows).
extern "C" __global__ void convolve(const float *x, const float *kernel, const Stretch *stretches,
                                    const uint32_t *stretch_of, const uint32_t *rows, float *out,
                                    int channels, int taps) {
    int c = blockIdx.x * THREADS + threadIdx.x;
    size_t row = blockIdx.y;
    if (row >= *rows || c >= channels) {
        return;
    }
    Stretch s = stretches[stretch_of[row]];
    auto *past = reinterpret_cast<const float *>(s.state);
    int index = int(row - s.first);
    float sum = 0;
    for (int t = 0; t < taps; t++) {
        int at = index + t - (taps - 1);
        float v = at < 0 ? past[size_t(at + taps - 1) * channels + c]
                         : x[(size_t(s.first) + at) * channels + c];
        sum += v * kernel[c * taps + t];
    }
    out[row * channels + c] = silu(sum);
}

// The past becomes that of each stretch's last row.  Grid: (channels / THREADS, most stretches).
extern "C" __global__ void remember(const float *x, const Stretch *stretches, const uint32_t *count,
                                    int channels, int taps) {
    int c = blockIdx.x * THREADS + threadIdx.x;
    if (blockIdx.y >= *count || c >= channels) {
        return;
    }
    Stretch s = stretches[blockIdx.y];
    auto *past = reinterpret_cast<float *>(s.state);
    float last[MOST_TAPS];
    for (int t = 0; t < taps - 1; t++) {
        int at = int(s.count) + t - (taps - 1);
        last[t] = at < 0 ? past[size_t(at + taps - 1) * channels + c]
                         : x[(size_t(s.first) + at) * channels + c];
    }
    for (int t = 0; t < taps - 1; t++) {
        past[size_t(t) * channels + c] = last[t];
    }
}

// Each stretch's rows through its states, one after the other.  qkv [rows, channels], convolved,
// queries and keys of length one; beta, decay [rows, value heads]; out [rows, value heads,
// head_dim].
//
// A line of a state, all keys of one value, meets the others nowhere: a warp has one, in registers,
// from the first row to the last.  Head h of values goes with head h / (value heads / key heads) of
// keys, or, `in_turn`, with h % key heads. Grid: (head_dim / lines, value heads, most stretches);
// head_dim is a multiple of 32 and at most 256.
extern "C" __global__ void recur(const float *qkv, const float *beta, const float *decay,
                                 const Stretch *stretches, const uint32_t *count, float *out,
                                 int key_heads, int head_dim, int in_turn, int past) {
    constexpr int EACH = 256 / WARP;
    int lane = threadIdx.x % WARP, line = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    int head = blockIdx.y, heads = gridDim.y, each = head_dim / WARP;
    if (blockIdx.z >= *count || line >= head_dim) {
        return;
    }
    Stretch s = stretches[blockIdx.z];
    int key_head = in_turn ? head % key_heads : head / (heads / key_heads);
    int keys = key_heads * head_dim, channels = 2 * keys + heads * head_dim;
    float *states =
        reinterpret_cast<float *>(s.state) + past + (size_t(head) * head_dim + line) * head_dim;
    float state[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        state[i] = i < each ? states[i * WARP + lane] : 0.0f;
    }
    float scale = 1.0f / sqrtf(float(head_dim));
    for (size_t row = s.first; row < size_t(s.first) + s.count; row++) {
        const float *x = qkv + row * channels, *q = x + key_head * head_dim + lane, *k = q + keys;
        float b = beta[row * heads + head], kept = decay[row * heads + head];
        float key[EACH], known = 0, answer = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            key[i] = i < each ? k[i * WARP] : 0.0f;
            state[i] *= kept;
            known = fmaf(state[i], key[i], known);
        }
        known = sum_of_lanes<WARP>(known);
        float delta = (x[2 * keys + head * head_dim + line] - known) * b;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            state[i] += delta * key[i];
            answer = fmaf(state[i], i < each ? q[i * WARP] : 0.0f, answer);
        }
        answer = sum_of_lanes<WARP>(answer);
        if (lane == 0) {
            out[(row * heads + head) * head_dim + line] = answer * scale;
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (i < each) {
            states[i * WARP + lane] = state[i];
        }
    }
}

// out = x / rms(x) * weight * silu(z), head by head; x, z, out [rows, heads, head_dim], weight
// [head_dim]; x and out may be one.  Grid: (heads, most rows); one warp.
extern "C" __global__ void gated_norm(const float *x, const float *z, const float *weight,
                                      const uint32_t *rows, float *out, int head_dim, float eps) {
    if (blockIdx.y >= *rows) {
        return;
    }
    size_t at = (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * head_dim;
    float sum = 0;
    for (int i = threadIdx.x; i < head_dim; i += WARP) {
        sum = fmaf(x[at + i], x[at + i], sum);
    }
    float scale = inverse_rms(sum_of_lanes<WARP>(sum), head_dim, eps);
    for (int i = threadIdx.x; i < head_dim; i += WARP) {
        out[at + i] = x[at + i] * scale * weight[i] * silu(z[at + i]);
    }
}
