/* The matrix product with transposed weights, an input's next to each other: those of some inputs
 * at a time, which lie in one piece, are multiplied and added to the sums of all outputs.
 *
 * Each result has its own sums, of some products each, which are added up in the order of the
 * width: how rows and outputs are divided is without effect. */

/* The weights after some inputs' that lie in one piece, or NULL: those of a strip that is narrower
 * than the weights do not. */
INLINE const char *wanted_after(const struct product *p, const struct strip *strip) {
    const int64_t next_input = strip->first_input + SOME_INPUTS(p->dtype);
    if (strip->num_outputs * item_bytes(p->dtype) < p->weight_stride) return NULL;
    if (next_input >= p->width) return p->next_weight;
    return p->weight + next_input * p->weight_stride;
}

INLINE void add_strip(const struct product *p, const struct strip *strip, enum dtype dtype) {
    const char *next = wanted_after(p, strip);
    for (int64_t at = 0; at < strip->num_outputs; at += SUM_TILE) {
        struct sum_tile tile;
        take_tile(&tile, p, strip, at, next, dtype);
        add_tile(p, &tile, strip, at, dtype);
    }
}

/* Sums are rounded and stored, two registers of bfloat16 as one: the even outputs' and the odd
 * ones'. `bias` is theirs, or NULL. */
INLINE void store_pairs(char *to, const float *sums, const char *bias, int64_t count,
                        int is_bias_apart) {
    const int64_t num_bytes = count >= 2 * LANES ? REGISTER_BYTES : count * 2;
    const words biases = bias ? load_some(bias, num_bytes) : (words){0};
    vector even = load_floats(sums), odd = load_floats(sums + LANES);
    if (is_bias_apart) even = rounded_to(even, BFLOAT16), odd = rounded_to(odd, BFLOAT16);
    if (bias) even += (vector)(biases << 16), odd += (vector)(biases & 0xffff0000u);
    const words both = (words)rounded_to(even, BFLOAT16) >> 16 | (words)rounded_to(odd, BFLOAT16);
    memcpy(to, &both, (size_t)num_bytes);
}

INLINE void store_sums(const struct product *p, const struct strip *strip, enum dtype dtype) {
    const int64_t item = item_bytes(dtype), offset = strip->first_output * item;
    const char *bias = p->bias ? p->bias + offset : NULL;
    for (int64_t row = 0; row < strip->num_rows; row++) {
        const float *sums = strip->sums + row * strip->padded;
        char *to = p->out + indexed(p->out_index, strip->first_row + row) * p->out_stride + offset;
        for (int64_t at = 0; at < strip->num_outputs; at += REGISTER_BYTES / item) {
            const int64_t count = strip->num_outputs - at;
            const char *here = bias ? bias + at * item : NULL;
            vector sum = load_floats(sums + at);
            if (dtype == FLOAT32 && here) sum += load_numbers(here, count, FLOAT32);
            if (dtype == FLOAT32)
                store_numbers(to + at * item, sum, count, FLOAT32);
            else
                store_pairs(to + at * item, sums + at, here, count, p->is_bias_apart);
        }
    }
}

INLINE void multiply_strip(const struct product *p, struct strip *strip, enum dtype dtype) {
    memset(strip->sums, 0, (size_t)(strip->num_rows * strip->padded) * sizeof(float));
    const int64_t most = SOME_INPUTS(dtype);
    for (int64_t input = 0; input < p->width; input += most) {
        strip->first_input = input;
        strip->num_inputs = less(p->width - input, most);
        add_strip(p, strip, dtype);
    }
    store_sums(p, strip, dtype);
}

/* How many outputs at a time: as many as there is room for, with so many rows. */
INLINE int64_t strip_width(const struct product *p, int64_t num_rows) {
    const int64_t all = (p->num_outputs + SUM_TILE - 1) / SUM_TILE * SUM_TILE;
    const int64_t most = MOST_SUMS / num_rows / SUM_TILE * SUM_TILE;
    const int64_t wide = most < LEAST_STRIP ? LEAST_STRIP : most;
    return wide < all ? wide : all;
}

/* At most so many rows and outputs, from these on. */
INLINE struct strip strip_at(const struct product *p, int64_t row, int64_t most_rows,
                             int64_t output, int64_t width, float *sums) {
    return (struct strip){
        .first_row = row,
        .num_rows = less(p->num_rows - row, most_rows),
        .first_output = output,
        .num_outputs = less(p->num_outputs - output, width),
        .sums = sums,
        .padded = width,
    };
}

INLINE void multiply_transposed_as(const struct product *p, enum dtype dtype) {
    if (!p->num_rows || !p->num_outputs) return;
    float sums[MOST_SUMS];
    const int64_t width = strip_width(p, p->num_rows), most_rows = MOST_SUMS / width;
    for (int64_t row = 0; row < p->num_rows; row += most_rows)
        for (int64_t output = 0; output < p->num_outputs; output += width) {
            struct strip strip = strip_at(p, row, most_rows, output, width, sums);
            multiply_strip(p, &strip, dtype);
        }
}

/* A function of its own, since it has so much on its stack. */
TARGET static __attribute__((noinline)) void multiply_transposed(const struct product *p) {
    if (p->dtype == FLOAT32)
        multiply_transposed_as(p, FLOAT32);
    else
        multiply_transposed_as(p, BFLOAT16);
}
