/* Backward pass of the selective scan: a task is one utterance and a group of channels. It walks the
 * chunks from the last to the first, computes each chunk's states again from the one kept at its start,
 * and carries the state's gradient back through them. What several tasks add to (gradients of A, B, C,
 * D and the bias) they write apart, and a second loop adds it up in a fixed order, so that results
 * do not depend on which thread does what. */
#include "scan.h"

typedef struct {
    vf *A, *carry, *grad_A;            /* (vectors, states); carry is the gradient of the state after the frame in hand */
    vf *limit, *total, *grad_D, *grad_bias; /* (vectors); the first two as in the forward pass */
    vf *states;                        /* (2, FRAMES + 1, states): before the chunk, then after each frame */
    vf *decays;                        /* (2, FRAMES, states) */
    vf *sum_B, *sum_C;                 /* (FRAMES, states), over the vectors of the group */
    float *B, *C;                      /* (FRAMES, states) */
} room;

/* one vector of channels over a chunk */
typedef struct {
    vf u[FRAMES], step[FRAMES], dt[FRAMES], x[FRAMES], y[FRAMES], g[FRAMES], grad_x[FRAMES], grad_dt[FRAMES];
} chunk;

/* the state of all frames of a chunk again, and with `gated` y */
INLINE void recompute(int64_t N, int small, int gated, int count, chunk *k, const float *const *B,
                      const float *const *C, const vf *restrict A, vf *restrict states, vf *restrict decays) {
    for (int s = 0; s < count; s++) {
        const float *restrict b = B[s], *restrict c = C[s];
        const vf *restrict before = states + s * N;
        vf *restrict after = states + (s + 1) * N, *restrict decay = decays + s * N;
        vf dt = k->dt[s], x = k->x[s], sum = k->y[s];
        for (int64_t n = 0; n < N; n++) {
            vf e = small ? exp_small(dt * A[n]) : exp_any(dt * A[n]);
            vf h = e * before[n] + x * b[n];
            decay[n] = e;
            after[n] = h;
            if (gated) sum += h * c[n];
        }
        k->y[s] = sum;
    }
}

static void recompute_chunk(int64_t N, int small, int gated, int count, chunk *k, const float *const *B,
                            const float *const *C, const vf *A, vf *states, vf *decays) {
    if (N == 16 && small && gated) recompute(16, 1, 1, count, k, B, C, A, states, decays);
    else if (small) recompute(N, 1, gated, count, k, B, C, A, states, decays);
    else recompute(N, 0, gated, count, k, B, C, A, states, decays);
}

/* one state of one frame, back */
typedef struct {
    vf g, x, dt, grad_x, grad_dt;
} back;

INLINE void retreat(back *f, vf b, vf c, vf A, vf before, vf after, vf decay, vf *carry, vf *grad_A, vf *to_B,
                    vf *to_C) {
    vf grad_h = *carry + f->g * c;
    *to_C += f->g * after;
    *to_B += f->x * grad_h;
    f->grad_x += grad_h * b;
    vf through = grad_h * decay;
    *carry = through;
    vf exponent = through * before;
    f->grad_dt += exponent * A;
    *grad_A += exponent * f->dt;
}

/* W vectors back through a chunk; they share the loads of B and C and the sums for their gradients. */
INLINE void sweep(int W, int64_t N, int count, chunk *k, const float *const *B, const float *const *C,
                  const vf *restrict A, const vf *restrict states, const vf *restrict decays, vf *restrict carry,
                  vf *restrict grad_A, vf *restrict sum_B, vf *restrict sum_C) {
    for (int s = count - 1; s >= 0; s--) {
        const float *restrict b = B[s], *restrict c = C[s];
        const vf *h0 = states + s * N, *e0 = decays + s * N;
        const vf *h1 = h0 + (FRAMES + 1) * N, *e1 = e0 + FRAMES * N;
        back f0 = {k[0].g[s], k[0].x[s], k[0].dt[s], {0}, {0}};
        back f1 = {k[W - 1].g[s], k[W - 1].x[s], k[W - 1].dt[s], {0}, {0}};
        for (int64_t n = 0; n < N; n++) {
            vf b_n = splat(b[n]), c_n = splat(c[n]), to_B = sum_B[s * N + n], to_C = sum_C[s * N + n];
            retreat(&f0, b_n, c_n, A[n], h0[n], h0[N + n], e0[n], carry + n, grad_A + n, &to_B, &to_C);
            if (W == 2)
                retreat(&f1, b_n, c_n, A[N + n], h1[n], h1[N + n], e1[n], carry + N + n, grad_A + N + n, &to_B, &to_C);
            sum_B[s * N + n] = to_B;
            sum_C[s * N + n] = to_C;
        }
        k[0].grad_x[s] = f0.grad_x;
        k[0].grad_dt[s] = f0.grad_dt;
        if (W == 2) {
            k[1].grad_x[s] = f1.grad_x;
            k[1].grad_dt[s] = f1.grad_dt;
        }
    }
}

static void sweep_chunk(int W, int64_t N, int count, chunk *k, const float *const *B, const float *const *C,
                        const room *r, int64_t v) {
    const vf *A = r->A + v * N;
    vf *carry = r->carry + v * N, *grad_A = r->grad_A + v * N;
    if (W == 2 && N == 16) sweep(2, 16, count, k, B, C, A, r->states, r->decays, carry, grad_A, r->sum_B, r->sum_C);
    else if (W == 2) sweep(2, N, count, k, B, C, A, r->states, r->decays, carry, grad_A, r->sum_B, r->sum_C);
    else sweep(1, N, count, k, B, C, A, r->states, r->decays, carry, grad_A, r->sum_B, r->sum_C);
}

/* the carry alone, from frame to frame of a chunk: what a segment adds to those before it */
static void carry_chunk(int64_t N, int count, const chunk *k, const float *const *C, const vf *restrict A,
                        vf *restrict carry) {
    for (int s = count - 1; s >= 0; s--)
        for (int64_t n = 0; n < N; n++) carry[n] = (carry[n] + k->g[s] * C[s][n]) * exp_any(k->dt[s] * A[n]);
}

/* silu(z) times the gradient of the output, and the gradient of z; y is what is gated */
INLINE vf through_gate(vf grad_out, vf z, vf y, vf *grad_z) {
    vf sigmoid = logistic(z);
    *grad_z = grad_out * y * sigmoid * (z * (1.0f - sigmoid) + 1.0f);
    return grad_out * z * sigmoid;
}

static void load_chunk(const scan_args *p, const span *t, chunk *k, int64_t channel, int64_t first, int count) {
    int lanes = lanes_at(p, channel);
    vf skip = channel_values(p->D, channel, lanes);
    load_rows(&p->u, t->item, frame_of(p, t->length, first), by(p), channel, count, lanes, k->u);
    load_steps(p, t, channel, first, count, lanes, k->step, k->dt);
    for (int s = 0; s < count; s++) {
        k->x[s] = k->dt[s] * k->u[s];
        k->y[s] = skip * k->u[s];
    }
}

/* From the output's gradient to that of what is gated, and the gate's own: of two directions the first leaves
 * its y for the second. */
static void gate_chunk(const scan_args *p, const span *t, int part, const partial *sums, chunk *k, int64_t channel,
                       int64_t first, int count) {
    int lanes = lanes_at(p, channel);
    int64_t frame = frame_of(p, t->length, first), place = channel - sums->channel;
    vf z[FRAMES], other[FRAMES];
    load_rows(&p->grad_out, t->item, frame, by(p), channel, count, lanes, k->g);
    if (!p->z.data) return;
    load_rows(&p->z, t->item, frame, by(p), channel, count, lanes, z);
    if (part == FIRST) store_rows(&sums->rows, sums->item, frame, by(p), place, count, lanes, k->y);
    if (part == SECOND) {
        load_rows(&sums->rows, sums->item, frame, by(p), place, count, lanes, other);
        for (int s = 0; s < count; s++) k->y[s] += other[s];
    }
    for (int s = 0; s < count; s++) k->g[s] = through_gate(k->g[s], z[s], k->y[s], z + s);
    if (part == ALONE || part == SECOND)
        store_rows(&p->grad_z, t->item, frame, by(p), channel, count, lanes, z);
}

static void finish_chunk(const scan_args *p, const room *r, const span *t, chunk *k, int64_t v, int64_t first,
                         int count) {
    int64_t channel = t->channel + v * LANES, frame = frame_of(p, t->length, first);
    int lanes = lanes_at(p, channel);
    vf skip = channel_values(p->D, channel, lanes), grad_D = {0}, grad_bias = {0};
    for (int s = 0; s < count; s++) {
        vf u = k->u[s], step = k->step[s], grad_step = k->grad_dt[s] + k->grad_x[s] * u;
        if (p->softplus) grad_step *= logistic(step);
        grad_D += k->g[s] * u;
        grad_bias += grad_step;
        k->u[s] = k->grad_x[s] * k->dt[s] + k->g[s] * skip;
        k->step[s] = grad_step;
    }
    r->grad_D[v] += grad_D;
    r->grad_bias[v] += grad_bias;
    store_rows(&p->grad_u, t->item, frame, by(p), channel, count, lanes, k->u);
    store_rows(&p->grad_delta, t->item, frame, by(p), channel, count, lanes, k->step);
}

static void backward_block(const scan_args *p, const room *r, const span *t, int part, const partial *sums, int W,
                           int64_t v, int64_t first, int count, const float *const *B, const float *const *C) {
    chunk k[2];
    int64_t N = p->states;
    for (int w = 0; w < W; w++) {
        int64_t channel = t->channel + (v + w) * LANES;
        const vf *A = r->A + (v + w) * N;
        vf *states = r->states + w * (FRAMES + 1) * N;
        load_chunk(p, t, k + w, channel, first, count);
        int small = all_small(k[w].dt, count, r->limit[v + w]);
        if (part == LOCAL) {
            gate_chunk(p, t, part, sums, k + w, channel, first, count);
            carry_chunk(N, count, k + w, C, A, r->carry + (v + w) * N);
            for (int s = 0; s < count; s++) r->total[v + w] += k[w].dt[s];
            continue;
        }
        if (first) memcpy(states, start_of(p, t->item, channel / LANES, first / FRAMES), sizeof(vf) * (size_t)N);
        else gather_states(state_rows(p->initial, p, t->item, channel), N, lanes_at(p, channel), states);
        recompute_chunk(N, small, p->z.data != NULL, count, k + w, B, C, A, states, r->decays + w * FRAMES * N);
        gate_chunk(p, t, part, sums, k + w, channel, first, count);
    }
    if (part == LOCAL) return;
    sweep_chunk(W, N, count, k, B, C, r, v);
    for (int w = 0; w < W; w++) finish_chunk(p, r, t, k + w, v + w, first, count);
}

/* where a group's part of grad_B (which = 0) or grad_C (1) of one frame stands */
INLINE float *group_row(const scan_args *p, int which, int64_t group, int64_t item, int64_t frame) {
    return (which ? p->sums_C : p->sums_B) + ((group * p->batch + item) * p->time + frame) * p->states;
}

static void begin_task(const scan_args *p, const room *r, const span *t, int part, vf *records) {
    int64_t N = p->states;
    for (int64_t v = 0; v < t->vectors; v++) {
        int64_t channel = t->channel + v * LANES;
        int lanes = lanes_at(p, channel);
        const float *last = part == LOCAL ? NULL : state_rows(p->grad_last, p, t->item, channel);
        gather_states(p->A + channel * N, N, lanes, r->A + v * N);
        gather_states(last, N, lanes, r->carry + v * N);
        r->limit[v] = small_steps(r->A + v * N, N);
        r->total[v] = r->grad_D[v] = r->grad_bias[v] = (vf){0};
    }
    memset(r->grad_A, 0, sizeof(vf) * (size_t)(t->vectors * N));
    for (int64_t segment = t->segments - 1; part != LOCAL && segment > t->segment; segment--)
        pass_segment(record_of(p, records, t, segment), r->A, r->carry, t->vectors, N);
}

static void end_task(const scan_args *p, const room *r, const span *t, int part, vf *records) {
    int64_t N = p->states;
    if (part == LOCAL) {
        vf *record = record_of(p, records, t, t->segment);
        memcpy(record, r->carry, sizeof(vf) * (size_t)(t->vectors * N));
        memcpy(record + t->vectors * N, r->total, sizeof(vf) * (size_t)t->vectors);
        return;
    }
    for (int64_t v = 0; v < t->vectors; v++) {
        int64_t channel = t->channel + v * LANES, place = t->item * p->channels + channel;
        int64_t row = t->segment * p->batch * p->channels + place;
        int lanes = lanes_at(p, channel);
        scatter_states(r->grad_A + v * N, N, lanes, p->sums_A + row * N);
        if (p->grad_initial && !t->segment) scatter_states(r->carry + v * N, N, lanes, p->grad_initial + place * N);
        store(p->sums_channel + row, FLOAT32, lanes, r->grad_D[v]);
        store(p->sums_channel + t->segments * p->batch * p->channels + row, FLOAT32, lanes, r->grad_bias[v]);
    }
    if (t->segment < t->segments - 1) return;
    zero_frames(&p->grad_u, t->item, t->length, p->time, t->channel, t->width);
    zero_frames(&p->grad_delta, t->item, t->length, p->time, t->channel, t->width);
    if (p->z.data && part != FIRST) zero_frames(&p->grad_z, t->item, t->length, p->time, t->channel, t->width);
}

static void backward_task(const scan_args *p, const room *r, const span *t, int part, const partial *sums,
                          vf *records) {
    const float *B[FRAMES], *C[FRAMES];
    int64_t N = p->states;
    begin_task(p, r, t, part, records);
    for (int64_t end = t->to; end > t->from;) {
        int64_t first = (end - 1) / FRAMES * FRAMES;
        int count = (int)(end - first);
        chunk_rows(p, &p->B, t, first, count, r->B, B);
        chunk_rows(p, &p->C, t, first, count, r->C, C);
        memset(r->sum_B, 0, sizeof(vf) * (size_t)(count * N));
        memset(r->sum_C, 0, sizeof(vf) * (size_t)(count * N));
        for (int64_t v = 0; v < t->vectors; v += 2)
            backward_block(p, r, t, part, sums, (int)least(t->vectors - v, 2), v, first, count, B, C);
        for (int s = 0; part != LOCAL && s < count; s++) {
            int64_t frame = frame_of(p, t->length, first + s);
            lane_sums(r->sum_B + s * N, N, group_row(p, 0, t->group, t->item, frame));
            lane_sums(r->sum_C + s * N, N, group_row(p, 1, t->group, t->item, frame));
        }
        end = first;
    }
    end_task(p, r, t, part, records);
}

/* grad_B (which = 0) or grad_C (1) of one frame, from the groups' parts */
static void add_groups(const scan_args *p, int which, int64_t item, int64_t frame) {
    int64_t N = p->states, groups = groups_of(p);
    const view *target = which ? &p->grad_C : &p->grad_B;
    int valid = frame < length_of(p, item);
    for (int64_t n = 0; n < N; n += LANES) {
        int lanes = (int)least(N - n, LANES);
        vf sum = {0};
        for (int64_t group = 0; valid && group < groups; group++)
            sum += load(group_row(p, which, group, item, frame) + n, FLOAT32, lanes);
        store(at(target, item, frame, n), target->type, lanes, sum);
    }
}

static void add_tasks(const scan_args *p, int64_t channel) {
    int64_t N = p->states, all = segments_of(p) * p->batch * p->channels;
    float *target = p->grad_A + channel * N, skip = 0, bias = 0;
    memset(target, 0, sizeof(float) * (size_t)N);
    for (int64_t row = channel; row < all; row += p->channels) {
        for (int64_t n = 0; n < N; n++) target[n] += p->sums_A[row * N + n];
        skip += p->sums_channel[row];
        bias += p->sums_channel[all + row];
    }
    if (p->grad_D) p->grad_D[channel] = skip;
    if (p->grad_bias) p->grad_bias[channel] = bias;
}

/* a thread's room; `vectors` and `rows` as in mamba_speech_scan_backward() */
static room room_at(vf *mine, int64_t vectors, int64_t N, int64_t rows) {
    vf *single = mine + 3 * vectors * N, *chunks = single + 4 * vectors, *sums = chunks + (4 * FRAMES + 2) * N;
    return (room){
        .A = mine, .carry = mine + vectors * N, .grad_A = mine + 2 * vectors * N,
        .limit = single, .total = single + vectors, .grad_D = single + 2 * vectors, .grad_bias = single + 3 * vectors,
        .states = chunks, .decays = chunks + 2 * (FRAMES + 1) * N, .sum_B = sums, .sum_C = sums + FRAMES * N,
        .B = (float *)(sums + 2 * FRAMES * N), .C = (float *)(sums + 2 * FRAMES * N + rows),
    };
}

/* one direction (or, in segments, what each adds to a carry of zero) for the calling team's tasks */
static void share_tasks(const scan_args *p, const room *r, int part, float *scratch, vf *records, int64_t from,
                        int64_t to) {
    int64_t own = p->batch * groups_of(p);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = from; task < to; task++) {
        span t = span_of(p, task);
        partial sums = partial_sums(p, &t, &p->grad_z, scratch, task % own);
        backward_task(p, r, &t, part, &sums, records);
    }
}

/* Returns 0, or 1 if memory is short. `p` is one direction, or two. */
int mamba_speech_scan_backward(const scan_args *p) {
    int64_t N = p->states, segments = segments_of(p), own = p->batch * groups_of(p), tasks = own * segments;
    int64_t vectors = p->task_channels / LANES, rows = blocks(FRAMES * N, LANES);
    int64_t per_thread = vectors * (3 * N + 4) + (6 * FRAMES + 2) * N + 2 * rows;
    int two = p->directions == 2;
    int threads = threads_for(p->threads, tasks, 3 * p->directions * p->batch * p->time * p->channels / LANES * N);
    int64_t scratch_rows = blocks(scratch_floats(p, &p->grad_z, segments > 1 ? own : threads), LANES);
    int64_t recorded = segments > 1 ? tasks * vectors * (N + 1) : 0;
    vf *all = vector_room(threads * per_thread + scratch_rows + recorded);
    if (!all) return 1;
    float *scratch = (float *)(all + threads * per_thread);
    vf *records = (vf *)scratch + scratch_rows;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
        int64_t thread = thread_number();
        room r = room_at(all + thread * per_thread, vectors, N, rows);
        if (segments == 1) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < tasks; task++) {
                span t = span_of(p, task);
                partial sums = partial_sums(p, &t, &p->grad_z, scratch, thread);
                backward_task(p, &r, &t, two ? FIRST : ALONE, &sums, records);
                if (two) backward_task(p + 1, &r, &t, SECOND, &sums, records);
            }
        } else {
            for (int d = 0; d < p->directions; d++) {
                share_tasks(p + d, &r, LOCAL, scratch, records, own, tasks);
                share_tasks(p + d, &r, !two ? ALONE : d ? SECOND : FIRST, scratch, records, 0, tasks);
            }
        }
        for (int d = 0; d < p->directions; d++) {
#pragma omp for schedule(static) nowait
            for (int64_t row = 0; row < p->batch * p->time; row++) {
                add_groups(p + d, 0, row / p->time, row % p->time);
                add_groups(p + d, 1, row / p->time, row % p->time);
            }
#pragma omp for schedule(static) nowait
            for (int64_t channel = 0; channel < p->channels; channel++) add_tasks(p + d, channel);
        }
        restore_denormals(before);
    }
    free(all);
    return 0;
}
