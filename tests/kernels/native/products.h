/* Products of bfloat16 whose arrays end where the last number does, and what two levels make of
 * them. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

static uint32_t random_state = 1;

static uint32_t next_random(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static int64_t below(int64_t limit) { return (int64_t)(next_random() % (uint32_t)limit); }

/* Of usual sizes, zero, and now and then so small that the unit takes it for zero, or so large that
 * products are infinite. */
static uint16_t random_number(void) {
    const uint32_t sign = next_random() % 2 << 15, kind = next_random() % 64;
    const uint32_t exponent = kind == 0   ? 0
                              : kind == 1 ? 1 + next_random() % 70
                              : kind == 2 ? 190 + next_random() % 5
                                          : 120 + next_random() % 12;
    return (uint16_t)(sign | exponent << 7 | next_random() % 128);
}

static char *random_numbers(int64_t count) {
    uint16_t *made = malloc((size_t)count * 2 + !count);
    for (int64_t i = 0; i < count; i++) made[i] = random_number();
    return (char *)made;
}

/* `index` has each row once; results are apart by more than they are long. */
static struct product random_product(int64_t *index) {
    const int64_t rows = 1 + below(40), outputs = 1 + below(150), width = below(300);
    const int64_t gap = below(2) * 3;
    const int is_transposed = (int)below(2);
    const int64_t out_item = is_transposed || below(2) ? 2 : 4;
    const int64_t long_way = is_transposed ? outputs : width;
    const int64_t short_way = is_transposed ? width : outputs;
    for (int64_t i = 0; i < rows; i++) index[i] = (i + 5) % rows;
    return (struct product){
        .rows = random_numbers(rows * width),
        .row_index = below(2) ? index : NULL,
        .row_stride = width * 2,
        .weight = random_numbers(short_way ? (short_way - 1) * (long_way + gap) + long_way : 0),
        .weight_stride = (long_way + gap) * 2,
        .is_transposed = is_transposed,
        .bias = below(2) ? random_numbers(outputs) : NULL,
        .is_bias_apart = (int)below(2),
        .out_index = below(2) ? index : NULL,
        .out_stride = outputs * out_item + 4,
        .num_rows = rows,
        .num_outputs = outputs,
        .width = width,
        .dtype = BFLOAT16,
        .out_dtype = out_item == 2 ? BFLOAT16 : FLOAT32,
    };
}

static char *multiplied(const struct level *level, struct product product) {
    product.out = calloc((size_t)product.num_rows, (size_t)product.out_stride);
    level->multiply(&product);
    return product.out;
}

static void free_product(const struct product *product) {
    free((char *)product->rows);
    free((char *)product->weight);
    free((char *)product->bias);
}
