/* A register's worth of numbers, for the level that includes this: LANES floats, TARGET the
 * attribute of its functions.
 *
 * Arithmetic on `vector` is GCC's and clang's vector extension; only what it cannot say is an
 * intrinsic here. */

#include <string.h>

#include "kernels.h"

#if LANES > 4
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline)) TARGET
#define REGISTER_BYTES (4 * LANES)

typedef float vector __attribute__((vector_size(REGISTER_BYTES)));
typedef uint32_t words __attribute__((vector_size(REGISTER_BYTES)));
typedef uint16_t half_words __attribute__((vector_size(REGISTER_BYTES / 2)));
typedef float quad __attribute__((vector_size(16)));
typedef uint32_t quad_words __attribute__((vector_size(16)));
typedef uint16_t quad_half_words __attribute__((vector_size(8)));

INLINE int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE vector every(float value) { return value - (vector){0}; }

/* a * b + c; rounded once wherever the processor can. */
INLINE vector multiply_add(vector a, vector b, vector c) {
#if LANES == 16
    return (vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LANES == 8
    return (vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FP_FAST_FMAF)
    for (int lane = 0; lane < LANES; lane++) c[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
    return c;
#else
    return a * b + c;
#endif
}

/* The sums of the lanes of four vectors, side by side, always in the same order. */
INLINE quad sum_each(vector a, vector b, vector c, vector d) {
#if LANES == 16
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps((__m512)a, (__m512)b),
                              _mm512_unpackhi_ps((__m512)a, (__m512)b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps((__m512)c, (__m512)d),
                              _mm512_unpackhi_ps((__m512)c, (__m512)d));
    __m512d low = _mm512_unpacklo_pd((__m512d)ab, (__m512d)cd),
            high = _mm512_unpackhi_pd((__m512d)ab, (__m512d)cd);
    __m512 all = _mm512_add_ps((__m512)low, (__m512)high);
    __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(all), (__m256)_mm512_extractf64x4_pd((__m512d)all, 1));
    return (quad)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif LANES == 8
    __m256 all =
        _mm256_hadd_ps(_mm256_hadd_ps((__m256)a, (__m256)b), _mm256_hadd_ps((__m256)c, (__m256)d));
    return (quad)_mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
#else
    quad low = {a[0] + a[1], b[0] + b[1], c[0] + c[1], d[0] + d[1]};
    quad high = {a[2] + a[3], b[2] + b[3], c[2] + c[3], d[2] + d[3]};
    return low + high;
#endif
}

/* A register as it lies in memory: LANES floats, or twice as many bfloat16. */
INLINE words load_register(const char *from) {
    words loaded;
    memcpy(&loaded, from, sizeof loaded);
    return loaded;
}

/* The same of `num_bytes` that are fewer than a register, with zeros after them. */
INLINE words load_part(const char *from, int64_t num_bytes) {
    words loaded = {0};
    memcpy(&loaded, from, (size_t)num_bytes);
    return loaded;
}

/* Adds the products of two registers' numbers to the sums. A register holds pairs of bfloat16, each
 * the upper half of a float: shifted up, the lower ones are floats, and the upper ones are when the
 * lower are cleared. */
INLINE vector add_products(vector sums, words a, words b, enum dtype dtype) {
    if (dtype == FLOAT32) return multiply_add((vector)a, (vector)b, sums);
#ifdef HAS_BF16_DOT
    return (vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#else
    sums = multiply_add((vector)(a & 0xffff0000u), (vector)(b & 0xffff0000u), sums);
    return multiply_add((vector)(a << 16), (vector)(b << 16), sums);
#endif
}

/* The bits of floats rounded to bfloat16, to the nearest and halves to even; what is not a number
 * stays so. */
#define BFLOAT16_BITS(bits, is_number)                                                             \
    ((((bits) + 0x7fffu + (((bits) >> 16) & 1u)) & (is_number)) |                                  \
     (((bits) | 0x400000u) & ~(is_number)))

INLINE quad_half_words quad_to_bfloat16(quad values) {
    quad_words bits = (quad_words)values;
    return __builtin_convertvector(BFLOAT16_BITS(bits, (quad_words)(values == values)) >> 16,
                                   quad_half_words);
}

INLINE quad quad_rounded_to(quad values, enum dtype dtype) {
    if (dtype == FLOAT32) return values;
    return (quad)(__builtin_convertvector(quad_to_bfloat16(values), quad_words) << 16);
}

/* What is left of the numbers when they are kept in the dtype. */
INLINE vector rounded_to(vector values, enum dtype dtype) {
    if (dtype == FLOAT32) return values;
    words bits = (words)values;
    return (vector)(BFLOAT16_BITS(bits, (words)(values == values)) & 0xffff0000u);
}

INLINE vector widened(half_words bits) {
    return (vector)(__builtin_convertvector(bits, words) << 16);
}

/* `count` numbers, at most LANES, as floats, with zeros after them. */
INLINE vector load_numbers(const char *from, int64_t count, enum dtype dtype) {
    half_words halves = {0};
    vector floats = {0};
    if (dtype == BFLOAT16) {
        if (count >= LANES)
            memcpy(&halves, from, sizeof halves);
        else
            memcpy(&halves, from, (size_t)count * 2);
        return widened(halves);
    }
    if (count >= LANES)
        memcpy(&floats, from, sizeof floats);
    else
        memcpy(&floats, from, (size_t)count * 4);
    return floats;
}

/* The first `count` numbers, at most LANES, rounded to the dtype. */
INLINE void store_numbers(char *to, vector values, int64_t count, enum dtype dtype) {
    if (dtype == BFLOAT16) {
        half_words halves =
            __builtin_convertvector((words)rounded_to(values, BFLOAT16) >> 16, half_words);
        if (count >= LANES)
            memcpy(to, &halves, sizeof halves);
        else
            memcpy(to, &halves, (size_t)count * 2);
    } else if (count >= LANES) {
        memcpy(to, &values, sizeof values);
    } else {
        memcpy(to, &values, (size_t)count * 4);
    }
}

INLINE vector load_floats(const float *from) {
    return load_numbers((const char *)from, LANES, FLOAT32);
}

INLINE void store_floats(float *to, vector values) {
    store_numbers((char *)to, values, LANES, FLOAT32);
}

INLINE float sum_of(vector values) {
    const vector zero = {0};
    return sum_each(values, zero, zero, zero)[0];
}

INLINE vector either(words condition, vector yes, vector no) {
    return (vector)(((words)yes & condition) | ((words)no & ~condition));
}

/* e to the power of each number, to about one unit in the last place; 0 below the smallest normal
 * float.
 *
 * After Cephes' expf: 2^n times a polynomial of what remains. Adding 1.5 * 2^23 rounds to an
 * integer in the low bits.
 */
INLINE vector exponential(vector x) {
    const vector lowest = every(-87.0f), highest = every(88.0f), shift = every(12582912.0f);
    const words is_low = (words)(x < lowest);
    x = either(is_low, lowest, either((words)(x > highest), highest, x));
    const vector shifted = multiply_add(x, every(1.44269504f), shift), power = shifted - shift;
    const vector rest =
        multiply_add(power, every(2.12194440e-4f), multiply_add(power, every(-0.693359375f), x));
    vector sum = every(1.9875691500e-4f);
    sum = multiply_add(sum, rest, every(1.3981999507e-3f));
    sum = multiply_add(sum, rest, every(8.3334519073e-3f));
    sum = multiply_add(sum, rest, every(4.1665795894e-2f));
    sum = multiply_add(sum, rest, every(1.6666665459e-1f));
    sum = multiply_add(sum, rest, every(5.0000001201e-1f));
    sum = multiply_add(sum, rest * rest, rest + 1.0f);
    const vector scale = (vector)(((words)shifted + 127u) << 23);
    return either(is_low, every(0.0f), sum * scale);
}
