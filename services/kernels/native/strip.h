/* Some inputs of a product with transposed weights: those of a tile of outputs are taken,
 * multiplied by all rows and added to their sums. */

#define MOST_PARTS 16         /* of inputs that are multiplied at once */
#define MOST_SUMS (32 * 1024) /* they stay in the second cache */
#define SUM_VECTORS 4         /* registers of a row's sums in a tile */
#define SUM_TILE (SUM_VECTORS * LANES)
#define LEAST_STRIP (8 * SUM_TILE)
#define LINE_BYTES 64

/* The processor multiplies two numbers of bfloat16 at once, or one of any type as a float. */
#if defined(HAS_BF16_DOT) || defined(MATRIX_UNIT)
#define AT_ONCE(dtype) ((dtype) == BFLOAT16 ? 2 : 1)
#else
#define AT_ONCE(dtype) ((void)(dtype), 1)
#endif

/* So many inputs at a time; of bfloat16 as many as the matrix unit takes. */
#ifdef MATRIX_UNIT
#define SOME_INPUTS(dtype) (MOST_PARTS * AT_ONCE(dtype))
#else
#define SOME_INPUTS(dtype) ((void)(dtype), MOST_PARTS)
#endif

/* Rows and outputs for which there is room, and some inputs. */
struct strip {
    int64_t first_row, num_rows, first_output, num_outputs;
    float *sums;    /* [num_rows, padded] */
    int64_t padded; /* a multiple of SUM_TILE */
    int64_t first_input, num_inputs;
};

/* The weights of some inputs for a tile's outputs, as they are multiplied. Of bfloat16 each second
 * register has the odd outputs, and the one before it the even ones. */
struct sum_tile {
    words weights[MOST_PARTS][SUM_VECTORS];
};

/* A register's bytes, or as many as there are. */
INLINE words load_some(const char *from, int64_t num_bytes) {
    if (num_bytes >= REGISTER_BYTES) return load_register(from);
    return num_bytes > 0 ? load_part(from, num_bytes) : (words){0};
}

/* `one` and `other` are weights of two inputs for the same outputs, or `other` is zero. */
INLINE void widen_pairs(words *even_odd, words one, words other, enum dtype dtype) {
    if (AT_ONCE(dtype) == 2) {
        even_odd[0] = (one & 0xffffu) | (other << 16);
        even_odd[1] = (one >> 16) | (other & 0xffff0000u);
    } else {
        even_odd[0] = one << 16;
        even_odd[1] = one & 0xffff0000u;
    }
}

/* `count` outputs' weights of one input, and of the one after it where two are multiplied at once
 * and there is one. */
INLINE void take_weights(words *weights, const char *from, int64_t stride, int64_t count,
                         int has_second, enum dtype dtype) {
    const int64_t num_bytes = count * item_bytes(dtype);
#pragma GCC unroll 4
    for (int i = 0; i < SUM_VECTORS; i++) {
        const int64_t at = i * REGISTER_BYTES;
        if (dtype == FLOAT32) {
            weights[i] = load_some(from + at, num_bytes - at);
        } else if (2 * i < SUM_VECTORS) {
            const words one = load_some(from + at, num_bytes - at);
            const words other =
                has_second ? load_some(from + stride + at, num_bytes - at) : (words){0};
            widen_pairs(weights + 2 * i, one, other, dtype);
        }
    }
}

INLINE void fetch_ahead(const char *from, int64_t num_bytes) {
    for (int64_t line = 0; line < num_bytes; line += LINE_BYTES)
        __builtin_prefetch(from + line, 0, 2);
}

/* Takes the weights of the tile that begins `at` in the strip, and fetches those that are wanted
 * after the strip's: from `next` on there are as many without gaps; without it they are those of
 * the next inputs, or none are. */
INLINE void take_tile(struct sum_tile *tile, const struct product *p, const struct strip *strip,
                      int64_t at, const char *next, enum dtype dtype) {
    const int64_t item = item_bytes(dtype), stride = p->weight_stride;
    const int64_t output = strip->first_output + at;
    const int64_t count = p->num_outputs - output, end = strip->num_inputs;
    const char *from = p->weight + strip->first_input * stride + output * item;
    for (int64_t input = 0; input < end; input++) {
        const char *wanted = next ? next + (at * end + input * SUM_TILE) * item
                                  : from + (input + SOME_INPUTS(dtype)) * stride;
        fetch_ahead(wanted, SUM_TILE * item);
    }
    for (int64_t input = 0; input < end; input += AT_ONCE(dtype)) {
        words *weights = tile->weights[input / AT_ONCE(dtype)];
        const int has_second = AT_ONCE(dtype) == 2 && input + 1 < end;
        if (count >= SUM_TILE) /* a constant, so that no part of a register is looked for */
            take_weights(weights, from + input * stride, stride, SUM_TILE, has_second, dtype);
        else
            take_weights(weights, from + input * stride, stride, count, has_second, dtype);
    }
}

/* One or two numbers of a row, as they are multiplied, in every lane. */
INLINE words spread(const char *from, int num_numbers, enum dtype dtype) {
    uint32_t bits = 0;
    memcpy(&bits, from, (size_t)(num_numbers * item_bytes(dtype)));
    if (dtype == BFLOAT16 && AT_ONCE(dtype) == 1) bits <<= 16;
    return bits - (words){0};
}

INLINE void add_inputs(vector added[][SUM_VECTORS], const char *const *rows, int num_rows,
                       const words *weights, int64_t input, int num_numbers, enum dtype dtype) {
#pragma GCC unroll 4
    for (int i = 0; i < num_rows; i++) {
        const words numbers = spread(rows[i] + input * item_bytes(dtype), num_numbers, dtype);
#pragma GCC unroll 4
        for (int j = 0; j < SUM_VECTORS; j++)
            added[i][j] = add_products(added[i][j], numbers, weights[j],
                                       AT_ONCE(dtype) == 2 ? BFLOAT16 : FLOAT32);
    }
}

/* Multiplies some inputs of rows, and adds that to their sums. */
INLINE void add_rows(const struct sum_tile *tile, const struct strip *strip,
                     const char *const *rows, int num_rows, float *sums, enum dtype dtype) {
    const int at_once = AT_ONCE(dtype);
    vector added[TILE_ROWS][SUM_VECTORS] = {{{0}}};
    int64_t input = 0;
    for (; input + at_once <= strip->num_inputs; input += at_once)
        add_inputs(added, rows, num_rows, tile->weights[input / at_once], input, at_once, dtype);
    if (input < strip->num_inputs)
        add_inputs(added, rows, num_rows, tile->weights[input / at_once], input, 1, dtype);
#pragma GCC unroll 4
    for (int i = 0; i < num_rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < SUM_VECTORS; j++) {
            float *const sum = sums + i * strip->padded + j * LANES;
            store_floats(sum, load_floats(sum) + added[i][j]);
        }
}

INLINE void add_tile(const struct product *p, const struct sum_tile *tile,
                     const struct strip *strip, int64_t at, enum dtype dtype) {
    const char *rows[TILE_ROWS] = {0};
    for (int64_t row = 0; row < strip->num_rows; row += TILE_ROWS) {
        const int64_t left = strip->num_rows - row;
        for (int i = 0; i < TILE_ROWS && i < left; i++)
            rows[i] = p->rows + strip->first_input * item_bytes(dtype) +
                      indexed(p->row_index, strip->first_row + row + i) * p->row_stride;
        float *const sums = strip->sums + row * strip->padded + at;
        switch (left) { /* as in product.h */
        case 1: add_rows(tile, strip, rows, 1, sums, dtype); break;
#if TILE_ROWS > 2
        case 2: add_rows(tile, strip, rows, 2, sums, dtype); break;
        case 3: add_rows(tile, strip, rows, 3, sums, dtype); break;
#endif
        default: add_rows(tile, strip, rows, TILE_ROWS, sums, dtype);
        }
    }
}
