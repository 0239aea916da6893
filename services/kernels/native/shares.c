/* Products and attention, part by part. */

#include "shares.h"

/* Of weights in a part of a product: short beside a product, long beside what a part costs. */
#define PART_BYTES (128 << 10)
#define OUTPUTS_A_TILE 4
/* Of transposed weights, whose outputs lie side by side: narrower parts jump from line to line. */
#define TRANSPOSED_OUTPUTS 512

/* Tokens in a part of attention: whole blocks where they are one sequence's. */
#define PART_TOKENS 16

static int64_t outputs_a_part(const struct product *product) {
    if (product->is_transposed) return TRANSPOSED_OUTPUTS;
    const int64_t tile_bytes = product->width * item_bytes(product->dtype) * OUTPUTS_A_TILE;
    const int64_t num_tiles = tile_bytes ? PART_BYTES / tile_bytes : 1;
    return OUTPUTS_A_TILE * (num_tiles ? num_tiles : 1);
}

int64_t num_product_parts(const struct product *product) {
    const int64_t each = outputs_a_part(product);
    return (product->num_outputs + each - 1) / each;
}

struct product product_part(const struct product *product, int64_t part) {
    const int64_t each = outputs_a_part(product), first = part * each,
                  left = product->num_outputs - first;
    struct product found = *product;
    found.num_outputs = left < each ? left : each;
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
};

static void multiply_part(const void *call, int64_t part, int thread) {
    const struct shared_product *shared = call;
    const struct product product = product_part(shared->product, part);
    (void)thread;
    shared->level->multiply(&product);
}

void multiply_by(const struct crew *crew, const struct level *level,
                 const struct product *product) {
    const struct shared_product shared = {level, product};
    if (crew->num_threads > 1)
        run_parts(crew, multiply_part, &shared, num_product_parts(product));
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
