/* The processor's matrix unit in plain C, for any processor: registers of up to 16 rows of 64
 * bytes, and TDPBF16PS with the roundings and the order of sums that Intel documents for it. */

#ifndef MOESAIC_MATRIX_EMULATED_H
#define MOESAIC_MATRIX_EMULATED_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define UNIT_REGISTERS 8

struct unit_register {
    int num_rows, row_bytes;
    uint32_t words[16][16];
};

struct unit {
    struct unit_register registers[UNIT_REGISTERS];
};

/* Exact numbers below it round to less than the smallest normal float, and halves to that. */
#define LEAST_KEPT ((double)FLT_MIN * (1 - 0x1p-25))

/* a + b, rounded once to a float however small, halves to even; what is then below all normal
 * floats is 0. `a` may have as many bits as the product of two numbers of bfloat16. */
static inline float unit_sum(double a, float b) {
    double sum = a + (double)b;
    const double taken = sum - a;
    const double error = (a - (sum - taken)) + ((double)b - taken);
    int64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    /* To odd where it is not exact, so that rounding it again is as good as rounding once. */
    const int is_inexact = (error > 0) | (error < 0), is_short = (error > 0) == (sum > 0);
    bits += is_inexact & !(bits & 1) ? (is_short ? 1 : -1) : 0;
    memcpy(&sum, &bits, sizeof sum);
    return fabs(sum) < LEAST_KEPT ? copysignf(0.0f, (float)sum) : (float)sum;
}

/* The lower or the upper number of a pair; what is below all normal ones is 0. */
static inline float unit_number(uint32_t pair, int is_upper) {
    const uint32_t bits = is_upper ? pair & 0xffff0000u : pair << 16;
    const uint32_t kept = bits & 0x7f800000u ? bits : bits & 0x80000000u;
    float number;
    memcpy(&number, &kept, sizeof number);
    return number;
}

static inline void unit_shape(struct unit *unit, int number, int64_t num_rows, int64_t row_bytes) {
    unit->registers[number].num_rows = (int)num_rows;
    unit->registers[number].row_bytes = (int)row_bytes;
}

/* For sums in registers 0 to 3, weights in 4 and 6, rows in 5 and 7. */
static inline void unit_configure(struct unit *unit, int64_t num_outputs, int64_t num_rows) {
    memset(unit, 0, sizeof *unit);
    for (int sum = 0; sum < 4; sum++) unit_shape(unit, sum, num_outputs, num_rows * 4);
    for (int pair = 4; pair < 8; pair += 2) {
        unit_shape(unit, pair, num_outputs, 64);
        unit_shape(unit, pair + 1, 16, num_rows * 4);
    }
}

static inline void unit_zero(struct unit *unit, int number) {
    memset(unit->registers[number].words, 0, sizeof unit->registers[number].words);
}

static inline void unit_load(struct unit *unit, int number, const void *from, int64_t stride) {
    struct unit_register *to = unit->registers + number;
    unit_zero(unit, number);
    for (int row = 0; row < to->num_rows; row++)
        memcpy(to->words[row], (const char *)from + row * stride, (size_t)to->row_bytes);
}

static inline void unit_store(struct unit *unit, int number, void *to, int64_t stride) {
    const struct unit_register *from = unit->registers + number;
    for (int row = 0; row < from->num_rows; row++)
        memcpy((char *)to + row * stride, from->words[row], (size_t)from->row_bytes);
}

/* A register's lower and upper numbers. */
struct unit_numbers {
    float lower[16][16], upper[16][16];
};

static inline void unit_widen(const struct unit_register *from, struct unit_numbers *into) {
    for (int row = 0; row < 16; row++)
        for (int i = 0; i < 16; i++) {
            into->lower[row][i] = unit_number(from->words[row][i], 0);
            into->upper[row][i] = unit_number(from->words[row][i], 1);
        }
}

/* sums += left . right: the products of a row's lower numbers and those of its upper ones are added
 * apart, in their order, then to each other, and that to the sum. */
static inline void unit_dot(struct unit *unit, int sums, int left, int right) {
    struct unit_numbers a, b;
    struct unit_register *c = unit->registers + sums;
    unit_widen(unit->registers + left, &a);
    unit_widen(unit->registers + right, &b);
    for (int m = 0; m < c->num_rows; m++) {
        float lower[16] = {0}, upper[16] = {0};
        for (int k = 0; k < unit->registers[left].row_bytes / 4; k++)
            for (int n = 0; n < c->row_bytes / 4; n++) {
                lower[n] = unit_sum((double)a.lower[m][k] * (double)b.lower[k][n], lower[n]);
                upper[n] = unit_sum((double)a.upper[m][k] * (double)b.upper[k][n], upper[n]);
            }
        for (int n = 0; n < c->row_bytes / 4; n++) {
            float sum;
            memcpy(&sum, &c->words[m][n], sizeof sum);
            sum = unit_sum((double)sum, unit_sum((double)lower[n], upper[n]));
            memcpy(&c->words[m][n], &sum, sizeof sum);
        }
    }
}

static inline void unit_release(struct unit *unit) { (void)unit; }

#endif
