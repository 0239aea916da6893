/* The code is canonical: of codes of one length, and of lengths, the later ones are the higher
 * numbers. So the number of codes of each length, and their characters in order, say all. */

#include "huffman.h"

#include <stdint.h>

enum { MIN_BITS = 5, MAX_BITS = 30, NUM_CODES = 257, END = 256 };

static const uint8_t COUNTS[MAX_BITS + 1] = {0, 0, 0, 0, 0, 10, 26, 32, 6,  0, 5,  3,  2,  6, 2, 3,
                                             0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4};
static const uint16_t CHARACTERS[NUM_CODES] = {
    48,  49,  50,  97,  99,  101, 105, 111, 115, 116, 32,  37,  45,  46,  47,  51,  52,  53,  54,
    55,  56,  57,  61,  65,  95,  98,  100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58,  66,
    67,  68,  69,  70,  71,  72,  73,  74,  75,  76,  77,  78,  79,  80,  81,  82,  83,  84,  85,
    86,  87,  89,  106, 107, 113, 118, 119, 120, 121, 122, 38,  42,  44,  59,  88,  90,  33,  34,
    40,  41,  63,  39,  43,  124, 35,  62,  0,   36,  64,  91,  93,  126, 94,  125, 60,  96,  123,
    92,  195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209,
    216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173,
    178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1,   135, 137, 138, 139, 140, 141,
    143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191,
    197, 231, 239, 9,   142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235,
    192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212,
    214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254, 2,   3,   4,   5,
    6,   7,   8,   11,  12,  14,  15,  16,  17,  18,  19,  20,  21,  23,  24,  25,  26,  27,  28,
    29,  30,  31,  127, 220, 249, 10,  13,  22,  256};

/* The character that these bits begin with, and how many of them it takes. */
static unsigned first_of(uint32_t bits, unsigned *length) {
    uint64_t low = 0; /* the first code of the length, as if it had 32 bits */
    unsigned place = 0;
    for (*length = MIN_BITS;; place += COUNTS[(*length)++]) {
        const uint64_t high = low + ((uint64_t)COUNTS[*length] << (32 - *length));
        if (bits < high || *length == MAX_BITS)
            return CHARACTERS[place + ((bits - low) >> (32 - *length))];
        low = high;
    }
}

ssize_t huffman_decode(const char *code, size_t count, char *out) {
    char *const begin = out;
    uint64_t held = 0; /* the lower `num_held` bits are not decoded yet */
    unsigned num_held = 0;
    for (;;) {
        for (; num_held <= 56 && count; count--, num_held += 8)
            held = held << 8 | (unsigned char)*code++;
        /* Behind the last bit there are ones, with which no character ends. */
        const uint32_t bits =
            (uint32_t)(num_held < 32 ? ~(~held << (32 - num_held)) : held >> (num_held - 32));
        unsigned length;
        const unsigned character = first_of(bits, &length);
        if (length > num_held) return num_held < 8 && bits == UINT32_MAX ? out - begin : -1;
        if (character == END) return -1;
        *out++ = (char)character;
        num_held -= length;
    }
}
