/* The matrix product of bfloat16 with transposed weights by the matrix unit, or by its emulation
 * with the same bits.
 *
 * Here the unit's first operand is up to 16 rows, and its second one the weights of some inputs for
 * 16 outputs, pair by pair as `take_tile` has them. Each result has one sum, to which 32 inputs at
 * a time are added, in the order of the width: how rows and outputs are divided is without effect.
 */

#define MOST_STRIP_ROWS 512
#define ROW_BYTES (UNIT_INPUTS * 2)

/* The rows' numbers for a strip's inputs, with zeros for what is not there. */
INLINE void arrange_inputs(const struct product *p, const struct strip *strip, int64_t padded_rows,
                           char *to) {
    const int64_t num_bytes = strip->num_inputs * 2;
    if (padded_rows > strip->num_rows || num_bytes < ROW_BYTES)
        memset(to, 0, (size_t)(padded_rows * ROW_BYTES));
    for (int64_t row = 0; row < strip->num_rows; row++)
        memcpy(to + row * ROW_BYTES,
               p->rows + indexed(p->row_index, strip->first_row + row) * p->row_stride +
                   strip->first_input * 2,
               (size_t)num_bytes);
}

/* Adds to the sums of 16 outputs; registers are constants. */
#define ADD_OUTPUTS(part, sum_register, weight_register)                                           \
    do {                                                                                           \
        float *const here = sums + (part) * UNIT_OUTPUTS;                                          \
        unit_load(unit, sum_register, here, strip->padded * 4);                                    \
        unit_load(unit, weight_register, weights + (part) * UNIT_OUTPUTS, SUM_TILE * 4);           \
        unit_dot(unit, sum_register, 4, weight_register);                                          \
        unit_store(unit, sum_register, here, strip->padded * 4);                                   \
    } while (0)

INLINE void add_tile_by_unit(struct unit *unit, const struct sum_tile *tile,
                             const struct strip *strip, const char *arranged, int64_t columns,
                             int64_t at) {
    const uint32_t *weights = (const uint32_t *)tile->weights;
    for (int64_t row = 0; row < strip->num_rows; row += columns) {
        float *const sums = strip->sums + row * strip->padded + at;
        unit_load(unit, 4, arranged + row * ROW_BYTES, ROW_BYTES);
        ADD_OUTPUTS(0, 0, 5);
#if SUM_VECTORS * LANES == 4 * 16
        ADD_OUTPUTS(1, 1, 7);
        ADD_OUTPUTS(2, 2, 5);
        ADD_OUTPUTS(3, 3, 7);
#endif
    }
}

INLINE void add_strip_by_unit(struct unit *unit, const struct product *p, const struct strip *strip,
                              const char *arranged, int64_t columns) {
    const char *next = wanted_after(p, strip);
    for (int64_t at = 0; at < strip->num_outputs; at += SUM_TILE) {
        struct sum_tile tile;
        if (strip->num_inputs < UNIT_INPUTS) memset(&tile, 0, sizeof tile);
        take_tile(&tile, p, strip, at, next, BFLOAT16);
        add_tile_by_unit(unit, &tile, strip, arranged, columns, at);
    }
}

INLINE void multiply_strip_by_unit(const struct product *p, struct strip *strip) {
    char arranged[MOST_STRIP_ROWS * ROW_BYTES] __attribute__((aligned(64)));
    const int64_t columns = less(strip->num_rows, UNIT_ROWS);
    const int64_t padded_rows = (strip->num_rows + columns - 1) / columns * columns;
    struct unit unit;
    unit_configure(&unit, columns, UNIT_ROWS);
    memset(strip->sums, 0, (size_t)(padded_rows * strip->padded) * sizeof(float));
    for (int64_t input = 0; input < p->width; input += UNIT_INPUTS) {
        strip->first_input = input;
        strip->num_inputs = less(p->width - input, UNIT_INPUTS);
        arrange_inputs(p, strip, padded_rows, arranged);
        add_strip_by_unit(&unit, p, strip, arranged, columns);
    }
    unit_release(&unit);
    store_sums(p, strip, BFLOAT16);
}

/* A function of its own, since it has so much on its stack. */
TARGET static __attribute__((noinline)) void multiply_transposed_by_unit(const struct product *p) {
    if (!p->num_rows || !p->num_outputs) return;
    float sums[MOST_SUMS] __attribute__((aligned(64)));
    /* More rows than the unit takes at once are a multiple of them, so that sums have room. */
    const int64_t padded = (p->num_rows + UNIT_ROWS - 1) / UNIT_ROWS * UNIT_ROWS;
    const int64_t width = strip_width(p, p->num_rows > UNIT_ROWS ? padded : p->num_rows);
    const int64_t room = less(MOST_SUMS / width, MOST_STRIP_ROWS);
    const int64_t most_rows = room > UNIT_ROWS ? room / UNIT_ROWS * UNIT_ROWS : room;
    for (int64_t row = 0; row < p->num_rows; row += most_rows)
        for (int64_t output = 0; output < p->num_outputs; output += width) {
            struct strip strip = strip_at(p, row, most_rows, output, width, sums);
            multiply_strip_by_unit(p, &strip);
        }
}
