/* Depthwise convolution over time with SiLU, forward and backward, causal or with a view ahead.
 *
 * Steps are counted in the order of processing; step -1 is the newest input of the initial state, and
 *     pre(s) = bias + sum over k of weight[k] input(s + ahead - width + 1 + k),   out(s) = silu(pre(s)).
 * A piece of time is copied into a buffer first, a vector of channels wide and in the order of steps, with
 * what stands before and after the utterance in its place. Forward tasks are pieces of time times groups
 * of channels; backward tasks run over the whole time, so that each channel's weight gradient is added up
 * by one task and an utterance at a time. */
#include "vectors.h"

enum { PIECE = 128, MAX_WIDTH = 64, BLOCK = 8, FORWARD_CHANNELS = 64, BACKWARD_CHANNELS = 16 };

/* Every member is 8 bytes, in the order of conv/cpu.py; members after `last` serve the backward pass only.
 * With two directions the kernels get two of these, which share sizes, lengths, x and its gradient. */
typedef struct {
    int64_t batch, time, channels, width, silu, reverse, ahead, directions, threads;
    const int64_t *lengths;     /* (batch) or NULL */
    view x, out;                /* (batch, time, channels) */
    const float *weight, *bias; /* (channels, width); (channels) or NULL */
    const float *initial;       /* (batch, channels, width) or NULL */
    float *last;                /* (batch, channels, width) or NULL */
    view grad_out, grad_x;
    const float *grad_last;     /* (batch, channels, width) or NULL */
    float *grad_weight, *grad_bias, *grad_initial; /* the last two may be NULL */
    float *sums;                /* (batch, channels, width + 1): each utterance's part of both gradients */
} conv_args;

/* whether a backward task's direction is the only one, the first or the second of two */
enum { ALONE, FIRST, SECOND };

INLINE int64_t length_of(const conv_args *p, int64_t item) { return frames_within(p->lengths, item, p->time); }
INLINE int lanes_at(const conv_args *p, int64_t channel) { return (int)least(p->channels - channel, LANES); }
INLINE int64_t by(const conv_args *p) { return p->reverse ? -1 : 1; }
INLINE int64_t frame_of(const conv_args *p, int64_t length, int64_t step) {
    return p->reverse ? length - 1 - step : step;
}

/* column `k` of (.., channels, width) numbers, as a vector of channels */
INLINE vf column(const float *rows, int64_t width, int64_t k, int lanes) {
    vf x = {0};
    for (int i = 0; i < lanes; i++) x[i] = rows[i * width + k];
    return x;
}

/* the rows of a view from step `from` to step `to`; zeros before the first and past the last */
static void load_steps(const conv_args *p, const view *v, int64_t item, int64_t channel, int64_t from, int64_t to,
                       vf *rows) {
    int64_t length = length_of(p, item), first = from > 0 ? least(from, to) : least(0, to);
    int64_t end = least(to, length) > first ? least(to, length) : first;
    memset(rows, 0, sizeof(vf) * (size_t)(first - from));
    if (end > first)
        load_rows(v, item, frame_of(p, length, first), by(p), channel, (int)(end - first), lanes_at(p, channel),
                  rows + (first - from));
    memset(rows + (end - from), 0, sizeof(vf) * (size_t)(to - end));
}

/* the inputs from step `from` >= -width to step `to`, those of the initial state included */
static void load_inputs(const conv_args *p, int64_t item, int64_t channel, int64_t from, int64_t to, vf *rows) {
    load_steps(p, &p->x, item, channel, from, to, rows);
    const float *initial = p->initial ? p->initial + (item * p->channels + channel) * p->width : NULL;
    for (int64_t s = from; initial && s < 0 && s < to; s++)
        rows[s - from] = column(initial, p->width, p->width + s, lanes_at(p, channel));
}

/* y[j] = bias + sum over k of weight[k] x[j + k], rounded up to whole blocks of j */
INLINE void filter(int W, const vf *restrict weight, vf bias, const vf *restrict x, int64_t count, vf *restrict y) {
    for (int64_t j = 0; j < count; j += BLOCK) {
        vf sum[BLOCK];
        for (int i = 0; i < BLOCK; i++) sum[i] = bias;
        for (int k = 0; k < W; k++)
            for (int i = 0; i < BLOCK; i++) sum[i] += weight[k] * x[j + k + i];
        for (int i = 0; i < BLOCK; i++) y[j + i] = sum[i];
    }
}

static void filter_steps(int64_t W, const vf *weight, vf bias, const vf *x, int64_t count, vf *y) {
    if (W == 4) filter(4, weight, bias, x, count, y);
    else filter((int)W, weight, bias, x, count, y);
}

static void forward_steps(const conv_args *p, int64_t item, int64_t channel, int64_t length, int64_t from,
                          int64_t to) {
    vf weight[MAX_WIDTH], in[PIECE + MAX_WIDTH + BLOCK], y[PIECE + BLOCK];
    int lanes = lanes_at(p, channel);
    int64_t W = p->width, first = from + p->ahead - W + 1;
    for (int64_t k = 0; k < W; k++) weight[k] = column(p->weight + channel * W, W, k, lanes);
    load_inputs(p, item, channel, first, to + p->ahead, in);
    memset(in + (to + p->ahead - first), 0, sizeof(vf) * BLOCK);
    filter_steps(W, weight, p->bias ? load(p->bias + channel, FLOAT32, lanes) : (vf){0}, in, to - from, y);
    if (p->silu)
        for (int64_t j = 0; j < to - from; j++) y[j] *= logistic(y[j]);
    store_rows(&p->out, item, frame_of(p, length, from), by(p), channel, (int)(to - from), lanes, y);
}

/* the frames from `begin` on, a piece of them */
static void forward_task(const conv_args *p, int64_t item, int64_t begin, int64_t channel, int64_t end) {
    int64_t length = length_of(p, item), until = least(begin + PIECE, p->time), valid = least(until, length);
    int64_t from = p->reverse ? length - valid : begin, to = p->reverse ? length - begin : valid;
    vf last[MAX_WIDTH];
    for (int64_t c = channel; c < end && begin < valid; c += LANES) forward_steps(p, item, c, length, from, to);
    zero_frames(&p->out, item, begin > length ? begin : length, until, channel, end - channel);
    for (int64_t c = channel; c < end && begin == 0 && p->last; c += LANES) {
        load_inputs(p, item, c, length - p->width, length, last);
        for (int64_t k = 0; k < p->width; k++)
            for (int i = 0; i < lanes_at(p, c); i++) p->last[(item * p->channels + c + i) * p->width + k] = last[k][i];
    }
}

/* `p` is one direction, or two */
int mamba_speech_conv_forward(const conv_args *p) {
    int64_t groups = blocks(p->channels, FORWARD_CHANNELS), pieces = p->time > 0 ? blocks(p->time, PIECE) : 1;
    int64_t tasks = p->batch * pieces * groups;
    int threads = threads_for(p->threads, tasks, p->directions * p->batch * p->time * p->channels / LANES * p->width);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t task = 0; task < tasks; task++) {
            int64_t channel = task % groups * FORWARD_CHANNELS, rest = task / groups;
            int64_t end = least(channel + FORWARD_CHANNELS, p->channels);
            for (int d = 0; d < p->directions; d++)
                forward_task(p + d, rest / pieces, rest % pieces * PIECE, channel, end);
        }
        restore_denormals(before);
    }
    return 0;
}

/* one vector of channels on its way back */
typedef struct {
    vf weight[MAX_WIDTH], mirrored[MAX_WIDTH], grad_weight[MAX_WIDTH], bias, grad_bias;
    vf in[PIECE + 2 * MAX_WIDTH + BLOCK], pre[PIECE + MAX_WIDTH + BLOCK];
    vf grad_pre[PIECE + MAX_WIDTH + BLOCK], grad[PIECE + BLOCK];
} work;

/* The gradient of pre from step `from` to step `to`, and what it adds to those of weight and bias. */
static void back_to_pre(const conv_args *p, work *w, int64_t item, int64_t channel, int64_t from, int64_t to,
                        vf *grad_pre) {
    int64_t W = p->width, length = length_of(p, item), first = from > 0 ? from : 0, end = least(to, length);
    load_steps(p, &p->grad_out, item, channel, from, to, grad_pre);
    if (end <= first) return;
    vf *g = grad_pre + (first - from);
    int64_t count = end - first, oldest = first + p->ahead - W + 1;
    load_inputs(p, item, channel, oldest, end + p->ahead, w->in);
    memset(w->in + (end + p->ahead - oldest), 0, sizeof(vf) * BLOCK);
    if (p->silu) {
        filter_steps(W, w->weight, w->bias, w->in, count, w->pre);
        for (int64_t j = 0; j < count; j++) {
            vf y = w->pre[j], sigmoid = logistic(y);
            g[j] *= sigmoid * (y * (1.0f - sigmoid) + 1.0f);
        }
    }
    for (int64_t j = 0; j < count; j++) w->grad_bias += g[j];
    for (int64_t k = 0; k < W; k += 4) {
        vf sum[4] = {{0}, {0}, {0}, {0}};
        for (int64_t j = 0; j < count; j++)
            for (int i = 0; i < 4; i++) sum[i] += g[j] * w->in[j + k + i];
        for (int i = 0; i < 4; i++) w->grad_weight[k + i] += sum[i];
    }
}

/* The gradient of the inputs from step `from` to step `to`, to where it belongs. */
static void leave(const conv_args *p, const work *w, int part, const partial *sums, int64_t item, int64_t channel,
                  int64_t from, int64_t to) {
    int lanes = lanes_at(p, channel);
    int64_t length = length_of(p, item), place = item * p->channels + channel, W = p->width;
    for (int64_t s = from; s < 0 && s < to; s++)
        for (int i = 0; i < lanes; i++) p->grad_initial[(place + i) * W + W + s] = w->grad[s - from][i];
    int64_t first = from > 0 ? from : 0, count = to - first;
    if (count <= 0) return;
    const vf *grad = w->grad + (first - from);
    int64_t frame = frame_of(p, length, first);
    vf total[PIECE];
    if (part == FIRST) {
        store_rows(&sums->rows, sums->item, frame, by(p), channel - sums->channel, (int)count, lanes, grad);
        return;
    }
    if (part == SECOND) {
        load_rows(&sums->rows, sums->item, frame, by(p), channel - sums->channel, (int)count, lanes, total);
        for (int64_t j = 0; j < count; j++) total[j] += grad[j];
    }
    store_rows(&p->grad_x, item, frame, by(p), channel, (int)count, lanes, part == SECOND ? total : grad);
}

static void backward_vector(const conv_args *p, work *w, int part, const partial *sums, int64_t item,
                            int64_t channel) {
    int lanes = lanes_at(p, channel);
    int64_t W = p->width, length = length_of(p, item), place = item * p->channels + channel;
    w->bias = p->bias ? load(p->bias + channel, FLOAT32, lanes) : (vf){0};
    w->grad_bias = (vf){0};
    memset(w->grad_weight, 0, sizeof w->grad_weight);
    for (int64_t k = 0; k < W; k++) w->weight[k] = w->mirrored[W - 1 - k] = column(p->weight + channel * W, W, k, lanes);
    int64_t start = p->grad_initial ? -W : 0, known = 0;
    for (int64_t from = start; from < length; from += PIECE) {
        /* inputs of steps `from` to `to` are used by the outputs of W - 1 more steps than they are */
        int64_t to = least(from + PIECE, length), until = to - p->ahead + W - 1;
        back_to_pre(p, w, item, channel, from - p->ahead + known, until, w->grad_pre + known);
        memset(w->grad_pre + (to - from + W - 1), 0, sizeof(vf) * BLOCK);
        filter_steps(W, w->mirrored, (vf){0}, w->grad_pre, to - from, w->grad);
        for (int64_t s = from > length - W ? from : length - W; p->grad_last && s < to; s++)
            w->grad[s - from] += column(p->grad_last + place * W, W, s - length + W, lanes);
        leave(p, w, part, sums, item, channel, from, to);
        known = W - 1;
        memmove(w->grad_pre, w->grad_pre + (to - from), sizeof(vf) * (size_t)known);
    }
    for (int i = 0; i < lanes; i++) {
        float *row = p->sums + (place + i) * (W + 1);
        for (int64_t k = 0; k < W; k++) row[k] = w->grad_weight[k][i];
        row[W] = w->grad_bias[i];
    }
}

static void add_utterances(const conv_args *p, int64_t channel) {
    for (int64_t k = 0; k <= p->width; k++) {
        float sum = 0.0f;
        for (int64_t item = 0; item < p->batch; item++)
            sum += p->sums[(item * p->channels + channel) * (p->width + 1) + k];
        if (k < p->width) p->grad_weight[channel * p->width + k] = sum;
        else if (p->grad_bias) p->grad_bias[channel] = sum;
    }
}

/* all of one utterance and a group of channels, in each direction */
static void backward_task(const conv_args *p, work *w, float *scratch, int64_t item, int64_t channel) {
    int64_t end = least(channel + BACKWARD_CHANNELS, p->channels);
    partial sums = partial_of(&p->grad_x, item, channel, scratch, BACKWARD_CHANNELS);
    for (int d = 0; d < p->directions; d++) {
        int part = p->directions == 1 ? ALONE : d ? SECOND : FIRST;
        for (int64_t c = channel; c < end; c += LANES) backward_vector(p + d, w, part, &sums, item, c);
    }
    zero_frames(&p->grad_x, item, length_of(p, item), p->time, channel, end - channel);
}

/* Returns 0, or 1 if memory is short. `p` is one direction, or two. */
int mamba_speech_conv_backward(const conv_args *p) {
    int64_t groups = blocks(p->channels, BACKWARD_CHANNELS), tasks = p->batch * groups;
    int64_t work_size = p->directions * 3 * p->batch * p->time * p->channels / LANES * p->width;
    int threads = threads_for(p->threads, tasks, work_size);
    int64_t scratch = p->directions == 2 && p->grad_x.type != FLOAT32 ? p->time * BACKWARD_CHANNELS / LANES : 0;
    int64_t each = (int64_t)(sizeof(work) / sizeof(vf)) + scratch;
    vf *all = vector_room(threads * each);
    if (!all) return 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
        work *w = (work *)(all + thread_number() * each);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++)
            backward_task(p, w, (float *)(w + 1), task / groups, task % groups * BACKWARD_CHANNELS);
        for (int d = 0; d < p->directions; d++) {
#pragma omp for schedule(static) nowait
            for (int64_t channel = 0; channel < p->channels; channel++) add_utterances(p + d, channel);
        }
        restore_denormals(before);
    }
    free(all);
    return 0;
}
