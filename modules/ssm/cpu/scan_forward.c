/* Forward pass of the selective scan: a task is one utterance and a group of channels, which it runs
 * through in chunks of frames, a vector of channels at a time. */
#include "scan.h"

/* The recurrence over a chunk's frames. y comes with D u in it. */
INLINE void recur(int64_t states, int bounded, int count, const vf *restrict dt, const vf *restrict x,
                  const float *const *B, const float *const *C, const vf *restrict A, vf *restrict h,
                  vf *restrict y) {
    for (int s = 0; s < count; s++) {
        const float *restrict b = B[s], *restrict c = C[s];
        vf dt_s = dt[s], x_s = x[s], sum = y[s];
        for (int64_t n = 0; n < states; n++) {
            vf decay = bounded ? exp_negative(dt_s * A[n]) : exp_any(dt_s * A[n]);
            vf state = decay * h[n] + x_s * b[n];
            h[n] = state;
            sum += state * c[n];
        }
        y[s] = sum;
    }
}

static void recur_chunk(int64_t states, int bounded, int count, const vf *dt, const vf *x, const float *const *B,
                        const float *const *C, const vf *A, vf *h, vf *y) {
    if (bounded && states == 16) recur(16, 1, count, dt, x, B, C, A, h, y);
    else if (bounded) recur(states, 1, count, dt, x, B, C, A, h, y);
    else recur(states, 0, count, dt, x, B, C, A, h, y);
}

typedef struct {
    vf *A, *h;         /* (vectors, states) */
    float *B, *C;      /* (FRAMES, states) */
} room;

static void forward_vector(const scan_args *p, const room *r, int64_t v, int64_t item, int64_t channel,
                           int64_t length, int64_t first, int count, int bounded, const float *const *B,
                           const float *const *C) {
    vf dt[FRAMES], x[FRAMES], y[FRAMES], zero = {0};
    int lanes = lanes_at(p, channel);
    vf bias = p->bias ? load(p->bias + channel, FLOAT32, lanes) : zero;
    vf skip = p->D ? load(p->D + channel, FLOAT32, lanes) : zero;
    for (int s = 0; s < count; s++) {
        int64_t t = frame_of(p, length, first + s);
        vf u = load(at(&p->u, item, t, channel), p->u.type, lanes);
        vf step = load(at(&p->delta, item, t, channel), p->delta.type, lanes) + bias;
        dt[s] = p->softplus ? softplus_of(step, exp_minus_abs(step)) : step;
        x[s] = dt[s] * u;
        y[s] = p->D ? skip * u : zero;
    }
    vf *h = r->h + v * p->states;
    if (p->starts && first)
        memcpy(start_of(p, item, channel / LANES, first / FRAMES), h, sizeof(vf) * (size_t)p->states);
    recur_chunk(p->states, bounded, count, dt, x, B, C, r->A + v * p->states, h, y);
    for (int s = 0; s < count; s++) {
        int64_t t = frame_of(p, length, first + s);
        vf out = y[s];
        if (p->z.data) {
            vf z = load(at(&p->z, item, t, channel), p->z.type, lanes);
            out *= z * sigmoid_of(z, exp_minus_abs(z));
        }
        store(at(&p->out, item, t, channel), p->out.type, lanes, out);
    }
}

static void forward_task(const scan_args *p, const room *r, int64_t item, int64_t channel, int64_t end) {
    const float *B[FRAMES], *C[FRAMES];
    int64_t length = length_of(p, item), states = p->states, vectors = (end - channel + LANES - 1) / LANES;
    int bounded = 1;
    for (int64_t v = 0; v < vectors; v++) {
        int64_t c = channel + v * LANES;
        int lanes = lanes_at(p, c);
        gather_states(p->A + c * states, states, lanes, r->A + v * states);
        bounded &= never_positive(p, r->A + v * states);
        if (p->initial) gather_states(p->initial + (item * p->channels + c) * states, states, lanes, r->h + v * states);
        else memset(r->h + v * states, 0, sizeof(vf) * (size_t)states);
    }
    for (int64_t first = 0; first < length; first += FRAMES) {
        int count = length - first < FRAMES ? (int)(length - first) : FRAMES;
        chunk_rows(p, &p->B, item, length, first, count, r->B, B);
        chunk_rows(p, &p->C, item, length, first, count, r->C, C);
        for (int64_t v = 0; v < vectors; v++)
            forward_vector(p, r, v, item, channel + v * LANES, length, first, count, bounded, B, C);
    }
    for (int64_t v = 0; v < vectors; v++) {
        int64_t c = channel + v * LANES;
        scatter_states(r->h + v * states, states, lanes_at(p, c), p->last + (item * p->channels + c) * states);
    }
    zero_frames(&p->out, item, length, p->time, channel, end - channel);
}

/* Channels a task: 64, or as few as 16 (a cache line) where that shares the work out more evenly. */
static int64_t group_channels(const scan_args *p) {
    int64_t best = 64, least = INT64_MAX;
    for (int64_t width = 64; width >= 16; width /= 2) {
        int64_t tasks = p->batch * ((p->channels + width - 1) / width);
        int64_t busiest = (tasks + p->threads - 1) / p->threads * width;
        if (busiest < least) {
            best = width;
            least = busiest;
        }
    }
    return best;
}

/* Returns 0, or 1 if memory is short. */
int mamba_speech_scan_forward(const scan_args *p) {
    int64_t width = group_channels(p);
    int64_t groups = (p->channels + width - 1) / width, tasks = p->batch * groups;
    int threads = threads_for(p->threads, tasks, p->batch * p->time * p->channels / LANES * p->states);
    int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
        int64_t vectors = width / LANES;
        int64_t rows = (FRAMES * p->states + LANES - 1) / LANES;
        vf *all = vector_room(2 * vectors * p->states + 2 * rows);
        if (!all) {
#pragma omp atomic write
            failed = 1;
        }
        room r = {all, all + vectors * p->states, (float *)(all + 2 * vectors * p->states),
                  (float *)(all + 2 * vectors * p->states + rows)};
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t task = 0; task < tasks; task++) {
            int64_t channel = task % groups * width;
            int64_t end = channel + width < p->channels ? channel + width : p->channels;
            if (all) forward_task(p, &r, task / groups, channel, end);
        }
        free(all);
        restore_denormals(before);
    }
    return failed;
}

int mamba_speech_has_float16(void) { return HAS_FLOAT16; }
int mamba_speech_lanes(void) { return LANES; }
