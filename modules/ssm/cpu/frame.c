/* One frame through a causal ConMamba layer: half a feed-forward, Mamba, convolution, half a feed-forward. A stream in
 * short pieces gives one frame at a time, and the cost of so many small operations would be more than their arithmetic. */
#include "frame.h"

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

/* x + half of the module, in place */
static void half_step(const frame_args *p, const feed_forward *f, float *x, float *normed, float *wide) {
    normalise(&f->before, x, normed, p->width);
    apply(&f->widen, normed, wide, p->ffn, p->width);
    activate(p->swish, wide, p->ffn);
    apply(&f->narrow, wide, normed, p->width, p->ffn);
    for (int64_t i = 0; i < p->width; i++) x[i] += 0.5f * normed[i];
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
