/* Parts of one frame that the kernels of an encoder's layer (frame.c) and of a decoder's layer (decoder.c) share. */
#ifndef MAMBA_SPEECH_FRAME_H
#define MAMBA_SPEECH_FRAME_H

#include "vectors.h"
#include <math.h>

typedef struct {
    const float *weight, *bias; /* the bias may be NULL */
} affine;

typedef struct {
    const float *weight, *bias;
    double eps;
} norm;

typedef float loose __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE vf take(const float *p) { return (vf) * (const loose *)p; }
INLINE void put(float *p, vf x) { *(loose *)p = (loose)x; }

INLINE float total(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sums[LANES];
    for (int i = 0; i < LANES; i++) sums[i] = x[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
#endif
}

INLINE float dot(const float *a, const float *b, int64_t n) {
    vf sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += take(a + i) * take(b + i);
    float rest = 0;
    for (; i < n; i++) rest += a[i] * b[i];
    return total(sum) + rest;
}

INLINE void normalise(const norm *p, const float *x, float *out, int64_t n) {
    vf sum = {0}, squares = {0};
    float rest = 0, rest_squares = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum += take(x + i);
    for (; i < n; i++) rest += x[i];
    float mean = (total(sum) + rest) / (float)n;
    for (i = 0; i + LANES <= n; i += LANES) {
        vf d = take(x + i) - mean;
        squares += d * d;
    }
    for (; i < n; i++) rest_squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf((total(squares) + rest_squares) / (float)n + (float)p->eps);
    for (i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * (p->weight ? p->weight[i] : 1.0f) + (p->bias ? p->bias[i] : 0.0f);
}

/* 1 + erf(x / sqrt(2)); absolute error 2e-7. Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26. */
INLINE vf one_plus_erf(vf x) {
    vf z = (vf)((vu)x & 0x7fffffffu) * 0.707106781f;
    vf t = splat(1.0f) / (z * 0.3275911f + 1.0f);
    vf p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    vf small = p * t * exp_negative(-z * z);
    return choose(x < 0.0f, small, splat(2.0f) - small);
}

/* in place; the array has room for whole vectors */
INLINE void activate(int64_t swish, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        vf v = take(x + i);
        put(x + i, swish ? v * logistic(v) : v * 0.5f * one_plus_erf(v));
    }
}

/* each channel's last inputs moved on by one, and the convolution over them; `kept` of them lie in the state */
INLINE void convolve(const affine *a, const float *in, float *kept_out, const float *new, float *out, int64_t channels,
                     int64_t kept, int64_t taps) {
    for (int64_t c = 0; c < channels; c++) {
        const float *past = in + (c + 1) * kept - (taps - 1), *w = a->weight + c * taps;
        out[c] = dot(past, w, taps - 1) + new[c] * w[taps - 1] + (a->bias ? a->bias[c] : 0.0f);
        float *next = kept_out + c * kept;
        if (kept > 1) memcpy(next, in + c * kept + 1, sizeof(float) * (size_t)(kept - 1));
        if (kept) next[kept - 1] = new[c];
    }
}

/* the recurrence of one channel, and its output */
INLINE float advance(float dt, float x, const float *A, const float *B, const float *C, const float *h, float *next,
                     int64_t states) {
    vf sum = {0};
    float rest = 0;
    int64_t n = 0;
    for (; n + LANES <= states; n += LANES) {
        vf state = exp_any(take(A + n) * dt) * take(h + n) + take(B + n) * x;
        put(next + n, state);
        sum += state * take(C + n);
    }
    for (; n < states; n++) {
        next[n] = expf(A[n] * dt) * h[n] + B[n] * x;
        rest += next[n] * C[n];
    }
    return total(sum) + rest;
}

#endif
