/* Causal depthwise convolution over time with SiLU, forward and backward.
 *
 * Steps are counted in the order of processing; step -1 is the newest input of the initial state, and
 *     pre(s) = bias + sum over k of weight[k] input(s - width + 1 + k),   out(s) = silu(pre(s)).
 * Forward tasks are pieces of time times groups of channels; backward tasks run over the whole time, so
 * that each channel's weight gradient is added up by one task and an utterance at a time. */
#include "vectors.h"

enum { PIECE = 128, MAX_WIDTH = 64 };

/* Every member is 8 bytes, in the order of conv/cpu.py; members after `last` serve the backward pass only. */
typedef struct {
    int64_t batch, time, channels, width, silu, reverse, threads;
    const int64_t *lengths;     /* (batch) or NULL */
    view x, out;                /* (batch, time, channels) */
    const float *weight, *bias; /* (channels, width); (channels) or NULL */
    const float *initial;       /* (batch, channels, width) or NULL */
    float *last;                /* (batch, channels, width) */
    view grad_out, grad_x;
    const float *grad_last;     /* (batch, channels, width) or NULL */
    float *grad_weight, *grad_bias, *grad_initial; /* the last may be NULL */
    float *sums;                /* (batch, channels, width + 1): each utterance's part of both gradients */
} conv_args;

INLINE int64_t length_of(const conv_args *p, int64_t item) { return p->lengths ? p->lengths[item] : p->time; }

INLINE int lanes_at(const conv_args *p, int64_t channel) {
    return p->channels - channel < LANES ? (int)(p->channels - channel) : LANES;
}

INLINE int64_t frame_of(const conv_args *p, int64_t length, int64_t step) {
    return p->reverse ? length - 1 - step : step;
}

/* column `k` of (.., channels, width) numbers, as a vector of channels */
INLINE vf column(const float *rows, int64_t width, int64_t k, int lanes) {
    vf x = {0};
    for (int i = 0; i < lanes; i++) x[i] = rows[i * width + k];
    return x;
}

/* the input at `step` >= -width: of the utterance, of the initial state, or zeros */
INLINE vf input(const conv_args *p, int64_t item, int64_t channel, int lanes, int64_t length, int64_t step) {
    if (step >= 0) return load(at(&p->x, item, frame_of(p, length, step), channel), p->x.type, lanes);
    if (!p->initial) return (vf){0};
    return column(p->initial + (item * p->channels + channel) * p->width, p->width, p->width + step, lanes);
}

INLINE void forward_steps(int W, const conv_args *p, int64_t item, int64_t channel, int64_t length, int64_t from,
                          int64_t to) {
    vf weight[MAX_WIDTH], window[MAX_WIDTH];
    int lanes = lanes_at(p, channel);
    vf bias = p->bias ? load(p->bias + channel, FLOAT32, lanes) : (vf){0};
    for (int k = 0; k < W; k++) weight[k] = column(p->weight + channel * W, W, k, lanes);
    for (int k = 1; k < W; k++) window[k] = input(p, item, channel, lanes, length, from - W + k);
    for (int64_t s = from; s < to; s++) {
        for (int k = 0; k < W - 1; k++) window[k] = window[k + 1];
        int64_t t = frame_of(p, length, s);
        window[W - 1] = load(at(&p->x, item, t, channel), p->x.type, lanes);
        vf y = bias;
        for (int k = 0; k < W; k++) y += weight[k] * window[k];
        if (p->silu) y *= sigmoid_of(y, exp_minus_abs(y));
        store(at(&p->out, item, t, channel), p->out.type, lanes, y);
    }
}

static void forward_task(const conv_args *p, int64_t item, int64_t from, int64_t channel, int64_t end) {
    int64_t length = length_of(p, item), until = from + PIECE < p->time ? from + PIECE : p->time;
    int64_t to = until < length ? until : length;
    for (int64_t c = channel; c < end && from < to; c += LANES) {
        if (p->width == 4) forward_steps(4, p, item, c, length, from, to);
        else forward_steps((int)p->width, p, item, c, length, from, to);
    }
    zero_frames(&p->out, item, from > length ? from : length, until, channel, end - channel);
    if (from) return;
    for (int64_t c = channel; c < end; c += LANES) {
        int lanes = lanes_at(p, c);
        for (int64_t k = 0; k < p->width; k++) {
            vf x = input(p, item, c, lanes, length, length - p->width + k);
            for (int i = 0; i < lanes; i++) p->last[(item * p->channels + c + i) * p->width + k] = x[i];
        }
    }
}

int mamba_speech_conv_forward(const conv_args *p) {
    int64_t width = 64, groups = (p->channels + width - 1) / width;
    int64_t pieces = p->time > 0 ? (p->time + PIECE - 1) / PIECE : 1, tasks = p->batch * pieces * groups;
    int threads = threads_for(p->threads, tasks, p->batch * p->time * p->channels / LANES * p->width);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t task = 0; task < tasks; task++) {
            int64_t channel = task % groups * width, rest = task / groups;
            int64_t end = channel + width < p->channels ? channel + width : p->channels;
            forward_task(p, rest / pieces, rest % pieces * PIECE, channel, end);
        }
        restore_denormals(before);
    }
    return 0;
}

/* From the last step to -width: grad_pre[j] is the gradient of pre(s + j). */
INLINE void backward_steps(int W, const conv_args *p, int64_t item, int64_t channel) {
    vf weight[MAX_WIDTH], window[MAX_WIDTH], grad_pre[MAX_WIDTH], grad_weight[MAX_WIDTH];
    vf zero = {0}, grad_bias = zero;
    int lanes = lanes_at(p, channel);
    int64_t length = length_of(p, item), place = item * p->channels + channel;
    vf bias = p->bias ? load(p->bias + channel, FLOAT32, lanes) : zero;
    for (int k = 0; k < W; k++) {
        weight[k] = column(p->weight + channel * W, W, k, lanes);
        grad_weight[k] = grad_pre[k] = zero;
        /* the window of step `length`, whose oldest input is still to be used */
        window[k] = k < W - 1 ? input(p, item, channel, lanes, length, length - W + 1 + k) : zero;
    }
    for (int64_t s = length - 1; s >= -(int64_t)W; s--) {
        for (int k = W - 1; k > 0; k--) grad_pre[k] = grad_pre[k - 1];
        grad_pre[0] = zero;
        int64_t t = frame_of(p, length, s);
        if (s >= 0) {
            for (int k = W - 1; k > 0; k--) window[k] = window[k - 1];
            window[0] = input(p, item, channel, lanes, length, s - W + 1);
            vf g = load(at(&p->grad_out, item, t, channel), p->grad_out.type, lanes);
            if (p->silu) {
                vf y = bias;
                for (int k = 0; k < W; k++) y += weight[k] * window[k];
                vf sigmoid = sigmoid_of(y, exp_minus_abs(y));
                g *= sigmoid * (y * (1.0f - sigmoid) + 1.0f);
            }
            grad_pre[0] = g;
            grad_bias += g;
            for (int k = 0; k < W; k++) grad_weight[k] += g * window[k];
        }
        vf grad = zero;
        for (int k = 0; k < W; k++) grad += weight[W - 1 - k] * grad_pre[k];
        if (p->grad_last && s >= length - W) grad += column(p->grad_last + place * W, W, s - length + W, lanes);
        if (s >= 0) store(at(&p->grad_x, item, t, channel), p->grad_x.type, lanes, grad);
        else if (p->grad_initial)
            for (int i = 0; i < lanes; i++) p->grad_initial[(place + i) * W + W + s] = grad[i];
    }
    for (int i = 0; i < lanes; i++) {
        float *sums = p->sums + (place + i) * (W + 1);
        for (int k = 0; k < W; k++) sums[k] = grad_weight[k][i];
        sums[W] = grad_bias[i];
    }
}

static void backward_task(const conv_args *p, int64_t item, int64_t channel, int64_t end) {
    for (int64_t c = channel; c < end; c += LANES) {
        if (p->width == 4) backward_steps(4, p, item, c);
        else backward_steps((int)p->width, p, item, c);
    }
    zero_frames(&p->grad_x, item, length_of(p, item), p->time, channel, end - channel);
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

int mamba_speech_conv_backward(const conv_args *p) {
    int64_t width = 16, groups = (p->channels + width - 1) / width, tasks = p->batch * groups;
    int threads = threads_for(p->threads, tasks, 3 * p->batch * p->time * p->channels / LANES * p->width);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned before = flush_denormals();
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++) {
            int64_t channel = task % groups * width;
            int64_t end = channel + width < p->channels ? channel + width : p->channels;
            backward_task(p, task / groups, channel, end);
        }
#pragma omp for schedule(static) nowait
        for (int64_t channel = 0; channel < p->channels; channel++) add_utterances(p, channel);
        restore_denormals(before);
    }
    return 0;
}
