/* A program for sanitizers: the matrix unit's products stay within their arrays, and are those of
 * float64. */

#include <float.h>

#include "products.h"

#define NUM_PRODUCTS 400

/* As the unit takes it: zero where it is below all normal ones. */
static double number_at(const char *from, int64_t i) {
    float number;
    widen_weights(&number, from + 2 * i, 1, BFLOAT16);
    return fabsf(number) < FLT_MIN ? 0 : (double)number;
}

static int64_t place(const int64_t *index, int64_t i) { return index ? index[i] : i; }

/* Rounded to the type of results, and before that to float32 each time that something is added. */
static int is_right(const struct product *p, const char *out, int64_t row, int64_t output) {
    const char *rows = p->rows + place(p->row_index, row) * p->row_stride;
    const char *weights = p->weight + output * (p->is_transposed ? 2 : p->weight_stride);
    const int64_t step = p->is_transposed ? p->weight_stride / 2 : 1;
    double sum = p->bias ? number_at(p->bias, output) : 0, terms = fabs(sum);
    for (int64_t i = 0; i < p->width; i++) {
        const double term = number_at(rows, i) * number_at(weights, i * step);
        sum += term, terms += fabs(term);
    }
    float got;
    widen_weights(
        &got, out + place(p->out_index, row) * p->out_stride + output * item_bytes(p->out_dtype), 1,
        p->out_dtype);
    const double rounding = p->out_dtype == BFLOAT16 ? 0x1p-7 : 0x1p-23;
    return terms > 1e38 || fabs((double)got - sum) <= rounding * fabs(sum) + 1e-5 * terms + 1e-35 ||
           (p->is_bias_apart && fabs((double)got - sum) <= rounding * terms);
}

int main(void) {
    for (int number = 0; number < NUM_PRODUCTS; number++) {
        int64_t index[64];
        const struct product product = random_product(index);
        char *out = multiplied(&level_amx_emulated, product);
        for (int64_t row = 0; row < product.num_rows; row++)
            for (int64_t output = 0; output < product.num_outputs; output++)
                if (!is_right(&product, out, row, output)) {
                    fprintf(stderr, "product %d: row %d is wrong\n", number, (int)row);
                    return 1;
                }
        free(out);
        free_product(&product);
    }
    return 0;
}
