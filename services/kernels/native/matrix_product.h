/* The matrix product of bfloat16 by the matrix unit, or by its emulation with the same bits.
 *
 * A register of the unit holds 32 inputs of 16 outputs' weights, as they lie; another the same
 * inputs of up to 16 rows, arranged pair by pair. Each result has four sums, of every fourth 32
 * inputs, which are added in a fixed order: how many rows there are, and where a row stands among
 * them, is without effect. Numbers below all normal ones count as zero. */

#if defined(__x86_64__)
#include <emmintrin.h>
#endif
#include <stdlib.h>

#define UNIT_OUTPUTS 16
#define UNIT_ROWS 16
#define UNIT_INPUTS 32
#define UNIT_PAIRS (UNIT_INPUTS / 2)
#define UNIT_SUMS 4
#define STEP_BYTES (UNIT_OUTPUTS * UNIT_INPUTS * UNIT_SUMS * 2) /* of weights */

/* A product, and its rows as the unit takes them. */
struct unit_product {
    const struct product *product;
    int64_t num_chunks;  /* of UNIT_INPUTS inputs, the last of which may be short */
    int64_t num_columns; /* rows at once */
    uint32_t *arranged;  /* all rows; or NULL: they are arranged where they are needed */
};

/* Outputs and rows for which the unit has registers, and what is fetched meanwhile, or NULL. */
struct unit_block {
    int64_t output, num_outputs, first_row;
    const char *next;
};

/* Four words from each of four places, the other way round. */
INLINE void transpose_four(const char *const *from, int64_t offset, uint32_t *to, int64_t stride) {
#if defined(__x86_64__)
    __m128i four[4];
    for (int i = 0; i < 4; i++) four[i] = _mm_loadu_si128((const __m128i_u *)(from[i] + offset));
    const __m128i low = _mm_unpacklo_epi32(four[0], four[1]),
                  low_after = _mm_unpacklo_epi32(four[2], four[3]);
    const __m128i high = _mm_unpackhi_epi32(four[0], four[1]),
                  high_after = _mm_unpackhi_epi32(four[2], four[3]);
    _mm_storeu_si128((__m128i_u *)to, _mm_unpacklo_epi64(low, low_after));
    _mm_storeu_si128((__m128i_u *)(to + stride), _mm_unpackhi_epi64(low, low_after));
    _mm_storeu_si128((__m128i_u *)(to + 2 * stride), _mm_unpacklo_epi64(high, high_after));
    _mm_storeu_si128((__m128i_u *)(to + 3 * stride), _mm_unpackhi_epi64(high, high_after));
#else
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) memcpy(to + j * stride + i, from[i] + offset + 4 * j, 4);
#endif
}

/* `num_words` words from each of `count` places: word j of place i goes to to[j * stride + i]. */
INLINE void transpose_words(const char *const *from, int64_t count, int64_t num_words, uint32_t *to,
                            int64_t stride) {
    const int64_t whole_places = count / 4 * 4, whole_words = num_words / 4 * 4;
    for (int64_t i = 0; i < whole_places; i += 4)
        for (int64_t j = 0; j < whole_words; j += 4)
            transpose_four(from + i, 4 * j, to + j * stride + i, stride);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = i < whole_places ? whole_words : 0; j < num_words; j++)
            memcpy(to + j * stride + i, from[i] + 4 * j, 4);
}

/* Some chunks of the rows from `first_row` on: [pairs, columns, 2], with zeros for what is not
 * there. */
INLINE void arrange(const struct unit_product *call, int64_t first_row, int64_t chunk,
                    int64_t num_chunks, uint32_t *to) {
    const struct product *p = call->product;
    const int64_t columns = call->num_columns, present = less(columns, p->num_rows - first_row);
    const int64_t padded = num_chunks * UNIT_INPUTS;
    const int64_t num_inputs = less(padded, p->width - chunk * UNIT_INPUTS);
    const char *from[UNIT_ROWS];
    for (int64_t i = 0; i < present; i++)
        from[i] = p->rows + indexed(p->row_index, first_row + i) * p->row_stride +
                  chunk * UNIT_INPUTS * 2;
    if (present < columns || num_inputs < padded)
        memset(to, 0, (size_t)(padded / 2 * columns) * sizeof *to);
    transpose_words(from, present, num_inputs / 2, to, columns);
    for (int64_t i = 0; num_inputs % 2 && i < present; i++)
        memcpy(to + num_inputs / 2 * columns + i, from[i] + (num_inputs - 1) * 2, 2);
}

/* Where the unit reads a chunk of a block's weights: where they lie, or in `tail`, which has zeros
 * after a chunk that is short. */
INLINE const char *chunk_weights(const struct product *p, const struct unit_block *block,
                                 int64_t chunk, char *tail, int64_t *stride) {
    const int64_t left = p->width - chunk * UNIT_INPUTS;
    const char *from = p->weight + block->output * p->weight_stride + chunk * UNIT_INPUTS * 2;
    *stride = p->weight_stride;
    if (left >= UNIT_INPUTS) return from;
    *stride = UNIT_INPUTS * 2;
    memset(tail, 0, UNIT_OUTPUTS * UNIT_INPUTS * 2);
    for (int64_t i = 0; i < block->num_outputs; i++)
        memcpy(tail + i * UNIT_INPUTS * 2, from + i * p->weight_stride, (size_t)left * 2);
    return tail;
}

/* Adds one chunk to one of the four sums; registers are constants. */
#define ADD_CHUNK(number, weights, rows)                                                           \
    if (number < num_chunks) {                                                                     \
        int64_t weight_stride;                                                                     \
        const char *from = chunk_weights(p, block, chunk + number, tail, &weight_stride);          \
        unit_load(unit, weights, from, weight_stride);                                             \
        unit_load(unit, rows, arranged + number * UNIT_PAIRS * columns, columns * 4);              \
        unit_dot(unit, number, weights, rows);                                                     \
    }

/* Adds up to four chunks of a block's inputs to its sums. */
INLINE void add_step(struct unit *unit, const struct unit_product *call,
                     const struct unit_block *block, int64_t chunk) {
    char tail[UNIT_OUTPUTS * UNIT_INPUTS * 2];
    uint32_t some[UNIT_SUMS * UNIT_PAIRS * UNIT_ROWS];
    const struct product *p = call->product;
    const int64_t columns = call->num_columns,
                  num_chunks = less(UNIT_SUMS, call->num_chunks - chunk);
    const uint32_t *arranged = some;
    if (call->arranged)
        arranged =
            call->arranged + (block->first_row * call->num_chunks + chunk * columns) * UNIT_PAIRS;
    else
        arrange(call, block->first_row, chunk, num_chunks, some);
    ADD_CHUNK(0, 4, 5)
    ADD_CHUNK(1, 6, 7)
    ADD_CHUNK(2, 4, 5)
    ADD_CHUNK(3, 6, 7)
}

/* What is wanted after a step's weights, line by line in the order in which it lies. */
INLINE void fetch_step(const struct unit_block *block, int64_t chunk, int64_t block_bytes) {
    const int64_t begin = chunk * (STEP_BYTES / UNIT_SUMS);
    for (int64_t at = begin; at < less(begin + STEP_BYTES, block_bytes); at += 64)
        __builtin_prefetch(block->next + at, 0, 2);
}

/* Rounds and stores a block's sums, [rows, UNIT_OUTPUTS]. */
INLINE void store_block(const struct unit_product *call, const struct unit_block *block,
                        const float *sums) {
    const struct product *p = call->product;
    const int64_t present = less(call->num_columns, p->num_rows - block->first_row);
    for (int64_t row = 0; row < present; row++) {
        char *to = p->out + indexed(p->out_index, block->first_row + row) * p->out_stride +
                   block->output * item_bytes(p->out_dtype);
        for (int64_t at = 0; at < block->num_outputs; at += LANES) {
            const int64_t count = block->num_outputs - at;
            vector values = load_floats(sums + row * UNIT_OUTPUTS + at);
            if (p->bias && p->is_bias_apart) values = rounded_to(values, p->out_dtype);
            if (p->bias)
                values += load_numbers(p->bias + (block->output + at) * 2, count, BFLOAT16);
            store_numbers(to + at * item_bytes(p->out_dtype), values, count, p->out_dtype);
        }
    }
}

INLINE void multiply_block(struct unit *unit, const struct unit_product *call,
                           const struct unit_block *block) {
    float sums[UNIT_SUMS][UNIT_OUTPUTS * UNIT_ROWS] __attribute__((aligned(64)));
    float by_row[UNIT_ROWS * UNIT_OUTPUTS] = {0};
    const char *from[UNIT_OUTPUTS];
    const int64_t columns = call->num_columns;
    unit_zero(unit, 0);
    unit_zero(unit, 1);
    unit_zero(unit, 2);
    unit_zero(unit, 3);
    for (int64_t chunk = 0; chunk < call->num_chunks; chunk += UNIT_SUMS) {
        if (block->next) fetch_step(block, chunk, UNIT_OUTPUTS * call->product->weight_stride);
        add_step(unit, call, block, chunk);
    }
    unit_store(unit, 0, sums[0], columns * 4);
    unit_store(unit, 1, sums[1], columns * 4);
    unit_store(unit, 2, sums[2], columns * 4);
    unit_store(unit, 3, sums[3], columns * 4);
    for (int64_t at = 0; at < block->num_outputs * columns; at += LANES)
        store_floats(sums[0] + at, (load_floats(sums[0] + at) + load_floats(sums[1] + at)) +
                                       (load_floats(sums[2] + at) + load_floats(sums[3] + at)));
    for (int64_t i = 0; i < block->num_outputs; i++)
        from[i] = (const char *)(sums[0] + i * columns);
    transpose_words(from, block->num_outputs, columns, (uint32_t *)by_row, UNIT_OUTPUTS);
    store_block(call, block, by_row);
}

/* All rows, each once for all outputs. NULL where that does not pay, or memory is short. */
INLINE uint32_t *arrange_all(const struct unit_product *call) {
    const struct product *p = call->product;
    const int64_t columns = call->num_columns, each = call->num_chunks * UNIT_PAIRS * columns;
    const int64_t num_tiles = (p->num_rows + columns - 1) / columns;
    if (p->num_outputs <= UNIT_OUTPUTS || !each) return NULL;
    uint32_t *arranged = aligned_alloc(64, (size_t)(num_tiles * each) * sizeof *arranged);
    for (int64_t tile = 0; arranged && tile < num_tiles; tile++)
        arrange(call, tile * columns, 0, call->num_chunks, arranged + tile * each);
    return arranged;
}

/* The weights after a block's, which are as many or fewer; NULL where they are not known, or have
 * gaps. */
INLINE const char *wanted_after_block(const struct product *p, int64_t output) {
    if (p->weight_stride != p->width * 2) return NULL;
    if (output + UNIT_OUTPUTS >= p->num_outputs) return p->next_weight;
    return p->weight + (output + UNIT_OUTPUTS) * p->weight_stride;
}

/* A function of its own, since it has so much on its stack. */
TARGET static __attribute__((noinline)) void multiply_by_unit(const struct product *p) {
    if (!p->num_rows || !p->num_outputs) return;
    struct unit unit;
    struct unit_product call = {
        .product = p,
        .num_chunks = (p->width + UNIT_INPUTS - 1) / UNIT_INPUTS,
        .num_columns = less(p->num_rows, UNIT_ROWS),
    };
    call.arranged = arrange_all(&call);
    int64_t configured = 0;
    for (int64_t output = 0; output < p->num_outputs; output += UNIT_OUTPUTS) {
        struct unit_block block = {
            .output = output,
            .num_outputs = less(UNIT_OUTPUTS, p->num_outputs - output),
            .next = wanted_after_block(p, output),
        };
        if (block.num_outputs != configured)
            unit_configure(&unit, configured = block.num_outputs, call.num_columns);
        for (; block.first_row < p->num_rows; block.first_row += call.num_columns) {
            multiply_block(&unit, &call, &block);
            block.next = NULL;
        }
    }
    unit_release(&unit);
    free(call.arranged);
}
