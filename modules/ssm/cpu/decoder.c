/* One token of each hypothesis through a layer of the Mamba decoder: Mamba, Mamba, feed-forward, each behind its norm and
 * on its residual. A hypothesis reads its parent's state in place, so that the choice of a beam copies nothing. */
#include "frame.h"

/* outputs of a matrix that lie side by side, padded with zeros: (panels, in, PANEL) */
#define PANEL 16
#define VECTORS (PANEL / LANES)
/* hypotheses that go through the layer together; their intermediate numbers stay in the cache */
#define TOGETHER 48

typedef struct {
    norm before;
    affine in_proj;          /* in panels, like all matrices here */
    affine conv1d;           /* (inner, taps) */
    affine x_proj, dt_proj;
    const float *rates, *skip; /* (inner, states), negative; (inner) */
    affine out_proj;
    const float *taps_in;    /* (parents, inner, taps), newest last */
    float *taps_out;
    const float *state_in;   /* (parents, inner, states) */
    float *state_out;
} block;

/* Every member is 8 bytes, in the order of modules/asr/decoder_step.py. Arrays are contiguous float32. */
typedef struct {
    int64_t items, width, ffn, inner, states, rank, taps;
    int64_t swish;           /* activation: 1 Swish, 0 GELU */
    const int64_t *parents;  /* (items); under 0 where nothing is wanted */
    const float *x;          /* (items, width) */
    float *out;
    block blocks[2];
    norm before;
    affine widen, narrow;
} step_args;

INLINE int64_t padded(int64_t n) { return blocks(n, PANEL) * PANEL; }

typedef float four __attribute__((vector_size(16), aligned(4)));

/* as convolve(), for the usual four taps */
static void convolve_four(const affine *a, const float *in, float *kept, const float *new, float *out, int64_t channels) {
    for (int64_t c = 0; c < channels; c++) {
        four past = *(const four *)(in + 4 * c), next = {past[1], past[2], past[3], new[c]};
        *(four *)(kept + 4 * c) = next;
        four sums = next * *(const four *)(a->weight + 4 * c);
        out[c] = (sums[0] + sums[2]) + (sums[1] + sums[3]) + (a->bias ? a->bias[c] : 0.0f);
    }
}

/* `q` panels of the products of `m` rows of x, both known to the compiler. */
INLINE void tile(const affine *a, int64_t first, int64_t rows, const float *x, int64_t x_stride, float *out,
                 int64_t out_stride, int64_t n, int m, int q) {
    const float *w = a->weight + first * n;
    float known[2 * PANEL] = {0};
    if (a->bias) memcpy(known, a->bias + first, sizeof(float) * (size_t)least(q * PANEL, rows - first));
    vf sums[8][2 * VECTORS];
    for (int k = 0; k < m; k++)
        for (int v = 0; v < q * VECTORS; v++) sums[k][v] = take(known + v * LANES);
    for (int64_t i = 0; i < n; i++)
        for (int v = 0; v < q * VECTORS; v++) {
            vf column = take(w + (v / VECTORS) * PANEL * n + i * PANEL + (v % VECTORS) * LANES);
            for (int k = 0; k < m; k++) sums[k][v] += column * x[k * x_stride + i];
        }
    for (int k = 0; k < m; k++)
        for (int v = 0; v < q * VECTORS; v++) put(out + k * out_stride + first + v * LANES, sums[k][v]);
}

INLINE void panels(const affine *a, int64_t first, int64_t rows, const float *x, int64_t x_stride, float *out,
                   int64_t out_stride, int64_t items, int64_t n, int q) {
    int64_t k = 0;
#if LANES == 16
    for (; k + 8 <= items; k += 8) tile(a, first, rows, x + k * x_stride, x_stride, out + k * out_stride, out_stride, n, 8, q);
#endif
    for (; k + 4 <= items; k += 4) tile(a, first, rows, x + k * x_stride, x_stride, out + k * out_stride, out_stride, n, 4, q);
    for (; k + 2 <= items; k += 2) tile(a, first, rows, x + k * x_stride, x_stride, out + k * out_stride, out_stride, n, 2, q);
    for (; k < items; k++) tile(a, first, rows, x + k * x_stride, x_stride, out + k * out_stride, out_stride, n, 1, q);
}

/* out = W x + b of all rows of x; the rows of out have room for whole panels */
static void multiply(const affine *a, const float *x, int64_t x_stride, float *out, int64_t out_stride, int64_t items,
                     int64_t rows, int64_t n) {
    int64_t first = 0;
#if LANES == 16
    for (; first + PANEL < rows; first += 2 * PANEL) panels(a, first, rows, x, x_stride, out, out_stride, items, n, 2);
#endif
    for (; first < rows; first += PANEL) panels(a, first, rows, x, x_stride, out, out_stride, items, n, 1);
}

/* the work buffers of hypotheses that go together, in rows that have room for whole panels */
typedef struct {
    int64_t width_row, wide_row, mixed_row, inner_row;
    float *x, *normed, *wide, *mixed, *u, *dt;
} room;

static void add(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

/* one hypothesis' recurrence, and its gated output over u */
static void recur(const step_args *p, const block *b, int64_t item, int64_t parent, float *u, float *dt, float *z,
                  const float *mixed) {
    int64_t inner = p->inner, N = p->states;
    for (int64_t i = 0; i < inner; i += LANES) {
        vf v = take(dt + i);
        put(dt + i, softplus_of(v, exp_minus_abs(v)));
    }
    const float *B = mixed + p->rank, *C = B + N;
    for (int64_t c = 0; c < inner; c++) {
        float y = advance(dt[c], dt[c] * u[c], b->rates + c * N, B, C, b->state_in + (parent * inner + c) * N,
                          b->state_out + (item * inner + c) * N, N);
        u[c] = y + b->skip[c] * u[c];
    }
    activate(1, z, inner);
    for (int64_t c = 0; c < inner; c++) u[c] *= z[c];
}

static void mamba(const step_args *p, const block *b, const int64_t *chosen, int64_t count, const room *r) {
    int64_t width = p->width, inner = p->inner, kept = inner * p->taps;
    for (int64_t k = 0; k < count; k++) normalise(&b->before, r->x + k * r->width_row, r->normed + k * r->width_row, width);
    multiply(&b->in_proj, r->normed, r->width_row, r->wide, r->wide_row, count, 2 * inner, width);
    for (int64_t k = 0; k < count; k++) {
        int64_t item = chosen[k], parent = p->parents[item];
        float *u = r->u + k * r->inner_row;
        const float *past = b->taps_in + parent * kept, *new = r->wide + k * r->wide_row;
        float *next = b->taps_out + item * kept;
        if (p->taps == 4)
            convolve_four(&b->conv1d, past, next, new, u, inner);
        else
            convolve(&b->conv1d, past, next, new, u, inner, p->taps, p->taps);
        activate(1, u, inner);
    }
    multiply(&b->x_proj, r->u, r->inner_row, r->mixed, r->mixed_row, count, p->rank + 2 * p->states, inner);
    multiply(&b->dt_proj, r->mixed, r->mixed_row, r->dt, r->inner_row, count, inner, p->rank);
    for (int64_t k = 0; k < count; k++) {
        float *u = r->u + k * r->inner_row, *wide = r->wide + k * r->wide_row;
        /* the gate where a vector may begin, and its row ends in whole vectors */
        memmove(wide, wide + inner, sizeof(float) * (size_t)inner);
        recur(p, b, chosen[k], p->parents[chosen[k]], u, r->dt + k * r->inner_row, wide, r->mixed + k * r->mixed_row);
    }
    multiply(&b->out_proj, r->u, r->inner_row, r->normed, r->width_row, count, width, inner);
    for (int64_t k = 0; k < count; k++) add(r->x + k * r->width_row, r->normed + k * r->width_row, width);
}

static void some(const step_args *p, const int64_t *chosen, int64_t count, const room *r) {
    int64_t width = p->width;
    for (int64_t k = 0; k < count; k++)
        memcpy(r->x + k * r->width_row, p->x + chosen[k] * width, sizeof(float) * (size_t)width);
    mamba(p, &p->blocks[0], chosen, count, r);
    mamba(p, &p->blocks[1], chosen, count, r);
    for (int64_t k = 0; k < count; k++) normalise(&p->before, r->x + k * r->width_row, r->normed + k * r->width_row, width);
    multiply(&p->widen, r->normed, r->width_row, r->wide, r->wide_row, count, p->ffn, width);
    for (int64_t k = 0; k < count; k++) activate(p->swish, r->wide + k * r->wide_row, p->ffn);
    multiply(&p->narrow, r->wide, r->wide_row, r->normed, r->width_row, count, width, p->ffn);
    for (int64_t k = 0; k < count; k++) {
        float *x = r->x + k * r->width_row;
        add(x, r->normed + k * r->width_row, width);
        memcpy(p->out + chosen[k] * width, x, sizeof(float) * (size_t)width);
    }
}

/* Returns 0, or 1 if memory is short. */
int mamba_speech_decoder_step(const step_args *p) {
    int64_t wide = 2 * p->inner > p->ffn ? 2 * p->inner : p->ffn;
    room r = {padded(p->width), padded(wide), padded(p->rank + 2 * p->states), padded(p->inner)};
    int64_t row = 2 * r.width_row + r.wide_row + r.mixed_row + 2 * r.inner_row;
    float *memory = calloc((size_t)(TOGETHER * row + PANEL), sizeof(float));
    if (!memory) return 1;
    unsigned before = flush_denormals();
    r.x = memory;
    r.normed = r.x + TOGETHER * r.width_row;
    r.wide = r.normed + TOGETHER * r.width_row;
    r.mixed = r.wide + TOGETHER * r.wide_row;
    r.u = r.mixed + TOGETHER * r.mixed_row;
    r.dt = r.u + TOGETHER * r.inner_row;
    int64_t chosen[TOGETHER], count = 0;
    for (int64_t item = 0; item < p->items; item++) {
        if (p->parents[item] < 0)
            memset(p->out + item * p->width, 0, sizeof(float) * (size_t)p->width);
        else
            chosen[count++] = item;
        if (count == TOGETHER || (count && item + 1 == p->items)) {
            some(p, chosen, count, &r);
            count = 0;
        }
    }
    restore_denormals(before);
    free(memory);
    return 0;
}
