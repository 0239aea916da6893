/* A whole attention layer for rows whose keys and values lie in the cache: what its parts do, one
 * after the other. */

#include <stdlib.h>
#include <string.h>

#include "shares.h"

/* In place, each of the heads or all together; they are neighbours within a token. */
static void normalise_heads(const struct level *level, const struct attention_layer *layer,
                            char *token, int64_t heads, const char *weight, float epsilon) {
    const int64_t width = layer->attention.key_width;
    const struct normalisation call = {
        .rows = token,
        .inner_stride = width * item_bytes(layer->attention.dtype),
        .weight = weight,
        .out = token,
        .num_outer = 1,
        .num_inner = layer->norms_span_heads ? 1 : heads,
        .width = layer->norms_span_heads ? heads * width : width,
        .epsilon = epsilon,
        .dtype = layer->attention.dtype,
    };
    level->normalise(&call);
}

/* Normalisation, where there is one, and rotary embedding of the queries and keys of each token. */
static void place_heads(const struct level *level, const struct attention_layer *layer,
                        char *joined, int64_t stride) {
    const struct attention *attention = &layer->attention;
    const int64_t head = attention->key_width * item_bytes(attention->dtype);
    for (int64_t i = 0; layer->query_norm && i < attention->num_tokens; i++) {
        char *token = joined + i * stride;
        normalise_heads(level, layer, token, attention->num_heads, layer->query_norm,
                        layer->query_epsilon);
        normalise_heads(level, layer, token + attention->num_heads * head, attention->num_key_heads,
                        layer->key_norm, layer->key_epsilon);
    }
    const struct rotation rotation = {
        .heads = joined,
        .token_stride = stride,
        .head_stride = head,
        .cosines = layer->cosines,
        .sines = layer->sines,
        .angle_stride = layer->angle_stride,
        .num_tokens = attention->num_tokens,
        .num_heads = attention->num_heads + attention->num_key_heads,
        .width = attention->key_width,
        .dtype = attention->dtype,
    };
    level->rotate(&rotation);
}

/* `joined` holds keys, and after them values, from each token's place on. */
static void write_to_cache(const struct attention_layer *layer, const char *joined,
                           int64_t stride) {
    const size_t size = (size_t)layer->attention.key_slot_stride;
    for (int64_t i = 0; i < layer->num_written; i++) {
        const int64_t place = layer->slots[i] * layer->attention.key_slot_stride;
        memcpy(layer->keys + place, joined + i * stride, size);
        memcpy(layer->values + place, joined + i * stride + size, size);
    }
}

static struct product projection(const struct attention_layer *layer, const char *rows,
                                 int64_t width, char *out, int64_t num_outputs) {
    const enum dtype dtype = layer->attention.dtype;
    const int64_t item = item_bytes(dtype);
    return (struct product){
        .rows = rows,
        .row_stride = width * item,
        .weight_stride = width * item,
        .out = out,
        .out_stride = num_outputs * item,
        .num_rows = layer->attention.num_tokens,
        .num_outputs = num_outputs,
        .width = width,
        .dtype = dtype,
        .out_dtype = dtype,
    };
}

int run_attention_layer(const struct crew *crew, const struct level *level,
                        const struct attention_layer *layer, int64_t most) {
    struct attention attention = layer->attention;
    const int64_t head = attention.key_width * item_bytes(attention.dtype);
    const int64_t query_bytes = attention.num_heads * head,
                  key_bytes = attention.num_key_heads * head;
    const int64_t stride = query_bytes + 2 * key_bytes,
                  scores = crew_score_room(crew, &attention, most);
    char *room = malloc((size_t)(scores + attention.num_tokens * (stride + query_bytes)));
    if (!room) return -1;
    char *joined = room + scores, *attended = joined + attention.num_tokens * stride;
    const int64_t num_outputs =
        (attention.num_heads + 2 * attention.num_key_heads) * attention.key_width;
    struct product entering = projection(layer, layer->rows, layer->hidden, joined, num_outputs);
    entering.weight = layer->weight;
    entering.bias = layer->bias;
    multiply_by(crew, level, &entering);
    place_heads(level, layer, joined, stride);
    write_to_cache(layer, joined + query_bytes, stride);
    attention.query = joined;
    attention.query_token_stride = stride;
    attention.query_head_stride = head;
    attention.out = attended;
    attention.out_token_stride = query_bytes;
    attention.scores = (float *)room;
    attend_by(crew, level, &attention, most);
    const int64_t width = attention.num_heads * attention.key_width;
    struct product leaving = projection(layer, attended, width, layer->out, layer->hidden);
    leaving.weight = layer->out_weight;
    leaving.bias = layer->out_bias;
    multiply_by(crew, level, &leaving);
    free(room);
    return 0;
}
