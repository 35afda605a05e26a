/* Vectors of channels: arithmetic, exp, softplus, the logistic function, and rows of float32, bfloat16 or float16
 * tensors as vectors. GCC's and Clang's vector extensions carry it, so that any processor compiles it;
 * intrinsics stand only where those extensions have no word for an instruction. */
#ifndef MAMBA_SPEECH_VECTORS_H
#define MAMBA_SPEECH_VECTORS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

/* frames of an utterance; compiled graphs do not check lengths, and memory outside must stay untouched */
INLINE int64_t frames_within(const int64_t *lengths, int64_t item, int64_t time) {
    if (!lengths) return time;
    return lengths[item] < 0 ? 0 : least(lengths[item], time);
}

INLINE vf splat(float x) { return x - (vf){0}; }

INLINE vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* max and min with a constant; NaN in x stays NaN */
INLINE vf at_least(vf x, float low) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps(_mm512_set1_ps(low), (__m512)x);
#elif defined(__AVX__)
    return (vf)_mm256_max_ps(_mm256_set1_ps(low), (__m256)x);
#else
    return choose(x < splat(low), splat(low), x);
#endif
}

INLINE vf at_most(vf x, float high) {
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps(_mm512_set1_ps(high), (__m512)x);
#elif defined(__AVX__)
    return (vf)_mm256_min_ps(_mm256_set1_ps(high), (__m256)x);
#else
    return choose(x > splat(high), splat(high), x);
#endif
}

/* x - n ln(2). Where the product is rounded before it is subtracted, ln(2) comes in two parts, the first of so
 * few bits that its product is exact; the rounding of one of about 86 would cost 4e-6. */
INLINE vf less_n_ln2(vf x, vf n) {
#if defined(__FMA__) || defined(__aarch64__) || defined(__FP_FAST_FMAF)
    return x - n * 0.693147182f;
#else
    return (x - n * 0.693359375f) + n * 2.12194440e-4f;
#endif
}

/* exp(x) for x at or above -88 once clamped: 2^n e^r with |r| <= ln(2) / 2. Adding 1.5 * 2^23 + 127 rounds
 * to the integer n and leaves n + 127, a float's exponent field, in the low bits; -ffast-math would
 * cancel that sum. exp(0) is exactly 1, relative error 4e-7 at most, 0 below -88 and inf above 88.4. */
INLINE vf exp_floored(vf x) {
    const float rounder = 12583039.0f;
    vf shifted = x * 1.44269502f + rounder;
    vf r = less_n_ln2(x, shifted - rounder);
    vf p = r * 0.0083124777f + 0.0418905504f;
    p = p * r + 0.166671157f;
    p = p * r + 0.499992281f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (vf)((vu)shifted << 23);
}

/* exp(x) for |x| <= SMALL_EXPONENT only: n goes to the exponent by an integer addition, off the busy
 * multiplication units, and nothing is clamped. Relative error as above; exp(0) is exactly 1. (2^(a b) with log2(e) in a
 * saves the product a multiplication, and loses 5e-6 at exponents near the limit.) */
#define SMALL_EXPONENT 86.0f
INLINE vf exp_small(vf x) {
    const float rounder = 12582912.0f;
    vf shifted = x * 1.44269502f + rounder;
    vf r = less_n_ln2(x, shifted - rounder);
    vf p = r * 0.0083124777f + 0.0418905504f;
    p = p * r + 0.166671157f;
    p = p * r + 0.499992281f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (vf)((vu)p + ((vu)shifted << 23));
}

INLINE vf exp_any(vf x) { return exp_floored(at_most(at_least(x, -88.0f), 88.8f)); }
INLINE vf exp_negative(vf x) { return exp_floored(at_least(x, -88.0f)); }

INLINE vf exp_minus_abs(vf x) { return exp_negative((vf)((vu)x | 0x80000000u)); }

/* log(1 + e^x), given e = exp(-|x|): max(x, 0) + 2 atanh(e / (2 + e)) */
INLINE vf softplus_of(vf x, vf e) {
    vf s = e / (e + 2.0f);
    vf q = s * s;
    vf p = q * 0.280119956f + 0.280018032f;
    p = p * q + 0.400215268f;
    p = p * q + 0.666664183f;
    return at_least(x, 0.0f) + s * (p * q + 2.0f);
}

INLINE vf logistic(vf x) { return splat(1.0f) / (exp_any(-x) + 1.0f); }

/* sums[n] = the sum over the lanes of x[n] */
INLINE void lane_sums(const vf *x, int64_t count, float *sums) {
    int64_t n = 0;
#if defined(__AVX__) && LANES == 8
    for (; n + 8 <= count; n += 8) {
        const __m256 *row = (const __m256 *)(x + n);
        __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(row[0], row[1]), _mm256_hadd_ps(row[2], row[3]));
        __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(row[4], row[5]), _mm256_hadd_ps(row[6], row[7]));
        __m256 first = _mm256_permute2f128_ps(low, high, 0x20), second = _mm256_permute2f128_ps(low, high, 0x31);
        _mm256_storeu_ps(sums + n, _mm256_add_ps(first, second));
    }
#endif
    for (; n < count; n++) {
        float sum = 0.0f;
        for (int i = 0; i < LANES; i++) sum += x[n][i];
        sums[n] = sum;
    }
}

/* A tensor (batch, time, channels) with unit stride over channels; strides count elements. */
enum { FLOAT32, BFLOAT16, FLOAT16 };
typedef struct {
    void *data; /* NULL: the tensor was not given */
    int64_t batch_stride, time_stride, type;
} view;

INLINE vf bfloat16_to_float(vh x) { return (vf)(__builtin_convertvector(x, vu) << 16); }

/* round to nearest, ties to even */
INLINE vh float_to_bfloat16(vf x) {
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    vu is_nan = (vu)(x != x);
    return __builtin_convertvector((is_nan & 0x7fc0u) | (~is_nan & rounded), vh);
}

#if defined(__F16C__)
#if LANES == 16
INLINE vf float16_to_float(vh x) { return (vf)_mm512_cvtph_ps((__m256i)x); }
INLINE vh float_to_float16(vf x) { return (vh)_mm512_cvtps_ph((__m512)x, 0); }
#else
INLINE vf float16_to_float(vh x) { return (vf)_mm256_cvtph_ps((__m128i)x); }
INLINE vh float_to_float16(vf x) { return (vh)_mm256_cvtps_ph((__m256)x, 0); }
#endif
#elif defined(__aarch64__)
typedef __fp16 native_half __attribute__((vector_size(2 * LANES)));
INLINE vf float16_to_float(vh x) { return __builtin_convertvector((native_half)x, vf); }
INLINE vh float_to_float16(vf x) { return (vh)__builtin_convertvector(x, native_half); }
#else
/* Exact for every number, denormal ones included, and whether or not denormal float32 numbers are flushed. */
INLINE vf float16_to_float(vh x) {
    vu bits = __builtin_convertvector(x, vu), magnitude = bits & 0x7fffu;
    vf denormal = __builtin_convertvector((vi)magnitude, vf) * 0x1p-24f;
    /* 112 is the difference of the exponents' biases; infinity and NaN get it twice */
    vu normal = (magnitude << 13) + 0x38000000u + ((vu)(magnitude >= 0x7c00u) & 0x38000000u);
    return (vf)((vu)choose((vi)(magnitude < 0x400u), denormal, (vf)normal) | ((bits & 0x8000u) << 16));
}

/* round to nearest, ties to even */
INLINE vh float_to_float16(vf x) {
    vu bits = (vu)x & 0x7fffffffu;
    vu normal = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    /* below 2^-14: the last bit of 0.5 + x is worth what the last one of a denormal float16 is */
    vu denormal = (vu)((vf)bits + 0.5f) - 0x3f000000u;
    vu small = (vu)(bits < 0x38800000u), large = (vu)(bits >= 0x47800000u), is_nan = (vu)(x != x);
    vu half = (small & denormal) | (~small & normal);
    half = (large & (0x7c00u | (is_nan & 0x200u))) | (~large & half);
    return __builtin_convertvector(half | (((vu)x >> 16) & 0x8000u), vh);
}
#endif

/* `count` elements from `source` on, the other lanes 0 */
INLINE vf load(const void *source, int64_t type, int count) {
    if (type == FLOAT32) {
        vf x = {0};
        if (count == LANES) memcpy(&x, source, sizeof x);
        else memcpy(&x, source, 4 * (size_t)count);
        return x;
    }
    vh x = {0};
    if (count == LANES) memcpy(&x, source, sizeof x);
    else memcpy(&x, source, 2 * (size_t)count);
    return type == BFLOAT16 ? bfloat16_to_float(x) : float16_to_float(x);
}

INLINE void store(void *target, int64_t type, int count, vf x) {
    if (type == FLOAT32) {
        if (count == LANES) memcpy(target, &x, sizeof x);
        else memcpy(target, &x, 4 * (size_t)count);
        return;
    }
    vh half = type == BFLOAT16 ? float_to_bfloat16(x) : float_to_float16(x);
    if (count == LANES) memcpy(target, &half, sizeof half);
    else memcpy(target, &half, 2 * (size_t)count);
}

INLINE size_t size_of(int64_t type) { return type == FLOAT32 ? 4 : 2; }

INLINE char *at(const view *v, int64_t item, int64_t frame, int64_t channel) {
    int64_t offset = item * v->batch_stride + frame * v->time_stride + channel;
    return (char *)v->data + offset * (int64_t)size_of(v->type);
}

/* rows[s] = `lanes` channels from `channel` on at frame + s * by, for s < count. One loop a type. Rows are
 * far apart, which the processor's own prefetching does not follow: each asks for what stands two
 * vectors to its right, which the task will want next. */
#define LOAD_ROWS(TYPE, COUNT) \
    for (int s = 0; s < count; s++) { \
        __builtin_prefetch(row + s * stride + 2 * sizeof(vf)); \
        rows[s] = load(row + s * stride, TYPE, COUNT); \
    }
static void load_rows(const view *v, int64_t item, int64_t frame, int64_t by, int64_t channel, int count, int lanes,
                      vf *rows) {
    const char *row = at(v, item, frame, channel);
    int64_t stride = by * v->time_stride * (int64_t)size_of(v->type);
    if (lanes < LANES) LOAD_ROWS(v->type, lanes)
    else if (v->type == FLOAT32) LOAD_ROWS(FLOAT32, LANES)
    else if (v->type == BFLOAT16) LOAD_ROWS(BFLOAT16, LANES)
    else LOAD_ROWS(FLOAT16, LANES)
}
#undef LOAD_ROWS

#define STORE_ROWS(TYPE, COUNT) \
    for (int s = 0; s < count; s++) store(row + s * stride, TYPE, COUNT, rows[s]);
static void store_rows(const view *v, int64_t item, int64_t frame, int64_t by, int64_t channel, int count, int lanes,
                       const vf *rows) {
    char *row = at(v, item, frame, channel);
    int64_t stride = by * v->time_stride * (int64_t)size_of(v->type);
    if (lanes < LANES) STORE_ROWS(v->type, lanes)
    else if (v->type == FLOAT32) STORE_ROWS(FLOAT32, LANES)
    else if (v->type == BFLOAT16) STORE_ROWS(BFLOAT16, LANES)
    else STORE_ROWS(FLOAT16, LANES)
}
#undef STORE_ROWS

/* `count` numbers as float32: the row itself where it is float32, else converted into `room` */
INLINE const float *row_as_float(const view *v, int64_t item, int64_t frame, int64_t count, float *room) {
    const char *row = at(v, item, frame, 0);
    if (v->type == FLOAT32) return (const float *)row;
    for (int64_t i = 0; i < count; i += LANES) {
        int lanes = count - i < LANES ? (int)(count - i) : LANES;
        store(room + i, FLOAT32, lanes, load(row + 2 * i, v->type, lanes));
    }
    return room;
}

/* Where the first of two directions leaves its sums for the second: in the tensor that will hold the result if
 * that is float32, else, so that a half-precision sum is rounded once, in float32 rows of the task's own. */
typedef struct {
    view rows;
    int64_t item, channel; /* that the rows begin with */
} partial;

INLINE partial partial_of(const view *result, int64_t item, int64_t channel, float *rows, int64_t width) {
    if (result->type == FLOAT32) return (partial){*result, item, 0};
    return (partial){{rows, 0, width, FLOAT32}, 0, channel};
}

INLINE void zero_frames(const view *v, int64_t item, int64_t from, int64_t to, int64_t channel, int64_t count) {
    for (int64_t t = from; t < to; t++) memset(at(v, item, t, channel), 0, (size_t)count * size_of(v->type));
}

/* Denormal numbers as 0 while a kernel runs: a state that fades away would otherwise slow it down
 * a hundredfold on many processors. */
INLINE unsigned flush_denormals(void) {
#if defined(__SSE2__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040u);
    return before;
#else
    return 0;
#endif
}

INLINE void restore_denormals(unsigned before) {
#if defined(__SSE2__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

/* Threads for `tasks` tasks of `work` vector operations in all: as many as are allowed, one where waking
 * the others would take longer than the work. */
INLINE int threads_for(int64_t allowed, int64_t tasks, int64_t work) {
    if (work < 10000) return 1;
    return (int)(allowed < tasks ? allowed : tasks);
}

/* the calling thread's number in its team */
INLINE int64_t thread_number(void) {
#if defined(_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* room for `count` vectors, aligned; NULL when memory is short */
INLINE vf *vector_room(int64_t count) {
    void *room = NULL;
    return posix_memalign(&room, 64, (size_t)(count > 0 ? count : 1) * sizeof(vf)) ? NULL : (vf *)room;
}

#endif
