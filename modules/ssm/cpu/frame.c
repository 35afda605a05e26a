/* One frame through a causal ConMamba layer: half a feed-forward, Mamba, convolution, half a feed-forward. A stream in
 * short pieces gives one frame at a time, and the cost of so many small operations would be more than their arithmetic. */
#include "vectors.h"
#include <math.h>

typedef struct {
    const float *weight, *bias; /* the bias may be NULL */
} affine;

typedef struct {
    const float *weight, *bias;
    double eps;
} norm;

typedef struct {
    norm before;
    affine widen, narrow;
} feed_forward;

/* Every member is 8 bytes, in the order of modules/one_frame.py. Arrays are contiguous float32; weights are (out, in). */
typedef struct {
    int64_t batch, width, ffn, inner, states, rank, taps, kernel;
    int64_t swish;            /* activation: 1 Swish, 0 GELU */
    const float *x;           /* (batch, width) */
    float *out;
    const float *taps_in;     /* (batch, inner, taps), newest last */
    float *taps_out;
    const float *state_in;    /* (batch, inner, states) */
    float *state_out;
    const float *conv_in;     /* (batch, width, kernel - 1) */
    float *conv_out;
    feed_forward first;
    norm before_mamba;
    affine in_proj, conv1d, x_proj, dt_proj;
    const float *rates, *skip; /* (inner, states), negative; (inner) */
    affine out_proj;
    norm before_conv;
    affine pointwise, depthwise;
    norm behind_conv;
    affine linear;
    feed_forward second;
    norm last;
} frame_args;

typedef float loose __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE vf take(const float *p) { return (vf) * (const loose *)p; }
INLINE void put(float *p, vf x) { *(loose *)p = (loose)x; }

INLINE float total(vf x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

INLINE float dot(const float *a, const float *b, int64_t n) {
    vf sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += take(a + i) * take(b + i);
    float rest = 0;
    for (; i < n; i++) rest += a[i] * b[i];
    return total(sum) + rest;
}

/* out = W x + b, four rows at a time, which share the loads of x */
static void apply(const affine *a, const float *x, float *out, int64_t rows, int64_t n) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *w = a->weight + r * n;
        vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            vf v = take(x + i);
            s0 += take(w + i) * v;
            s1 += take(w + n + i) * v;
            s2 += take(w + 2 * n + i) * v;
            s3 += take(w + 3 * n + i) * v;
        }
        float sums[4] = {total(s0), total(s1), total(s2), total(s3)};
        for (; i < n; i++)
            for (int k = 0; k < 4; k++) sums[k] += w[k * n + i] * x[i];
        for (int k = 0; k < 4; k++) out[r + k] = sums[k] + (a->bias ? a->bias[r + k] : 0.0f);
    }
    for (; r < rows; r++) out[r] = dot(a->weight + r * n, x, n) + (a->bias ? a->bias[r] : 0.0f);
}

static void normalise(const norm *p, const float *x, float *out, int64_t n) {
    vf sum = {0}, squares = {0};
    float rest = 0, rest_squares = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += take(x + i);
    for (; i < n; i++) rest += x[i];
    float mean = (total(sum) + rest) / (float)n;
    for (i = 0; i + LANES <= n; i += LANES) {
        vf d = take(x + i) - mean;
        squares += d * d;
    }
    for (; i < n; i++) rest_squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf((total(squares) + rest_squares) / (float)n + (float)p->eps);
    for (i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * (p->weight ? p->weight[i] : 1.0f) + (p->bias ? p->bias[i] : 0.0f);
}

/* 1 + erf(x / sqrt(2)); absolute error 2e-7. Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26. */
INLINE vf one_plus_erf(vf x) {
    vf z = (vf)((vu)x & 0x7fffffffu) * 0.707106781f;
    vf t = splat(1.0f) / (z * 0.3275911f + 1.0f);
    vf p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    vf small = p * t * exp_negative(-z * z);
    return choose(x < 0.0f, small, splat(2.0f) - small);
}

/* in place; the array has room for whole vectors */
static void activate(int64_t swish, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        vf v = take(x + i);
        put(x + i, swish ? v * logistic(v) : v * 0.5f * one_plus_erf(v));
    }
}

/* x + half of the module, in place */
static void half_step(const frame_args *p, const feed_forward *f, float *x, float *normed, float *wide) {
    normalise(&f->before, x, normed, p->width);
    apply(&f->widen, normed, wide, p->ffn, p->width);
    activate(p->swish, wide, p->ffn);
    apply(&f->narrow, wide, normed, p->width, p->ffn);
    for (int64_t i = 0; i < p->width; i++) x[i] += 0.5f * normed[i];
}

/* each channel's last inputs moved on by one, and the convolution over them; `kept` of them lie in the state */
static void convolve(const affine *a, const float *in, float *kept_out, const float *new, float *out, int64_t channels,
                     int64_t kept, int64_t taps) {
    for (int64_t c = 0; c < channels; c++) {
        const float *past = in + (c + 1) * kept - (taps - 1), *w = a->weight + c * taps;
        out[c] = dot(past, w, taps - 1) + new[c] * w[taps - 1] + (a->bias ? a->bias[c] : 0.0f);
        float *next = kept_out + c * kept;
        if (kept > 1) memcpy(next, in + c * kept + 1, sizeof(float) * (size_t)(kept - 1));
        if (kept) next[kept - 1] = new[c];
    }
}

/* the recurrence of one channel, and its output */
INLINE float advance(float dt, float x, const float *A, const float *B, const float *C, const float *h, float *next,
                     int64_t states) {
    vf sum = {0};
    float rest = 0;
    int64_t n = 0;
    for (; n + LANES <= states; n += LANES) {
        vf state = exp_any(take(A + n) * dt) * take(h + n) + take(B + n) * x;
        put(next + n, state);
        sum += state * take(C + n);
    }
    for (; n < states; n++) {
        next[n] = expf(A[n] * dt) * h[n] + B[n] * x;
        rest += next[n] * C[n];
    }
    return total(sum) + rest;
}

static void mamba(const frame_args *p, int64_t item, float *x, float *normed, float *wide, float *u, float *dt) {
    int64_t inner = p->inner, N = p->states;
    float *z = wide + inner, *mixed = wide + 2 * inner;
    normalise(&p->before_mamba, x, normed, p->width);
    apply(&p->in_proj, normed, wide, 2 * inner, p->width);
    convolve(&p->conv1d, p->taps_in + item * inner * p->taps, p->taps_out + item * inner * p->taps, wide, u, inner,
             p->taps, p->taps);
    activate(1, u, inner);
    apply(&p->x_proj, u, mixed, p->rank + 2 * N, inner);
    apply(&p->dt_proj, mixed, dt, inner, p->rank);
    for (int64_t i = 0; i < inner; i += LANES) {
        vf v = take(dt + i);
        put(dt + i, softplus_of(v, exp_minus_abs(v)));
    }
    const float *B = mixed + p->rank, *C = B + N;
    for (int64_t c = 0; c < inner; c++) {
        int64_t at = (item * inner + c) * N;
        float y = advance(dt[c], dt[c] * u[c], p->rates + c * N, B, C, p->state_in + at, p->state_out + at, N);
        wide[c] = y + p->skip[c] * u[c];
    }
    memcpy(u, z, sizeof(float) * (size_t)inner);
    activate(1, u, inner);
    for (int64_t c = 0; c < inner; c++) wide[c] *= u[c];
    apply(&p->out_proj, wide, normed, p->width, inner);
    for (int64_t i = 0; i < p->width; i++) x[i] += normed[i];
}

static void convolution(const frame_args *p, int64_t item, float *x, float *normed, float *wide, float *u) {
    int64_t n = p->width, kept = p->kernel - 1;
    normalise(&p->before_conv, x, normed, n);
    apply(&p->pointwise, normed, wide, 2 * n, n);
    /* the gate lies where a vector may not begin */
    memcpy(u, wide + n, sizeof(float) * (size_t)n);
    for (int64_t i = 0; i < n; i += LANES) put(u + i, logistic(take(u + i)));
    for (int64_t i = 0; i < n; i++) wide[i] *= u[i];
    convolve(&p->depthwise, p->conv_in + item * n * kept, p->conv_out + item * n * kept, wide, u, n, kept, p->kernel);
    normalise(&p->behind_conv, u, normed, n);
    activate(p->swish, normed, n);
    apply(&p->linear, normed, u, n, n);
    for (int64_t i = 0; i < n; i++) x[i] += u[i];
}

/* Returns 0, or 1 if memory is short. */
int mamba_speech_frame_forward(const frame_args *p) {
    int64_t n = p->width, most = 2 * p->inner + p->rank + 2 * p->states;
    if (most < p->ffn) most = p->ffn;
    if (most < 2 * n) most = 2 * n;
    int64_t narrow = n > p->inner ? n : p->inner;
    /* room for whole vectors */
    int64_t sizes[5] = {n, n, most, narrow, p->inner}, all = 0;
    for (int i = 0; i < 5; i++) all += (sizes[i] = blocks(sizes[i], LANES) * LANES + LANES);
    float *room = calloc((size_t)all, sizeof(float));
    if (!room) return 1;
    unsigned before = flush_denormals();
    float *x = room, *normed = x + sizes[0], *wide = normed + sizes[1], *u = wide + sizes[2], *dt = u + sizes[3];
    for (int64_t item = 0; item < p->batch; item++) {
        memcpy(x, p->x + item * n, sizeof(float) * (size_t)n);
        half_step(p, &p->first, x, normed, wide);
        mamba(p, item, x, normed, wide, u, dt);
        convolution(p, item, x, normed, wide, u);
        half_step(p, &p->second, x, normed, wide);
        normalise(&p->last, x, p->out + item * n, n);
    }
    restore_denormals(before);
    free(room);
    return 0;
}
