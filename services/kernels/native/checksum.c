/* CRC-32 by folding: four 128-bit words at a time are multiplied, without carries, past the next four.
 *
 * Source: V. Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009;
 * the constants are those of zlib's polynomial 0x04C11DB7 with its bits reflected. */

#include "checksum.h"

#include "arguments.h"
#include "calls.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("pclmul,sse4.1")))
#define BLOCK 64
#define WORD 16

int has_checksum(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

TARGET static inline __m128i loaded(const char *data) { return _mm_loadu_si128((const __m128i *)data); }

/* `folded` moved on by as much as `by` says, and added to what stands there. */
TARGET static inline __m128i fold(__m128i folded, __m128i by, __m128i there) {
    const __m128i low = _mm_clmulepi64_si128(folded, by, 0x00), high = _mm_clmulepi64_si128(folded, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), there);
}

/* The remainder of 128 bits, by Barrett's reduction. `by_word` moves on by one word. */
TARGET static uint32_t reduced(__m128i folded, __m128i by_word) {
    const __m128i low_halves = _mm_setr_epi32(~0, 0, ~0, 0);
    const __m128i by_half = _mm_set_epi64x(0, 0x0163cd6124), polynomial = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    folded = _mm_xor_si128(_mm_srli_si128(folded, 8), _mm_clmulepi64_si128(folded, by_word, 0x10));
    const __m128i low = _mm_clmulepi64_si128(_mm_and_si128(folded, low_halves), by_half, 0x00);
    folded = _mm_xor_si128(_mm_srli_si128(folded, 4), low);
    __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(folded, low_halves), polynomial, 0x10);
    quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, low_halves), polynomial, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(folded, quotient), 1);
}

/* Of whole words, at least a block of them. */
TARGET static uint32_t of_words(uint32_t remainder, const char *data, const char *end) {
    const __m128i by_block = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_word = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    __m128i folded[BLOCK / WORD];
    for (int i = 0; i < BLOCK / WORD; i++) folded[i] = loaded(data + i * WORD);
    folded[0] = _mm_xor_si128(folded[0], _mm_cvtsi32_si128((int)remainder));
    for (data += BLOCK; end - data >= BLOCK; data += BLOCK) {
        for (int i = 0; i < BLOCK / WORD; i++) folded[i] = fold(folded[i], by_block, loaded(data + i * WORD));
    }
    __m128i all = folded[0];
    for (int i = 1; i < BLOCK / WORD; i++) all = fold(all, by_word, folded[i]);
    for (; end - data >= WORD; data += WORD) all = fold(all, by_word, loaded(data));
    return reduced(all, by_word);
}

/* Four bits at a time, for the few bytes that are no whole word. */
static uint32_t of_bytes(uint32_t remainder, const char *data, const char *end) {
    static const uint32_t of_nibble[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    for (; data < end; data++) {
        remainder ^= (unsigned char)*data;
        remainder = remainder >> 4 ^ of_nibble[remainder & 15];
        remainder = remainder >> 4 ^ of_nibble[remainder & 15];
    }
    return remainder;
}

uint32_t checksum_of(uint32_t checksum, const char *data, size_t num_bytes) {
    const size_t num_word_bytes = num_bytes < BLOCK ? 0 : num_bytes / WORD * WORD;
    const char *const words_end = data + num_word_bytes, *const end = data + num_bytes;
    uint32_t remainder = ~checksum;
    if (num_word_bytes) remainder = of_words(remainder, data, words_end);
    return ~of_bytes(remainder, words_end, end);
}

#else

int has_checksum(void) { return 0; }

uint32_t checksum_of(uint32_t checksum, const char *data, size_t num_bytes) { return checksum; } /* never called */

#endif

PyObject *call_has_checksum(PyObject *module, PyObject *ignored) { return PyBool_FromLong(has_checksum()); }

PyObject *call_checksum(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    int64_t checksum;
    Py_buffer data;
    if (given < 1) return PyErr_Format(PyExc_TypeError, "data is wanted");
    if (!has_checksum()) return PyErr_Format(PyExc_RuntimeError, "this processor does not multiply without carries");
    if (read_numbers(arguments + 1, given - 1, &checksum, 1) < 0) return NULL;
    if (PyObject_GetBuffer(arguments[0], &data, PyBUF_SIMPLE) < 0) return NULL;
    const uint32_t found = checksum_of((uint32_t)checksum, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(found);
}
