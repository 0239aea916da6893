/* Products and attention, part by part. */

#include "shares.h"

/* Of weights in a part of a product: short beside a product, long beside what a part costs. */
#define PART_BYTES (128 << 10)
/* Of transposed weights, whose outputs lie side by side: narrower parts jump from line to line. */
#define TRANSPOSED_OUTPUTS 512
/* Where each part arranges all rows: so many that a row's outputs take far longer than arranging
 * it, and there are parts enough. */
#define OUTPUTS_A_ROW 4
#define MOST_ROWS 128

/* Tokens in a part of attention: whole blocks where they are one sequence's. */
#define PART_TOKENS 16

int64_t outputs_a_part(const struct level *level, const struct product *product) {
    if (product->is_transposed) return TRANSPOSED_OUTPUTS;
    const int64_t tile_bytes = product->width * item_bytes(product->dtype) * level->tile_outputs;
    const int64_t num_tiles = tile_bytes ? PART_BYTES / tile_bytes : 1;
    const int64_t long_enough = level->tile_outputs * (num_tiles ? num_tiles : 1);
    if (!level->arranges_rows || product->dtype != BFLOAT16) return long_enough;
    const int64_t rows = product->num_rows < MOST_ROWS ? product->num_rows : MOST_ROWS;
    const int64_t worth = rows * OUTPUTS_A_ROW / level->tile_outputs * level->tile_outputs;
    return worth > long_enough ? worth : long_enough;
}

int64_t num_product_parts(const struct product *product, int64_t outputs_each) {
    return (product->num_outputs + outputs_each - 1) / outputs_each;
}

struct product product_part(const struct product *product, int64_t outputs_each, int64_t part) {
    const int64_t first = part * outputs_each, left = product->num_outputs - first;
    struct product found = *product;
    found.num_outputs = left < outputs_each ? left : outputs_each;
    found.weight +=
        first * (product->is_transposed ? item_bytes(product->dtype) : product->weight_stride);
    if (product->bias) found.bias += first * item_bytes(product->dtype);
    found.out += first * item_bytes(product->out_dtype);
    found.next_weight = NULL; /* who computes them is not known */
    return found;
}

struct shared_product {
    const struct level *level;
    const struct product *product;
    int64_t outputs_each;
};

static void multiply_part(const void *call, int64_t part, int thread) {
    const struct shared_product *shared = call;
    const struct product product = product_part(shared->product, shared->outputs_each, part);
    (void)thread;
    shared->level->multiply(&product);
}

void multiply_by(const struct crew *crew, const struct level *level,
                 const struct product *product) {
    const int64_t outputs_each = outputs_a_part(level, product);
    const struct shared_product shared = {level, product, outputs_each};
    if (crew->num_threads > 1)
        run_parts(crew, multiply_part, &shared, num_product_parts(product, outputs_each));
    else
        level->multiply(product);
}

struct shared_attention {
    const struct level *level;
    const struct attention *attention;
    int64_t score_bytes;
};

/* The tokens from `first` on, of the heads that share one head of keys. */
static struct attention attention_part(const struct attention *call, int64_t first,
                                       int64_t key_head) {
    const int64_t group = call->num_heads / call->num_key_heads, head = key_head * group;
    const int64_t left = call->num_tokens - first;
    struct attention part = *call;
    part.query += first * call->query_token_stride + head * call->query_head_stride;
    part.keys += key_head * call->key_head_stride;
    part.values += key_head * call->value_head_stride;
    part.out += first * call->out_token_stride + head * call->value_width * item_bytes(call->dtype);
    part.first_slots += first;
    part.num_keys += first;
    if (call->sinks) part.sinks += head;
    part.num_tokens = left < PART_TOKENS ? left : PART_TOKENS;
    part.num_heads = group;
    part.num_key_heads = 1;
    return part;
}

static void attend_part(const void *call, int64_t number, int thread) {
    const struct shared_attention *shared = call;
    const int64_t num_key_heads = shared->attention->num_key_heads;
    struct attention part = attention_part(shared->attention, number / num_key_heads * PART_TOKENS,
                                           number % num_key_heads);
    part.scores = (float *)((char *)part.scores + thread * shared->score_bytes);
    shared->level->attend(&part);
}

void attend_by(const struct crew *crew, const struct level *level, const struct attention *call,
               int64_t most) {
    const struct shared_attention shared = {level, call, score_room(call, most)};
    const int64_t stretches = (call->num_tokens + PART_TOKENS - 1) / PART_TOKENS;
    if (crew->num_threads > 1)
        run_parts(crew, attend_part, &shared, stretches * call->num_key_heads);
    else
        level->attend(call);
}
