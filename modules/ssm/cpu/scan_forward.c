/* Forward pass of the selective scan: a task is one utterance and a group of channels, which it runs
 * through in chunks of frames, two vectors of channels at a time. */
#include "scan.h"

typedef struct {
    vf *A, *h;         /* (vectors, states) */
    vf *limit, *total; /* (vectors): steps that exp_small() takes, and the sum of all */
    float *B, *C;      /* (FRAMES, states) */
} room;

/* one vector of channels over a chunk; y comes with D u in it */
typedef struct {
    vf step[FRAMES], dt[FRAMES], x[FRAMES], y[FRAMES];
} chunk;

INLINE vf advance(int small, vf dt, vf x, vf A, vf b, vf c, vf *h, vf sum) {
    vf decay = small ? exp_small(dt * A) : exp_any(dt * A);
    vf state = decay * *h + x * b;
    *h = state;
    return sum + state * c;
}

/* The recurrence of W vectors, which share the loads of B and C. */
INLINE void recur(int W, int small, int64_t N, int count, chunk *k, const float *const *B, const float *const *C,
                  const vf *restrict A, vf *restrict h) {
    for (int s = 0; s < count; s++) {
        const float *restrict b = B[s], *restrict c = C[s];
        vf dt0 = k[0].dt[s], x0 = k[0].x[s], y0 = k[0].y[s];
        vf dt1 = k[W - 1].dt[s], x1 = k[W - 1].x[s], y1 = k[W - 1].y[s];
        for (int64_t n = 0; n < N; n++) {
            vf b_n = splat(b[n]), c_n = splat(c[n]);
            y0 = advance(small, dt0, x0, A[n], b_n, c_n, h + n, y0);
            if (W == 2) y1 = advance(small, dt1, x1, A[N + n], b_n, c_n, h + N + n, y1);
        }
        k[0].y[s] = y0;
        if (W == 2) k[1].y[s] = y1;
    }
}

static void recur_chunk(int W, int small, int64_t N, int count, chunk *k, const float *const *B,
                        const float *const *C, const vf *A, vf *h) {
    if (W == 2 && small && N == 16) recur(2, 1, 16, count, k, B, C, A, h);
    else if (W == 2 && small) recur(2, 1, N, count, k, B, C, A, h);
    else if (W == 2) recur(2, 0, N, count, k, B, C, A, h);
    else if (small) recur(1, 1, N, count, k, B, C, A, h);
    else recur(1, 0, N, count, k, B, C, A, h);
}

static void load_chunk(const scan_args *p, const span *t, chunk *k, int64_t channel, int64_t first, int count) {
    int lanes = lanes_at(p, channel);
    vf skip = channel_values(p->D, channel, lanes);
    load_rows(&p->u, t->item, frame_of(p, t->length, first), by(p), channel, count, lanes, k->x);
    load_steps(p, t, channel, first, count, lanes, k->step, k->dt);
    for (int s = 0; s < count; s++) {
        k->y[s] = p->D ? skip * k->x[s] : (vf){0};
        k->x[s] *= k->dt[s];
    }
}

static void store_chunk(const scan_args *p, const span *t, int part, const partial *sums, chunk *k, int64_t channel,
                        int64_t first, int count) {
    int lanes = lanes_at(p, channel);
    int64_t frame = frame_of(p, t->length, first);
    vf z[FRAMES];
    if (part == FIRST) {
        store_rows(&sums->rows, sums->item, frame, by(p), channel - sums->channel, count, lanes, k->y);
        return;
    }
    if (part == SECOND) {
        load_rows(&sums->rows, sums->item, frame, by(p), channel - sums->channel, count, lanes, z);
        for (int s = 0; s < count; s++) k->y[s] += z[s];
    }
    if (p->z.data) {
        load_rows(&p->z, t->item, frame, by(p), channel, count, lanes, z);
        for (int s = 0; s < count; s++) k->y[s] *= z[s] * logistic(z[s]);
    }
    store_rows(&p->out, t->item, frame, by(p), channel, count, lanes, k->y);
}

static void begin_task(const scan_args *p, const room *r, const span *t, int part, vf *records) {
    int64_t N = p->states;
    for (int64_t v = 0; v < t->vectors; v++) {
        int64_t channel = t->channel + v * LANES;
        int lanes = lanes_at(p, channel);
        gather_states(p->A + channel * N, N, lanes, r->A + v * N);
        gather_states(part == LOCAL ? NULL : state_rows(p->initial, p, t->item, channel), N, lanes, r->h + v * N);
        r->limit[v] = small_steps(r->A + v * N, N);
        r->total[v] = (vf){0};
    }
    for (int64_t segment = 0; part != LOCAL && segment < t->segment; segment++)
        pass_segment(record_of(p, records, t, segment), r->A, r->h, t->vectors, N);
}

static void end_task(const scan_args *p, const room *r, const span *t, int part, vf *records) {
    int64_t N = p->states;
    if (part == LOCAL) {
        vf *record = record_of(p, records, t, t->segment);
        memcpy(record, r->h, sizeof(vf) * (size_t)(t->vectors * N));
        memcpy(record + t->vectors * N, r->total, sizeof(vf) * (size_t)t->vectors);
        return;
    }
    if (t->segment < t->segments - 1) return;
    for (int64_t v = 0; p->last && v < t->vectors; v++) {
        int64_t channel = t->channel + v * LANES;
        scatter_states(r->h + v * N, N, lanes_at(p, channel), state_rows(p->last, p, t->item, channel));
    }
    if (part != FIRST) zero_frames(&p->out, t->item, t->length, p->time, t->channel, t->width);
}

static void forward_task(const scan_args *p, const room *r, const span *t, int part, const partial *sums,
                         vf *records) {
    const float *B[FRAMES], *C[FRAMES];
    int64_t N = p->states;
    chunk k[2];
    begin_task(p, r, t, part, records);
    for (int64_t first = t->from; first < t->to; first += FRAMES) {
        int count = (int)least(t->to - first, FRAMES);
        chunk_rows(p, &p->B, t, first, count, r->B, B);
        chunk_rows(p, &p->C, t, first, count, r->C, C);
        for (int64_t v = 0; v < t->vectors; v += 2) {
            int W = (int)least(t->vectors - v, 2), small = 1;
            for (int w = 0; w < W; w++) {
                int64_t channel = t->channel + (v + w) * LANES;
                load_chunk(p, t, k + w, channel, first, count);
                small &= all_small(k[w].dt, count, r->limit[v + w]);
                if (p->starts && first && part != LOCAL)
                    memcpy(start_of(p, t->item, channel / LANES, first / FRAMES), r->h + (v + w) * N,
                           sizeof(vf) * (size_t)N);
                for (int s = 0; part == LOCAL && s < count; s++) r->total[v + w] += k[w].dt[s];
            }
            recur_chunk(W, small, N, count, k, B, C, r->A + v * N, r->h + v * N);
            for (int w = 0; part != LOCAL && w < W; w++)
                store_chunk(p, t, part, sums, k + w, t->channel + (v + w) * LANES, first, count);
        }
    }
    end_task(p, r, t, part, records);
}

/* one direction (or, in segments, what each does to a zero state) for the calling team's tasks */
static void share_tasks(const scan_args *p, const room *r, int part, float *scratch, vf *records, int64_t tasks) {
    int64_t own = p->batch * groups_of(p);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; task++) {
        span t = span_of(p, task);
        partial sums = partial_sums(p, &t, &p->out, scratch, task % own);
        forward_task(p, r, &t, part, &sums, records);
    }
}

/* Returns 0, or 1 if memory is short. `p` is one direction, or two. */
int mamba_speech_scan_forward(const scan_args *p) {
    int64_t N = p->states, segments = segments_of(p), own = p->batch * groups_of(p), tasks = own * segments;
    int64_t vectors = p->task_channels / LANES, rows = blocks(FRAMES * N, LANES), per_thread = 2 * vectors * (N + 1);
    int two = p->directions == 2;
    int threads = threads_for(p->threads, tasks, p->directions * p->batch * p->time * p->channels / LANES * N);
    int64_t scratch_rows = blocks(scratch_floats(p, &p->out, segments > 1 ? own : threads), LANES);
    int64_t recorded = segments > 1 ? tasks * vectors * (N + 1) : 0;
    vf *all = vector_room(threads * (per_thread + 2 * rows) + scratch_rows + recorded);
    if (!all) return 1;
    float *scratch = (float *)(all + threads * (per_thread + 2 * rows));
    vf *records = (vf *)scratch + scratch_rows;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
        int64_t thread = thread_number();
        vf *mine = all + thread * (per_thread + 2 * rows);
        room r = {.A = mine, .h = mine + vectors * N, .limit = mine + 2 * vectors * N,
                  .total = mine + vectors * (2 * N + 1), .B = (float *)(mine + per_thread),
                  .C = (float *)(mine + per_thread + rows)};
        if (segments == 1) {
#pragma omp for schedule(dynamic, 1) nowait
            for (int64_t task = 0; task < tasks; task++) {
                span t = span_of(p, task);
                partial sums = partial_sums(p, &t, &p->out, scratch, thread);
                forward_task(p, &r, &t, two ? FIRST : ALONE, &sums, records);
                if (two) forward_task(p + 1, &r, &t, SECOND, &sums, records);
            }
        } else {
            for (int d = 0; d < p->directions; d++) {
                share_tasks(p + d, &r, LOCAL, scratch, records, tasks - own);
                share_tasks(p + d, &r, !two ? ALONE : d ? SECOND : FIRST, scratch, records, tasks);
            }
        }
        restore_denormals(before);
    }
    free(all);
    return 0;
}

int mamba_speech_lanes(void) { return LANES; }
