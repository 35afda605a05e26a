/* What the scan's two passes share: their arguments, how the work is cut into tasks, and the pieces of a
 * task that both need. */
#ifndef MAMBA_SPEECH_SCAN_H
#define MAMBA_SPEECH_SCAN_H

#include "vectors.h"

/* Frames a chunk: one state in so many is kept for the backward pass, which computes the others again. */
enum { FRAMES = 16 };

/* Every member is 8 bytes, in the order of scan/cpu.py. Views are (batch, time, channels or states); the
 * float32 arrays are contiguous. Members after `starts` serve the backward pass only. With two
 * directions the kernels get two of these, which share sizes, lengths, z, out and their gradients: the
 * results of the two are added up before the gate. */
typedef struct {
    int64_t batch, time, channels, states, softplus, reverse, directions, threads;
    int64_t task_channels;    /* channels a task, a multiple of LANES but for the last */
    int64_t segment_steps;    /* steps a task, a multiple of FRAMES; `time` or more: time is not cut */
    const int64_t *lengths;   /* (batch) or NULL */
    view u, delta, z, B, C, out;
    const float *A;           /* (channels, states) */
    const float *D, *bias;    /* (channels) or NULL */
    const float *initial;     /* (batch, channels, states) or NULL */
    float *last;              /* (batch, channels, states) or NULL */
    float *starts;            /* state before every chunk but the first, laid out by start_of(); or NULL */
    view grad_out, grad_u, grad_delta, grad_z, grad_B, grad_C;
    const float *grad_last;   /* (batch, channels, states) or NULL */
    float *grad_A, *grad_D, *grad_bias, *grad_initial;
    float *sums_A;            /* (segments, batch, channels, states): each task's part of grad_A */
    float *sums_channel;      /* (2, segments, batch, channels): of grad_D and grad_bias */
    float *sums_B, *sums_C;   /* (groups, batch, time, states): each group of channels' part of grad_B, grad_C;
                                 with one group it may be the gradient itself */
} scan_args;

/* What a task does: all of one direction; the first of two, which leaves a sum for the second; the second; or,
 * where time is cut into segments, only what its segment does to a state that is zero before it. */
enum { ALONE, FIRST, SECOND, LOCAL };

/* One utterance, a group of channels, a segment of steps. */
typedef struct {
    int64_t item, group, segment, segments;
    int64_t channel, vectors, width;  /* first channel, vectors of channels, channels */
    int64_t length, from, to;         /* frames of the utterance; the steps in hand */
} span;

INLINE int64_t groups_of(const scan_args *p) { return blocks(p->channels, p->task_channels); }
INLINE int64_t segments_of(const scan_args *p) { return p->time > 0 ? blocks(p->time, p->segment_steps) : 1; }
INLINE int64_t length_of(const scan_args *p, int64_t item) { return frames_within(p->lengths, item, p->time); }

/* the task of this number; tasks of one segment stand together */
INLINE span span_of(const scan_args *p, int64_t task) {
    int64_t groups = groups_of(p), segments = segments_of(p), rest = task / groups;
    span t = {.item = rest % p->batch, .group = task % groups, .segment = rest / p->batch, .segments = segments};
    t.channel = t.group * p->task_channels;
    t.width = least(p->task_channels, p->channels - t.channel);
    t.vectors = blocks(t.width, LANES);
    t.length = length_of(p, t.item);
    t.from = least(t.segment * p->segment_steps, t.length);
    t.to = least(t.from + p->segment_steps, t.length);
    return t;
}

/* frame of the `step`-th processed one, and how far the next one is */
INLINE int64_t frame_of(const scan_args *p, int64_t length, int64_t step) {
    return p->reverse ? length - 1 - step : step;
}
INLINE int64_t by(const scan_args *p) { return p->reverse ? -1 : 1; }

/* the states of `LANES` channels before chunk `chunk`, chunk >= 1 */
INLINE vf *start_of(const scan_args *p, int64_t item, int64_t vector, int64_t chunk) {
    int64_t vectors = blocks(p->channels, LANES), chunks = blocks(p->time, FRAMES) - 1;
    return (vf *)p->starts + ((item * vectors + vector) * chunks + chunk - 1) * p->states;
}

INLINE int lanes_at(const scan_args *p, int64_t channel) { return (int)least(p->channels - channel, LANES); }

INLINE vf channel_values(const float *values, int64_t channel, int lanes) {
    return values ? load(values + channel, FLOAT32, lanes) : (vf){0};
}

/* rows of `states` numbers a channel <-> one vector of channels a state; zeros from no rows */
INLINE void gather_states(const float *restrict rows, int64_t states, int lanes, vf *restrict vectors) {
    float *to = (float *)vectors;
    if (!rows || lanes < LANES) memset(vectors, 0, sizeof(vf) * (size_t)states);
    if (!rows) return;
    for (int64_t n = 0; n < states; n++)
        for (int i = 0; i < lanes; i++) to[n * LANES + i] = rows[i * states + n];
}

INLINE void scatter_states(const vf *restrict vectors, int64_t states, int lanes, float *restrict rows) {
    const float *from = (const float *)vectors;
    for (int i = 0; i < lanes; i++)
        for (int64_t n = 0; n < states; n++) rows[i * states + n] = from[n * LANES + i];
}

INLINE float *state_rows(const float *rows, const scan_args *p, int64_t item, int64_t channel) {
    return rows ? (float *)rows + (item * p->channels + channel) * p->states : NULL;
}

/* the largest |dt| a lane for which exp_small() takes dt * A of every state; below zero if A has a NaN */
INLINE vf small_steps(const vf *A, int64_t states) {
    vf most = splat(1e-30f);
    vi is_nan = {0};
    for (int64_t n = 0; n < states; n++) {
        vf size = (vf)((vu)A[n] & 0x7fffffffu);
        most = choose(size > most, size, most);
        is_nan |= A[n] != A[n];
    }
    return choose(is_nan, splat(-1.0f), SMALL_EXPONENT / most);
}

INLINE int all_small(const vf *dt, int count, vf limit) {
    vi within = ~(vi){0};
    for (int s = 0; s < count; s++) within &= (vf)((vu)dt[s] & 0x7fffffffu) <= limit;
    int all = 1;
    for (int i = 0; i < LANES; i++) all &= within[i] != 0;
    return all;
}

/* B or C of a chunk: one pointer a processed frame, converted to float32 where they are not */
INLINE void chunk_rows(const scan_args *p, const view *v, const span *t, int64_t first, int count, float *room,
                       const float **rows) {
    for (int s = 0; s < count; s++)
        rows[s] = row_as_float(v, t->item, frame_of(p, t->length, first + s), p->states, room + s * p->states);
}

/* the step of a chunk's frames */
INLINE void load_steps(const scan_args *p, const span *t, int64_t channel, int64_t first, int count, int lanes,
                       vf *step, vf *dt) {
    vf bias = channel_values(p->bias, channel, lanes);
    load_rows(&p->delta, t->item, frame_of(p, t->length, first), by(p), channel, count, lanes, step);
    for (int s = 0; s < count; s++) {
        step[s] += bias;
        dt[s] = p->softplus ? softplus_of(step[s], exp_minus_abs(step[s])) : step[s];
    }
}

/* `slot`: the thread, or where time is cut the task's number in its segment */
INLINE partial partial_sums(const scan_args *p, const span *t, const view *result, float *scratch, int64_t slot) {
    float *rows = scratch + slot * p->time * p->task_channels;
    return partial_of(result, t->item, t->channel, rows, p->task_channels);
}

INLINE int64_t scratch_floats(const scan_args *p, const view *result, int64_t slots) {
    int wanted = p->directions == 2 && result->data && result->type != FLOAT32;
    return wanted ? slots * p->time * p->task_channels : 0;
}

/* What the tasks of a segmented pass tell those of other segments, one record a task: for each vector of
 * channels the state (or its gradient) after the segment, from zero before it, and the sum of dt. */
INLINE vf *record_of(const scan_args *p, vf *records, const span *t, int64_t segment) {
    int64_t vectors = p->task_channels / LANES * (p->states + 1);
    return records + ((segment * p->batch + t->item) * groups_of(p) + t->group) * vectors;
}

/* state = exp(A * sum of dt) * state + what the segment added */
INLINE void pass_segment(const vf *record, const vf *A, vf *state, int64_t vectors, int64_t states) {
    for (int64_t v = 0; v < vectors; v++)
        for (int64_t n = 0; n < states; n++) {
            int64_t i = v * states + n;
            state[i] = exp_any(record[vectors * states + v] * A[i]) * state[i] + record[i];
        }
}

#endif
