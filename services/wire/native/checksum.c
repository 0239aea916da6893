/* CRC-32 by folding: four 128-bit words at a time are multiplied, without carries, past the next
 * four; where the processor can, four registers of four words. Eight bytes at a time by tables
 * where it can neither, and for what is no whole word.
 *
 * Sources: V. Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction", Intel 2009; the constants are those of zlib's polynomial 0x04C11DB7 with its bits
 * reflected. M. Kounavis and F. Berry, "A Systematic Approach to Building High Performance
 * Software-based CRC Generators", 2005, for the tables. */

#include "checksum.h"

#define POLYNOMIAL 0xedb88320
#define SLICE 8
#define NUM_BYTES 256

/* tables[k][b]: the remainder of the byte b followed by k zeros. */
static uint32_t tables[SLICE][NUM_BYTES];

static void prepare_tables(void) {
    for (uint32_t byte = 0; byte < NUM_BYTES; byte++) {
        uint32_t remainder = byte;
        for (int bit = 0; bit < 8; bit++)
            remainder = remainder >> 1 ^ (remainder & 1 ? POLYNOMIAL : 0);
        tables[0][byte] = remainder;
    }
    for (int k = 1; k < SLICE; k++) {
        for (int byte = 0; byte < NUM_BYTES; byte++) {
            const uint32_t before = tables[k - 1][byte];
            tables[k][byte] = before >> 8 ^ tables[0][before & 0xff];
        }
    }
}

static uint32_t of_bytes(uint32_t remainder, const char *data, const char *end) {
    for (; end - data >= SLICE; data += SLICE) {
        const unsigned char *const bytes = (const unsigned char *)data;
        uint32_t next = 0;
        for (int i = 0; i < SLICE; i++) {
            const uint32_t before = i < 4 ? remainder >> 8 * i & 0xff : 0;
            next ^= tables[SLICE - 1 - i][bytes[i] ^ before];
        }
        remainder = next;
    }
    for (; data < end; data++)
        remainder = remainder >> 8 ^ tables[0][(remainder ^ (unsigned char)*data) & 0xff];
    return remainder;
}

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("pclmul,sse4.1")))
#define WIDE_TARGET __attribute__((target("avx512f,avx512vl,avx512dq,vpclmulqdq,pclmul,sse4.1")))
#define WORD 16
#define BLOCK (4 * WORD)
#define WIDE_BLOCK (4 * BLOCK)

static int can_fold, can_fold_wide;

void prepare_checksums(void) {
    prepare_tables();
    __builtin_cpu_init();
    can_fold = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
    can_fold_wide = can_fold && __builtin_cpu_supports("vpclmulqdq") &&
                    __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512dq");
}

TARGET static inline __m128i loaded(const char *data) {
    return _mm_loadu_si128((const __m128i *)data);
}

/* `folded` moved on by as much as `by` says, and added to what stands there. */
TARGET static inline __m128i fold(__m128i folded, __m128i by, __m128i there) {
    const __m128i low = _mm_clmulepi64_si128(folded, by, 0x00),
                  high = _mm_clmulepi64_si128(folded, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), there);
}

/* The remainder of 128 bits, by Barrett's reduction. `by_word` moves on by one word. */
TARGET static uint32_t reduced(__m128i folded, __m128i by_word) {
    const __m128i low_halves = _mm_setr_epi32(~0, 0, ~0, 0);
    const __m128i by_half = _mm_set_epi64x(0, 0x0163cd6124),
                  polynomial = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    folded = _mm_xor_si128(_mm_srli_si128(folded, 8), _mm_clmulepi64_si128(folded, by_word, 0x10));
    const __m128i low = _mm_clmulepi64_si128(_mm_and_si128(folded, low_halves), by_half, 0x00);
    folded = _mm_xor_si128(_mm_srli_si128(folded, 4), low);
    __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(folded, low_halves), polynomial, 0x10);
    quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, low_halves), polynomial, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(folded, quotient), 1);
}

/* What moves on by one word and by a block of them, and by four blocks. */
#define BY_WORD _mm_set_epi64x(0x00ccaa009e, 0x01751997d0)
#define BY_BLOCK _mm_set_epi64x(0x01c6e41596, 0x0154442bd4)
#define BY_WIDE_BLOCK _mm_set_epi64x(0x01322d1430, 0x011542778a)

/* Of whole words, at least a block of them. */
TARGET static uint32_t of_words(uint32_t remainder, const char *data, const char *end) {
    const __m128i by_block = BY_BLOCK, by_word = BY_WORD;
    __m128i folded[BLOCK / WORD];
    for (int i = 0; i < BLOCK / WORD; i++) folded[i] = loaded(data + i * WORD);
    folded[0] = _mm_xor_si128(folded[0], _mm_cvtsi32_si128((int)remainder));
    for (data += BLOCK; end - data >= BLOCK; data += BLOCK) {
        for (int i = 0; i < BLOCK / WORD; i++)
            folded[i] = fold(folded[i], by_block, loaded(data + i * WORD));
    }
    __m128i all = folded[0];
    for (int i = 1; i < BLOCK / WORD; i++) all = fold(all, by_word, folded[i]);
    for (; end - data >= WORD; data += WORD) all = fold(all, by_word, loaded(data));
    return reduced(all, by_word);
}

WIDE_TARGET static inline __m512i loaded_block(const char *data) {
    return _mm512_loadu_si512(data);
}

WIDE_TARGET static inline __m512i fold_block(__m512i folded, __m512i by, __m512i there) {
    const __m512i low = _mm512_clmulepi64_epi128(folded, by, 0x00),
                  high = _mm512_clmulepi64_epi128(folded, by, 0x11);
    return _mm512_xor_si512(_mm512_xor_si512(low, high), there);
}

/* Of whole words, at least a wide block of them. */
WIDE_TARGET static uint32_t of_many_words(uint32_t remainder, const char *data, const char *end) {
    const __m512i by_wide_block = _mm512_broadcast_i32x4(BY_WIDE_BLOCK),
                  by_block = _mm512_broadcast_i32x4(BY_BLOCK);
    const __m128i by_word = BY_WORD;
    __m512i folded[WIDE_BLOCK / BLOCK];
    for (int i = 0; i < WIDE_BLOCK / BLOCK; i++) folded[i] = loaded_block(data + i * BLOCK);
    folded[0] =
        _mm512_xor_si512(folded[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)remainder)));
    for (data += WIDE_BLOCK; end - data >= WIDE_BLOCK; data += WIDE_BLOCK) {
        for (int i = 0; i < WIDE_BLOCK / BLOCK; i++)
            folded[i] = fold_block(folded[i], by_wide_block, loaded_block(data + i * BLOCK));
    }
    __m512i block = folded[0];
    for (int i = 1; i < WIDE_BLOCK / BLOCK; i++) block = fold_block(block, by_block, folded[i]);
    for (; end - data >= BLOCK; data += BLOCK)
        block = fold_block(block, by_block, loaded_block(data));
    __m128i words[BLOCK / WORD];
    memcpy(words, &block, sizeof block);
    __m128i all = words[0];
    for (int i = 1; i < BLOCK / WORD; i++) all = fold(all, by_word, words[i]);
    for (; end - data >= WORD; data += WORD) all = fold(all, by_word, loaded(data));
    return reduced(all, by_word);
}

uint32_t checksum_of(uint32_t checksum, const char *data, size_t num_bytes) {
    const size_t num_word_bytes = can_fold && num_bytes >= BLOCK ? num_bytes / WORD * WORD : 0;
    const char *const words_end = data + num_word_bytes, *const end = data + num_bytes;
    uint32_t remainder = ~checksum;
    if (can_fold_wide && num_word_bytes >= WIDE_BLOCK)
        remainder = of_many_words(remainder, data, words_end);
    else if (num_word_bytes)
        remainder = of_words(remainder, data, words_end);
    return ~of_bytes(remainder, words_end, end);
}

#else

void prepare_checksums(void) { prepare_tables(); }

uint32_t checksum_of(uint32_t checksum, const char *data, size_t num_bytes) {
    return ~of_bytes(~checksum, data, data + num_bytes);
}

#endif
