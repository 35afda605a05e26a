/* What the scan's two passes share: their arguments, and frames prepared for the recurrence. */
#ifndef MAMBA_SPEECH_SCAN_H
#define MAMBA_SPEECH_SCAN_H

#include "vectors.h"

/* Frames a chunk: one state in so many is kept for the backward pass, which computes the others again. */
enum { FRAMES = 16 };

/* Every member is 8 bytes, in the order of scan/cpu.py. Views are (batch, time, channels or states); the
 * float32 arrays are contiguous. Members after `starts` serve the backward pass only. */
typedef struct {
    int64_t batch, time, channels, states, softplus, reverse, threads;
    const int64_t *lengths;   /* (batch) or NULL */
    view u, delta, z, B, C, out;
    const float *A;           /* (channels, states) */
    const float *D, *bias;    /* (channels) or NULL */
    const float *initial;     /* (batch, channels, states) or NULL */
    float *last;              /* (batch, channels, states) */
    float *starts;            /* state before every chunk but the first, laid out by start_of(); or NULL */
    view grad_out, grad_u, grad_delta, grad_z, grad_B, grad_C;
    const float *grad_last;   /* (batch, channels, states) or NULL */
    float *grad_A, *grad_D, *grad_bias, *grad_initial;
    float *sums_A;            /* (batch, channels, states): each utterance's part of grad_A */
    float *sums_channel;      /* (2, batch, channels): of grad_D and grad_bias */
    float *sums_B, *sums_C;   /* (slots, batch, time, states): each slot of channels' part of grad_B, grad_C;
                                 with one slot it may be the gradient itself */
    int64_t slot_channels;    /* channels a slot, a multiple of LANES but for the last */
} scan_args;

INLINE int64_t length_of(const scan_args *p, int64_t item) { return p->lengths ? p->lengths[item] : p->time; }

/* frame of the `step`-th processed one */
INLINE int64_t frame_of(const scan_args *p, int64_t length, int64_t step) {
    return p->reverse ? length - 1 - step : step;
}

/* the states of `LANES` channels before chunk `chunk`, chunk >= 1 */
INLINE vf *start_of(const scan_args *p, int64_t item, int64_t vector, int64_t chunk) {
    int64_t vectors = (p->channels + LANES - 1) / LANES, chunks = (p->time + FRAMES - 1) / FRAMES - 1;
    return (vf *)p->starts + ((item * vectors + vector) * chunks + chunk - 1) * p->states;
}

INLINE int lanes_at(const scan_args *p, int64_t channel) {
    return p->channels - channel < LANES ? (int)(p->channels - channel) : LANES;
}

/* rows of `states` numbers a channel <-> one vector of channels a state */
INLINE void gather_states(const float *restrict rows, int64_t states, int lanes, vf *restrict vectors) {
    float *to = (float *)vectors;
    if (lanes < LANES) memset(vectors, 0, sizeof(vf) * (size_t)states);
    for (int64_t n = 0; n < states; n++)
        for (int i = 0; i < lanes; i++) to[n * LANES + i] = rows[i * states + n];
}

INLINE void scatter_states(const vf *restrict vectors, int64_t states, int lanes, float *restrict rows) {
    const float *from = (const float *)vectors;
    for (int i = 0; i < lanes; i++)
        for (int64_t n = 0; n < states; n++) rows[i * states + n] = from[n * LANES + i];
}

/* whether no exponent dt * A can be positive, so that exp needs no upper bound */
INLINE int never_positive(const scan_args *p, const vf *A) {
    if (!p->softplus) return 0;
    vi within = ~(vi){0};
    for (int64_t n = 0; n < p->states; n++) within &= A[n] <= splat(0.0f);
    int all = 1;
    for (int i = 0; i < LANES; i++) all &= within[i] != 0;
    return all;
}

/* B and C of a chunk: one pointer a processed frame, converted to float32 where they are not */
INLINE void chunk_rows(const scan_args *p, const view *v, int64_t item, int64_t length, int64_t first, int count,
                       float *room, const float **rows) {
    for (int s = 0; s < count; s++)
        rows[s] = row_as_float(v, item, frame_of(p, length, first + s), p->states, room + s * p->states);
}

#endif
