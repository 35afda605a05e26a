/* Backward pass of the selective scan: a task is one utterance and a slot of channels. It walks the
 * chunks from the last to the first, computes each chunk's states again from the one kept at its start,
 * and carries the state's gradient back through them. What several tasks add to (gradients of A, B, C,
 * D and the bias) they write apart, and a second loop adds it up in a fixed order, so that results
 * do not depend on threads. */
#include "scan.h"

typedef struct {
    vf *A, *carry, *grad_A;     /* (vectors, states); carry is the gradient of the state after the frame in hand */
    vf *grad_D, *grad_bias;     /* (vectors) */
    vf *states;                 /* (FRAMES + 1, states): before the chunk, then after each frame */
    vf *decays;                 /* (FRAMES, states) */
    vf *sum_B, *sum_C;          /* (FRAMES, states), over the vectors of the slot */
    float *B, *C;               /* (FRAMES, states) */
} room;

/* one vector of channels over a chunk */
typedef struct {
    vf u[FRAMES], step[FRAMES], dt[FRAMES], x[FRAMES], y[FRAMES], g[FRAMES], grad_x[FRAMES], grad_dt[FRAMES];
} chunk;

INLINE void recompute(int64_t N, int bounded, int gated, int count, chunk *k, const float *const *B,
                      const float *const *C, const vf *restrict A, vf *restrict states, vf *restrict decays) {
    for (int s = 0; s < count; s++) {
        const float *restrict b = B[s], *restrict c = C[s];
        const vf *restrict before = states + s * N;
        vf *restrict after = states + (s + 1) * N, *restrict decay = decays + s * N;
        vf dt = k->dt[s], x = k->x[s], sum = k->y[s];
        for (int64_t n = 0; n < N; n++) {
            vf e = bounded ? exp_negative(dt * A[n]) : exp_any(dt * A[n]);
            vf h = e * before[n] + x * b[n];
            decay[n] = e;
            after[n] = h;
            if (gated) sum += h * c[n];
        }
        k->y[s] = sum;
    }
}

INLINE void sweep(int64_t N, int count, chunk *k, const float *const *B, const float *const *C,
                  const vf *restrict A, const vf *restrict states, const vf *restrict decays,
                  vf *restrict carry, vf *restrict grad_A, vf *restrict sum_B, vf *restrict sum_C) {
    for (int s = count - 1; s >= 0; s--) {
        const float *restrict b = B[s], *restrict c = C[s];
        const vf *before = states + s * N, *after = before + N, *decay = decays + s * N;
        vf *restrict to_B = sum_B + s * N, *restrict to_C = sum_C + s * N;
        vf dt = k->dt[s], x = k->x[s], g = k->g[s], grad_x = {0}, grad_dt = {0};
        for (int64_t n = 0; n < N; n++) {
            vf grad_h = carry[n] + g * c[n];
            to_C[n] += g * after[n];
            to_B[n] += x * grad_h;
            grad_x += grad_h * b[n];
            vf through = grad_h * decay[n];
            carry[n] = through;
            vf exponent = through * before[n];
            grad_dt += exponent * A[n];
            grad_A[n] += exponent * dt;
        }
        k->grad_x[s] = grad_x;
        k->grad_dt[s] = grad_dt;
    }
}

static void recompute_chunk(int64_t N, int bounded, int gated, int count, chunk *k, const float *const *B,
                            const float *const *C, const vf *A, const room *r) {
    if (N == 16 && bounded && gated) recompute(16, 1, 1, count, k, B, C, A, r->states, r->decays);
    else if (bounded) recompute(N, 1, gated, count, k, B, C, A, r->states, r->decays);
    else recompute(N, 0, gated, count, k, B, C, A, r->states, r->decays);
}

static void sweep_chunk(int64_t N, int count, chunk *k, const float *const *B, const float *const *C,
                        const room *r, int64_t v) {
    const vf *A = r->A + v * N;
    vf *carry = r->carry + v * N, *grad_A = r->grad_A + v * N;
    if (N == 16) sweep(16, count, k, B, C, A, r->states, r->decays, carry, grad_A, r->sum_B, r->sum_C);
    else sweep(N, count, k, B, C, A, r->states, r->decays, carry, grad_A, r->sum_B, r->sum_C);
}

/* silu(z) times the gradient of the output, and the gradient of z; y is what is gated */
INLINE vf through_gate(vf grad_out, vf z, vf y, vf *grad_z) {
    vf sigmoid = sigmoid_of(z, exp_minus_abs(z));
    *grad_z = grad_out * y * sigmoid * (z * (1.0f - sigmoid) + 1.0f);
    return grad_out * z * sigmoid;
}

static void load_chunk(const scan_args *p, chunk *k, int64_t item, int64_t channel, int64_t length, int64_t first,
                       int count, int lanes, vf skip) {
    vf zero = {0}, bias = p->bias ? load(p->bias + channel, FLOAT32, lanes) : zero;
    for (int s = 0; s < count; s++) {
        int64_t t = frame_of(p, length, first + s);
        vf u = load(at(&p->u, item, t, channel), p->u.type, lanes);
        vf step = load(at(&p->delta, item, t, channel), p->delta.type, lanes) + bias;
        k->u[s] = u;
        k->step[s] = step;
        k->dt[s] = p->softplus ? softplus_of(step, exp_minus_abs(step)) : step;
        k->x[s] = k->dt[s] * u;
        k->y[s] = p->D ? skip * u : zero;
    }
}

static void backward_vector(const scan_args *p, const room *r, int64_t v, int64_t item, int64_t channel,
                            int64_t length, int64_t first, int count, int bounded, const float *const *B,
                            const float *const *C) {
    chunk k;
    int lanes = lanes_at(p, channel);
    int64_t N = p->states;
    vf zero = {0}, skip = p->D ? load(p->D + channel, FLOAT32, lanes) : zero;
    load_chunk(p, &k, item, channel, length, first, count, lanes, skip);
    if (first) memcpy(r->states, start_of(p, item, channel / LANES, first / FRAMES), sizeof(vf) * (size_t)N);
    else if (p->initial) gather_states(p->initial + (item * p->channels + channel) * N, N, lanes, r->states);
    else memset(r->states, 0, sizeof(vf) * (size_t)N);

    recompute_chunk(N, bounded, p->z.data != NULL, count, &k, B, C, r->A + v * N, r);
    for (int s = 0; s < count; s++) {
        int64_t t = frame_of(p, length, first + s);
        vf g = load(at(&p->grad_out, item, t, channel), p->grad_out.type, lanes);
        if (p->z.data) {
            vf grad_z, z = load(at(&p->z, item, t, channel), p->z.type, lanes);
            g = through_gate(g, z, k.y[s], &grad_z);
            store(at(&p->grad_z, item, t, channel), p->grad_z.type, lanes, grad_z);
        }
        k.g[s] = g;
        r->grad_D[v] += g * k.u[s];
    }
    sweep_chunk(N, count, &k, B, C, r, v);
    for (int s = 0; s < count; s++) {
        int64_t t = frame_of(p, length, first + s);
        vf step = k.step[s], grad_u = k.grad_x[s] * k.dt[s] + k.g[s] * skip;
        vf grad_step = k.grad_dt[s] + k.grad_x[s] * k.u[s];
        if (p->softplus) grad_step *= sigmoid_of(step, exp_minus_abs(step));
        r->grad_bias[v] += grad_step;
        store(at(&p->grad_u, item, t, channel), p->grad_u.type, lanes, grad_u);
        store(at(&p->grad_delta, item, t, channel), p->grad_delta.type, lanes, grad_step);
    }
}

/* where a slot's part of grad_B (which = 0) or grad_C (1) of one frame stands */
INLINE float *slot_row(const scan_args *p, int which, int64_t slot, int64_t item, int64_t frame) {
    return (which ? p->sums_C : p->sums_B) + ((slot * p->batch + item) * p->time + frame) * p->states;
}

static void begin_task(const scan_args *p, const room *r, int64_t item, int64_t channel, int64_t vectors,
                       int *bounded) {
    int64_t N = p->states;
    for (int64_t v = 0; v < vectors; v++) {
        int64_t c = channel + v * LANES;
        int lanes = lanes_at(p, c);
        gather_states(p->A + c * N, N, lanes, r->A + v * N);
        *bounded &= never_positive(p, r->A + v * N);
        if (p->grad_last) gather_states(p->grad_last + (item * p->channels + c) * N, N, lanes, r->carry + v * N);
        else memset(r->carry + v * N, 0, sizeof(vf) * (size_t)N);
    }
    memset(r->grad_A, 0, sizeof(vf) * (size_t)(vectors * N));
    memset(r->grad_D, 0, sizeof(vf) * (size_t)vectors);
    memset(r->grad_bias, 0, sizeof(vf) * (size_t)vectors);
}

static void end_task(const scan_args *p, const room *r, int64_t item, int64_t channel, int64_t vectors) {
    int64_t N = p->states;
    for (int64_t v = 0; v < vectors; v++) {
        int64_t c = channel + v * LANES, place = item * p->channels + c;
        int lanes = lanes_at(p, c);
        scatter_states(r->grad_A + v * N, N, lanes, p->sums_A + place * N);
        if (p->grad_initial) scatter_states(r->carry + v * N, N, lanes, p->grad_initial + place * N);
        store(p->sums_channel + place, FLOAT32, lanes, r->grad_D[v]);
        store(p->sums_channel + p->batch * p->channels + place, FLOAT32, lanes, r->grad_bias[v]);
    }
}

static void backward_task(const scan_args *p, const room *r, int64_t item, int64_t slot) {
    const float *B[FRAMES], *C[FRAMES];
    int64_t channel = slot * p->slot_channels, N = p->states, length = length_of(p, item);
    int64_t width = p->channels - channel < p->slot_channels ? p->channels - channel : p->slot_channels;
    int64_t vectors = (width + LANES - 1) / LANES;
    int bounded = 1;
    begin_task(p, r, item, channel, vectors, &bounded);
    for (int64_t first = (length - 1) / FRAMES * FRAMES; length && first >= 0; first -= FRAMES) {
        int count = length - first < FRAMES ? (int)(length - first) : FRAMES;
        chunk_rows(p, &p->B, item, length, first, count, r->B, B);
        chunk_rows(p, &p->C, item, length, first, count, r->C, C);
        memset(r->sum_B, 0, sizeof(vf) * (size_t)(count * N));
        memset(r->sum_C, 0, sizeof(vf) * (size_t)(count * N));
        for (int64_t v = 0; v < vectors; v++)
            backward_vector(p, r, v, item, channel + v * LANES, length, first, count, bounded, B, C);
        for (int s = 0; s < count; s++) {
            int64_t t = frame_of(p, length, first + s);
            lane_sums(r->sum_B + s * N, N, slot_row(p, 0, slot, item, t));
            lane_sums(r->sum_C + s * N, N, slot_row(p, 1, slot, item, t));
        }
    }
    end_task(p, r, item, channel, vectors);
    zero_frames(&p->grad_u, item, length, p->time, channel, width);
    zero_frames(&p->grad_delta, item, length, p->time, channel, width);
    if (p->z.data) zero_frames(&p->grad_z, item, length, p->time, channel, width);
}

/* grad_B (which = 0) or grad_C (1) of one frame, from the slots' parts */
static void add_slots(const scan_args *p, int which, int64_t item, int64_t frame) {
    int64_t N = p->states, slots = (p->channels + p->slot_channels - 1) / p->slot_channels;
    const view *target = which ? &p->grad_C : &p->grad_B;
    int valid = frame < length_of(p, item);
    for (int64_t n = 0; n < N; n += LANES) {
        int lanes = N - n < LANES ? (int)(N - n) : LANES;
        vf sum = {0};
        for (int64_t slot = 0; valid && slot < slots; slot++)
            sum += load(slot_row(p, which, slot, item, frame) + n, FLOAT32, lanes);
        store(at(target, item, frame, n), target->type, lanes, sum);
    }
}

static void add_utterances(const scan_args *p, int64_t channel) {
    int64_t N = p->states, all = p->batch * p->channels;
    float *target = p->grad_A + channel * N, skip = 0, bias = 0;
    memset(target, 0, sizeof(float) * (size_t)N);
    for (int64_t item = 0; item < p->batch; item++) {
        int64_t place = item * p->channels + channel;
        for (int64_t n = 0; n < N; n++) target[n] += p->sums_A[place * N + n];
        skip += p->sums_channel[place];
        bias += p->sums_channel[all + place];
    }
    if (p->grad_D) p->grad_D[channel] = skip;
    if (p->grad_bias) p->grad_bias[channel] = bias;
}

/* Returns 0, or 1 if memory is short. */
int mamba_speech_scan_backward(const scan_args *p) {
    int64_t slots = (p->channels + p->slot_channels - 1) / p->slot_channels, tasks = p->batch * slots;
    int64_t vectors = (p->slot_channels + LANES - 1) / LANES, N = p->states;
    int64_t rows = (FRAMES * N + LANES - 1) / LANES, per_vector = 3 * N + 2;
    int threads = threads_for(p->threads, tasks, 3 * p->batch * p->time * p->channels / LANES * N);
    int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
        vf *all = vector_room(vectors * per_vector + (4 * FRAMES + 1) * N + 2 * rows);
        if (!all) {
#pragma omp atomic write
            failed = 1;
        }
        vf *chunks = all + vectors * per_vector;
        room r = {
            .A = all, .carry = all + vectors * N, .grad_A = all + 2 * vectors * N,
            .grad_D = all + 3 * vectors * N, .grad_bias = all + vectors * (3 * N + 1),
            .states = chunks, .decays = chunks + (FRAMES + 1) * N,
            .sum_B = chunks + (2 * FRAMES + 1) * N, .sum_C = chunks + (3 * FRAMES + 1) * N,
            .B = (float *)(chunks + (4 * FRAMES + 1) * N), .C = (float *)(chunks + (4 * FRAMES + 1) * N + rows),
        };
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++)
            if (all) backward_task(p, &r, task / slots, task % slots);
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < p->batch * p->time; row++) {
            add_slots(p, 0, row / p->time, row % p->time);
            add_slots(p, 1, row / p->time, row % p->time);
        }
#pragma omp for schedule(static) nowait
        for (int64_t channel = 0; channel < p->channels; channel++) add_utterances(p, channel);
        free(all);
        restore_denormals(before);
    }
    return failed;
}
