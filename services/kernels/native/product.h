/* The matrix product: tiles of a few rows by four weight rows, so that a loaded register is used
 * several times.
 *
 * Each result has its own sums, added up in the order of the width: its place in a tile and the
 * tile's size are without effect. */

#define TILE_OUTPUTS 4
#define TILES_AHEAD 4 /* that far weights with gaps are fetched, such as the keys of one head */
#define OUTPUTS_AHEAD (2 * TILE_OUTPUTS) /* that far other weights are fetched */

/* Where a tile reads and writes. */
struct tile {
    const char *row[TILE_ROWS];
    const char *weight[TILE_OUTPUTS];
    const char *next; /* what it fetches of weights that are wanted later, without gaps; or NULL */
    int64_t next_lines; /* registers of them for each of its own, at most TILE_OUTPUTS */
    int are_few;        /* the rows that meet the same weights */
    int64_t
        ahead; /* bytes from weights with gaps to those that are wanted some tiles later; or 0 */
};

/* Into the first cache, or with many rows, which fill that one, into the second. */
INLINE void fetch(const char *address, int are_few) {
    if (are_few)
        __builtin_prefetch(address, 0, 3);
    else
        __builtin_prefetch(address, 0, 2);
}

INLINE void add_register(vector sums[][TILE_OUTPUTS], const words *row, const words *weight,
                         int num_rows, enum dtype dtype) {
#pragma GCC unroll 4
    for (int i = 0; i < num_rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < TILE_OUTPUTS; j++)
            sums[i][j] = add_products(sums[i][j], row[i], weight[j], dtype);
}

INLINE void dot_products(const struct tile *tile, int num_rows, int64_t width, enum dtype dtype,
                         quad *results) {
    const int64_t end = width * item_bytes(dtype), whole = end - end % REGISTER_BYTES;
    vector sums[TILE_ROWS][TILE_OUTPUTS] = {{{0}}};
    words row[TILE_ROWS], weight[TILE_OUTPUTS];
    for (int64_t at = 0; at < whole; at += REGISTER_BYTES) {
#pragma GCC unroll 4
        for (int j = 0; j < TILE_OUTPUTS; j++) {
            weight[j] = load_register(tile->weight[j] + at);
            if (tile->ahead) fetch(tile->weight[j] + tile->ahead + at, 1);
            if (tile->next && j < tile->next_lines)
                fetch(tile->next + at * tile->next_lines + j * REGISTER_BYTES, tile->are_few);
        }
#pragma GCC unroll 4
        for (int i = 0; i < num_rows; i++) row[i] = load_register(tile->row[i] + at);
        add_register(sums, row, weight, num_rows, dtype);
    }
    if (whole < end) {
        for (int j = 0; j < TILE_OUTPUTS; j++)
            weight[j] = load_part(tile->weight[j] + whole, end - whole);
        for (int i = 0; i < num_rows; i++) row[i] = load_part(tile->row[i] + whole, end - whole);
        add_register(sums, row, weight, num_rows, dtype);
    }
#pragma GCC unroll 4
    for (int i = 0; i < num_rows; i++)
        results[i] = sum_each(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
}

/* Four numbers of which `count` lie at `from`. */
INLINE quad load_quad(const char *from, int64_t count, enum dtype dtype) {
    if (dtype == FLOAT32) {
        quad loaded = {0};
        memcpy(&loaded, from, (size_t)count * 4);
        return loaded;
    }
    quad_half_words loaded = {0};
    memcpy(&loaded, from, (size_t)count * 2);
    return (quad)(__builtin_convertvector(loaded, quad_words) << 16);
}

INLINE void store_quad(char *to, quad values, int64_t count, enum dtype dtype) {
    if (dtype == FLOAT32) {
        memcpy(to, &values, (size_t)count * 4);
        return;
    }
    quad_half_words rounded = quad_to_bfloat16(values);
    if (count == 4)
        memcpy(to, &rounded, sizeof rounded);
    else
        memcpy(to, &rounded, (size_t)count * 2);
}

INLINE int64_t indexed(const int64_t *index, int64_t i) { return index ? index[i] : i; }

/* The results of rows first_row .. first_row + num_rows - 1 for the outputs from `output` on. */
INLINE void compute_tile(const struct product *p, struct tile *tile, int64_t first_row,
                         int num_rows, int64_t output, enum dtype dtype, enum dtype out_dtype) {
    const int64_t count =
        p->num_outputs - output < TILE_OUTPUTS ? p->num_outputs - output : TILE_OUTPUTS;
    const quad bias =
        p->bias ? load_quad(p->bias + output * item_bytes(dtype), count, dtype) : (quad){0};
    quad results[TILE_ROWS];
    for (int i = 0; i < num_rows; i++)
        tile->row[i] = p->rows + indexed(p->row_index, first_row + i) * p->row_stride;
    dot_products(tile, num_rows, p->width, dtype, results);
    for (int i = 0; i < num_rows; i++) {
        char *row = p->out + indexed(p->out_index, first_row + i) * p->out_stride;
        if (p->bias && p->is_bias_apart) results[i] = quad_rounded_to(results[i], out_dtype);
        store_quad(row + output * item_bytes(out_dtype), p->bias ? results[i] + bias : results[i],
                   count, out_dtype);
    }
}

/* Where the weights lie that are wanted some tiles after those from `output` on. They are fetched
 * line after line in the order in which they lie, since memory is read at its full speed only so,
 * and not in the order in which they are used. */
INLINE const char *wanted_later(const struct product *p, int64_t output) {
    const int64_t beyond = output + OUTPUTS_AHEAD - p->num_outputs;
    if (beyond < 0) return p->weight + (output + OUTPUTS_AHEAD) * p->weight_stride;
    return p->next_weight ? p->next_weight + beyond * p->weight_stride : NULL;
}

/* For each register of a tile so many are fetched that all tiles fetch a tile's weights. */
INLINE int64_t lines_each(int64_t num_rows) {
    if (num_rows <= TILE_ROWS) return TILE_OUTPUTS;
    return num_rows <= 3 * TILE_ROWS ? 2 : 1;
}

/* All tiles of the same outputs share in fetching, so that memory is read while they compute. */
INLINE struct tile first_tile(const struct product *p, int64_t output, enum dtype dtype) {
    const int has_gaps = p->weight_stride != p->width * item_bytes(dtype);
    struct tile tile = {
        .next = has_gaps ? NULL : wanted_later(p, output),
        .next_lines = lines_each(p->num_rows),
        .are_few = p->num_rows < TILE_ROWS,
        .ahead = has_gaps ? TILES_AHEAD * TILE_OUTPUTS * p->weight_stride : 0,
    };
    for (int64_t j = 0; j < TILE_OUTPUTS;
         j++) { /* past the end the last one stands in; its results are dropped */
        const int64_t row = output + j < p->num_outputs ? output + j : p->num_outputs - 1;
        tile.weight[j] = p->weight + row * p->weight_stride;
    }
    return tile;
}

/* What the next tile of the same outputs fetches; of weights with gaps the first has fetched all.
 */
INLINE void fetch_on(struct tile *tile, const struct product *p, int64_t next_row) {
    const int64_t num_fetched = next_row / TILE_ROWS * tile->next_lines;
    tile->ahead = 0;
    if (num_fetched >= TILE_OUTPUTS) tile->next = NULL;
    if (tile->next) tile->next += tile->next_lines * p->weight_stride;
}

/* The weights are read once, in order: all rows meet four of their rows before the next four are
 * touched. */
INLINE void multiply_as(const struct product *p, enum dtype dtype, enum dtype out_dtype) {
    for (int64_t output = 0; output < p->num_outputs; output += TILE_OUTPUTS) {
        struct tile tile = first_tile(p, output, dtype);
        for (int64_t row = 0; row < p->num_rows; row += TILE_ROWS) {
            switch (p->num_rows - row) { /* the number of rows is a constant in each, so that sums
                                            stay in registers */
            case 1: compute_tile(p, &tile, row, 1, output, dtype, out_dtype); break;
#if TILE_ROWS > 2
            case 2: compute_tile(p, &tile, row, 2, output, dtype, out_dtype); break;
            case 3: compute_tile(p, &tile, row, 3, output, dtype, out_dtype); break;
#endif
            default: compute_tile(p, &tile, row, TILE_ROWS, output, dtype, out_dtype);
            }
            fetch_on(&tile, p, row + TILE_ROWS);
        }
    }
}
