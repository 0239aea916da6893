/* Attention: for a block of a sequence's tokens and each head of keys, all heads of queries that
 * share it.
 *
 * A result depends on its token's query and keys alone: everything is summed up in the order of the
 * keys, and a block is without effect. */

#define TILE_QUERIES 4
#define SLOTS_AHEAD 16 /* that far values are fetched */

/* Softmax of the scaled scores in place; `scaling` is positive. There is room up to a multiple of
 * LANES.
 *
 * Torch's fused attention rounds powers to the dtype for their product with the values, but not for
 * their sum, and divides afterwards; so does this, to differ from it as little as can be. With a
 * sink torch has no fused attention. */
INLINE void weigh(float *scores, int64_t num_keys, float scaling, const float *sink,
                  enum dtype dtype) {
    vector highest = every(sink ? *sink : -__builtin_inff()), sums = {0};
    for (int64_t i = num_keys; i % LANES; i++) scores[i] = -__builtin_inff();
    for (int64_t i = 0; i < num_keys; i += LANES) {
        const vector scaled = load_floats(scores + i) * scaling;
        store_floats(scores + i, scaled);
        highest = either((words)(highest > scaled), highest, scaled);
    }
    float peak = highest[0];
    for (int lane = 1; lane < LANES; lane++) peak = highest[lane] > peak ? highest[lane] : peak;
    for (int64_t i = 0; i < num_keys; i += LANES) {
        const vector weights = exponential(load_floats(scores + i) - peak);
        store_floats(scores + i, sink ? weights : rounded_to(weights, dtype));
        sums += weights;
    }
    const float total = sum_of(sums) + (sink ? exponential(every(*sink - peak))[0] : 0.0f);
    for (int64_t i = 0; i < num_keys; i += LANES)
        store_floats(scores + i, load_floats(scores + i) / total);
}

/* What the queries of a block that share one head of keys need to gather its values. */
struct gathering {
    const float *weights; /* [queries, stride] */
    int64_t stride;
    int64_t num_keys,
        group; /* keys that the first `group` queries see; each next group, one more */
    const char *values;
    int64_t slot_stride;
    char *out; /* [queries / group, group, value width] */
    int64_t out_token_stride, out_stride;
};

INLINE int64_t keys_of(const struct gathering *g, int64_t query) {
    return g->num_keys + query / g->group;
}

/* `count` numbers of the values, at most two registers, for a constant number of queries: each
 * value is loaded once. */
INLINE void gather_tile(const struct gathering *g, int64_t query, int num_queries, int64_t column,
                        int64_t count, enum dtype dtype) {
    const int64_t item = item_bytes(dtype), common = keys_of(g, query),
                  last = keys_of(g, query + num_queries - 1);
    vector low[TILE_QUERIES] = {{0}}, high[TILE_QUERIES] = {{0}};
    for (int64_t key = 0; key < last; key++) {
        const char *values = g->values + key * g->slot_stride + column * item;
        __builtin_prefetch(values + SLOTS_AHEAD * g->slot_stride);
        const vector low_values = load_numbers(values, count, dtype);
        const vector high_values =
            count > LANES ? load_numbers(values + LANES * item, count - LANES, dtype) : every(0);
#pragma GCC unroll 4
        for (int i = 0; i < num_queries; i++) {
            if (key >= common && key >= keys_of(g, query + i)) continue;
            const vector weight = every(g->weights[(query + i) * g->stride + key]);
            low[i] = multiply_add(weight, low_values, low[i]);
            high[i] = multiply_add(weight, high_values, high[i]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < num_queries; i++) {
        const int64_t token = (query + i) / g->group;
        char *out = g->out + token * g->out_token_stride +
                    (query + i - token * g->group) * g->out_stride + column * item;
        store_numbers(out, low[i], count, dtype);
        if (count > LANES) store_numbers(out + LANES * item, high[i], count - LANES, dtype);
    }
}

INLINE void gather(const struct gathering *g, int64_t num_queries, int64_t width,
                   enum dtype dtype) {
    for (int64_t column = 0; column < width; column += 2 * LANES) {
        const int64_t count = width - column < 2 * LANES ? width - column : 2 * LANES;
        for (int64_t query = 0; query < num_queries; query += TILE_QUERIES) {
            switch (num_queries - query) {
            case 1: gather_tile(g, query, 1, column, count, dtype); break;
            case 2: gather_tile(g, query, 2, column, count, dtype); break;
            case 3: gather_tile(g, query, 3, column, count, dtype); break;
            default: gather_tile(g, query, TILE_QUERIES, column, count, dtype);
            }
        }
    }
}

/* The queries of a block's tokens that share a head of keys. The first token is `token`; each next
 * one sees one key more. */
INLINE void attend_group(const struct attention *call, int64_t token, int64_t num_tokens,
                         int64_t key_head, enum dtype dtype) {
    const int64_t group = call->num_heads / call->num_key_heads, first_head = key_head * group;
    const int64_t num_keys =
        call->num_keys[token] < call->window ? call->num_keys[token] : call->window;
    const int64_t first_slot = call->first_slots[token] + call->num_keys[token] - num_keys;
    const int64_t out_stride = call->value_width * item_bytes(dtype),
                  most_keys = num_keys + num_tokens - 1, stride = PADDED_SCORES(most_keys);
    int64_t places[BLOCK_QUERIES];
    for (int64_t i = 0; num_tokens > 1 && i < num_tokens * group; i++)
        places[i] = i / group * call->query_token_stride + i % group * call->query_head_stride;
    const struct product product = {
        .rows =
            call->query + token * call->query_token_stride + first_head * call->query_head_stride,
        .row_index = num_tokens > 1 ? places : NULL,
        .row_stride = num_tokens > 1 ? 1 : call->query_head_stride,
        .weight =
            call->keys + first_slot * call->key_slot_stride + key_head * call->key_head_stride,
        .weight_stride = call->key_slot_stride,
        .out = (char *)call->scores,
        .out_stride = stride * (int64_t)sizeof(float),
        .num_rows = num_tokens * group,
        .num_outputs = most_keys,
        .width = call->key_width,
    };
    multiply_as(&product, dtype, FLOAT32);
    for (int64_t i = 0; i < num_tokens * group; i++) {
        const float *sink = call->sinks ? call->sinks + first_head + i % group : NULL;
        weigh(call->scores + i * stride, num_keys + i / group, call->scaling, sink, dtype);
    }
    const struct gathering gathering = {
        .weights = call->scores,
        .stride = stride,
        .num_keys = num_keys,
        .group = group,
        .values = call->values + first_slot * call->value_slot_stride +
                  key_head * call->value_head_stride,
        .slot_stride = call->value_slot_stride,
        .out = call->out + token * call->out_token_stride + first_head * out_stride,
        .out_token_stride = call->out_token_stride,
        .out_stride = out_stride,
    };
    gather(&gathering, num_tokens * group, call->value_width, dtype);
}

/* How many tokens from `token` on are neighbours in one sequence and see all before them, up to a
 * block's. */
INLINE int64_t block_from(const struct attention *call, int64_t token) {
    const int64_t most = BLOCK_QUERIES / (call->num_heads / call->num_key_heads);
    int64_t count = 1;
    while (count < most && token + count < call->num_tokens &&
           call->first_slots[token + count] == call->first_slots[token] &&
           call->num_keys[token + count] == call->num_keys[token] + count &&
           call->num_keys[token + count] <= call->window)
        count++;
    return count;
}

INLINE void attend_as(const struct attention *call, enum dtype dtype) {
    const int64_t token_bytes = call->num_heads * call->value_width * item_bytes(dtype);
    for (int64_t token = 0, count = 1; token < call->num_tokens; token += count) {
        if (call->num_keys[token] == 0) {
            memset(call->out + token * call->out_token_stride, 0, (size_t)token_bytes);
            count = 1;
            continue;
        }
        count = block_from(call, token);
        for (int64_t head = 0; head < call->num_key_heads; head++)
            attend_group(call, token, count, head, dtype);
    }
}

TARGET static void attend(const struct attention *call) {
    if (call->dtype == FLOAT32)
        attend_as(call, FLOAT32);
    else
        attend_as(call, BFLOAT16);
}
