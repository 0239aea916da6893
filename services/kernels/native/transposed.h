/* The matrix product with transposed weights, an input's next to each other: those of some inputs
 * at a time, which lie in one piece, are multiplied and added to the sums of all outputs.
 *
 * Each result has its own sums, of SOME_INPUTS products each, which are added up in the order of
 * the width: how rows and outputs are divided is without effect. */

#define SOME_INPUTS 16
#define MOST_SUMS (32 * 1024) /* they stay in the second cache */
#define SUM_VECTORS 4         /* registers of a row's sums in a tile */
#define SUM_TILE (SUM_VECTORS * LANES)
#define LEAST_STRIP (8 * SUM_TILE)
#define LINE_BYTES 64

/* The processor multiplies two numbers of bfloat16 at once, or one of any type as a float. */
#ifdef HAS_BF16_DOT
#define AT_ONCE(dtype) ((dtype) == BFLOAT16 ? 2 : 1)
#else
#define AT_ONCE(dtype) ((void)(dtype), 1)
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
    words weights[SOME_INPUTS][SUM_VECTORS];
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

/* Takes a tile's weights, and fetches those that are wanted after the strip's: `next` has as many
 * without gaps; without it they are those of the next inputs, or none are. */
INLINE void take_tile(struct sum_tile *tile, const struct product *p, const struct strip *strip,
                      int64_t output, const char *next, enum dtype dtype) {
    const int64_t item = item_bytes(dtype), stride = p->weight_stride;
    const int64_t count = p->num_outputs - output, end = strip->num_inputs;
    const char *from = p->weight + strip->first_input * stride + output * item;
    for (int64_t input = 0; input < end; input++) {
        const char *wanted =
            next ? next + input * SUM_TILE * item : from + (input + SOME_INPUTS) * stride;
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

/* The weights after some inputs' that lie in one piece, or NULL: those of a strip that is narrower
 * than the weights do not. */
INLINE const char *wanted_after(const struct product *p, const struct strip *strip) {
    const int64_t next_input = strip->first_input + SOME_INPUTS;
    if (strip->num_outputs * item_bytes(p->dtype) < p->weight_stride) return NULL;
    if (next_input >= p->width) return p->next_weight;
    return p->weight + next_input * p->weight_stride;
}

INLINE void add_strip(const struct product *p, const struct strip *strip, enum dtype dtype) {
    const char *next = wanted_after(p, strip);
    for (int64_t at = 0; at < strip->num_outputs; at += SUM_TILE) {
        struct sum_tile tile;
        take_tile(&tile, p, strip, strip->first_output + at,
                  next ? next + at * strip->num_inputs * item_bytes(dtype) : NULL, dtype);
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
    for (int64_t input = 0; input < p->width; input += SOME_INPUTS) {
        strip->first_input = input;
        strip->num_inputs = p->width - input < SOME_INPUTS ? p->width - input : SOME_INPUTS;
        add_strip(p, strip, dtype);
    }
    store_sums(p, strip, dtype);
}

/* How many outputs at a time: as many as there is room for, with so many rows. */
INLINE int64_t strip_width(const struct product *p) {
    const int64_t all = (p->num_outputs + SUM_TILE - 1) / SUM_TILE * SUM_TILE;
    const int64_t most = MOST_SUMS / p->num_rows / SUM_TILE * SUM_TILE;
    const int64_t wide = most < LEAST_STRIP ? LEAST_STRIP : most;
    return wide < all ? wide : all;
}

INLINE void multiply_transposed_as(const struct product *p, enum dtype dtype) {
    if (!p->num_rows || !p->num_outputs) return;
    float sums[MOST_SUMS];
    const int64_t width = strip_width(p), most_rows = MOST_SUMS / width;
    for (int64_t row = 0; row < p->num_rows; row += most_rows)
        for (int64_t output = 0; output < p->num_outputs; output += width) {
            struct strip strip = {
                .first_row = row,
                .num_rows = p->num_rows - row < most_rows ? p->num_rows - row : most_rows,
                .first_output = output,
                .num_outputs = p->num_outputs - output < width ? p->num_outputs - output : width,
                .sums = sums,
                .padded = width,
            };
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
