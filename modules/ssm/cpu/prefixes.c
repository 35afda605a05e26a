/* CTC prefix scores: the forward variables of the hypotheses that a beam has kept. A number lies as a double and a
 * count of how often 2^512 was multiplied in, which takes the place of logarithms: no frame needs a log or an exp.
 * The count is that of a frame: paths e^-350 times as probable as others of their frame are lost, and no beam keeps any. */
#include "vectors.h"
#include <math.h>

#define UP 0x1p+512
#define DOWN 0x1p-512
#define UNFELT 1e-109 /* as REACH in ctc_scorer.py: exp(-250) */
#define LOG_UP 354.891356446692 /* 512 log 2 */

/* Every member is 8 bytes, in the order of modules/asr/decoding/prefix_kernel.py; T1 is time + 1, states are of a frame. */
typedef struct {
    int64_t items, beam, time, vocab, blank;
    const double *probs;       /* (items / beam, vocab, time) */
    const int64_t *lengths;    /* (items / beam) */
    const int64_t *parents, *tokens; /* (items); a parent under 0 where nothing is wanted */
    const int64_t *last_in;    /* (parents), last tokens */
    const double *blank_in, *any_in; /* (parents, T1): paths that end in a blank, and all paths */
    const int64_t *scale_in;   /* (parents, T1): times 2^-512 to the power of it */
    double *blank_out, *any_out;
    int64_t *scale_out;
    double *weights;           /* (items, time): all paths before each frame over the greatest of them */
    double *told;              /* (items, 4): logs of prefix, greatest weight, last token again, all paths at the end */
    int64_t *window;           /* (2): the first frame with a weight that is felt in any item, and the one behind the last */
} prefix_args;

/* x 2^(512 k), for a number that is read at another scale */
INLINE double scaled(double x, int64_t k) {
    if (k == 0) return x;
    if (k > 2 || k < -2) return k > 0 ? x * INFINITY : 0.0;
    for (; k > 0; k--) x *= UP;
    for (; k < 0; k++) x *= DOWN;
    return x;
}

typedef struct {
    double value;
    int64_t scale;
} big;

INLINE void plus(big *sum, double x, int64_t scale) {
    if (x == 0.0) return;
    if (sum->value == 0.0) {
        *sum = (big){x, scale};
    } else if (scale >= sum->scale) {
        sum->value += scaled(x, sum->scale - scale);
    } else {
        *sum = (big){x + scaled(sum->value, scale - sum->scale), scale};
    }
    if (sum->value > UP) *sum = (big){sum->value * DOWN, sum->scale - 1};
}

INLINE double log_of(big x) { return log(x.value) - LOG_UP * (double)x.scale; }

static void advance_one(const prefix_args *p, int64_t item) {
    int64_t utterance = item / p->beam, length = frames_within(p->lengths, utterance, p->time), T1 = p->time + 1;
    int64_t parent = p->parents[item], token = p->tokens[item];
    const double *emit = p->probs + (utterance * p->vocab + token) * p->time;
    const double *rest = p->probs + (utterance * p->vocab + p->blank) * p->time;
    const double *before = (token == p->last_in[parent] ? p->blank_in : p->any_in) + parent * T1;
    const int64_t *before_scale = p->scale_in + parent * T1;
    double *blank = p->blank_out + item * T1, *any = p->any_out + item * T1;
    int64_t *scales = p->scale_out + item * T1;
    big prefix = {0, 0}, again = {0, 0};
    double n = 0, b = 0;
    int64_t scale = 0;
    blank[0] = any[0] = 0;
    scales[0] = 0;
    for (int64_t t = 0; t < length; t++) {
        double x = before[t];
        int64_t k = before_scale[t];
        if (x != 0.0) {
            plus(&prefix, x * emit[t], k);
            if (n + b == 0.0) scale = k;
            if (k < scale) { /* what enters is far greater */
                n = scaled(n, k - scale), b = scaled(b, k - scale);
                scale = k;
            }
            x = scaled(x, scale - k);
        }
        double stays = n + b;
        n = emit[t] * (n + x);
        b = rest[t] * stays;
        while (n + b < DOWN && n + b > 0.0) n *= UP, b *= UP, scale++;
        blank[t + 1] = b;
        any[t + 1] = n + b;
        scales[t + 1] = scale;
    }
    for (int64_t t = length + 1; t < T1; t++) blank[t] = any[t] = 0, scales[t] = 0;
    big peak = {0, 0};
    for (int64_t t = 0; t < length; t++) {
        plus(&again, blank[t] * emit[t], scales[t]);
        big one = {any[t], scales[t]};
        if (one.value != 0.0 && (peak.value == 0.0 || one.scale < peak.scale ||
                                 (one.scale == peak.scale && one.value > peak.value)))
            peak = one;
    }
    double *weights = p->weights + item * p->time, over = peak.value == 0.0 ? 0.0 : 1.0 / peak.value;
    for (int64_t t = 0; t < p->time; t++) {
        double weight = t < length ? scaled(any[t], peak.scale - scales[t]) * over : 0.0;
        weights[t] = weight;
        if (weight < UNFELT) continue;
        if (t < p->window[0]) p->window[0] = t;
        if (t >= p->window[1]) p->window[1] = t + 1;
    }
    double *told = p->told + 4 * item;
    told[0] = log_of(prefix);
    told[1] = peak.value == 0.0 ? 0.0 : log_of(peak);
    told[2] = log_of(again);
    told[3] = log_of((big){any[length], scales[length]});
}

int mamba_speech_prefixes_advance(const prefix_args *p) {
    p->window[0] = p->time;
    p->window[1] = 0;
    for (int64_t item = 0; item < p->items; item++) {
        if (p->parents[item] >= 0) {
            advance_one(p, item);
            continue;
        }
        memset(p->weights + item * p->time, 0, sizeof(double) * (size_t)p->time);
        memset(p->told + 4 * item, 0, 4 * sizeof(double));
    }
    return 0;
}
