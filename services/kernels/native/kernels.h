/* What every level of the instruction set offers: plain numbers in, plain memory out, nothing of
 * Python. */

#ifndef MOESAIC_KERNELS_H
#define MOESAIC_KERNELS_H

#include <stdint.h>
#include <string.h>

#include "logits.h"
#include "workers.h"

enum dtype { FLOAT32, BFLOAT16 };

/* A matrix product with weights as they lie in a linear layer: out[i] = rows[i] . weight^T + bias.
 *
 * Row i is read at rows + row_index[i] * row_stride, and its result written at out + out_index[i] *
 * out_stride; without an index it is i itself. All strides are in bytes; within a row, numbers are
 * neighbours. Sums are float32 and rounded once, to out_dtype. The bits of a row's result depend on
 * that row, the weights and the level.
 *
 * Transposed weights lie the other way round, an input's next to each other; then out_dtype is the
 * dtype. */
struct product {
    const char *rows;
    const int64_t *row_index;
    int64_t row_stride;
    const char *weight; /* [num_outputs, width], transposed [width, num_outputs] */
    int64_t weight_stride;
    int is_transposed;
    const char
        *next_weight;  /* what is wanted after these weights, to be fetched already, or NULL */
    const char *bias;  /* [num_outputs], or NULL */
    int is_bias_apart; /* it is added to what was rounded, and the sum is rounded */
    char *out;
    const int64_t *out_index;
    int64_t out_stride;
    int64_t num_rows, num_outputs, width;
    enum dtype dtype, out_dtype;
};

/* What is applied to a number, with one rounding; but SCALED_SIGMOID, x * sigmoid(scale * x), is
 * rounded after each of its three operations. */
enum activation { SILU, GELU, GELU_TANH, RELU, RELU_SQUARED, SCALED_SIGMOID };

/* What experts compute between their two products: activation(gate) * (up + offset). Before that
 * the gate is limited from above, and up on both sides. Without a gate it is activation(up). */
struct expert_kind {
    enum activation activation;
    int is_gated;
    int is_interleaved; /* gate and up take turns; else all of the gate comes first */
    float limit;        /* INFINITY for none */
    float scale, offset;
};

/* Rounded to the dtype after each operation. */
struct gating {
    const char *rows; /* [num_rows, 2 * width], without a gate [num_rows, width] */
    char *out;        /* [num_rows, width] */
    int64_t num_rows, width;
    struct expert_kind kind;
    enum dtype dtype;
};

/* One layer's experts on pairs of a row and the slot that the row's expert is in:
 * out[p] = down[slots[p]] . gated(gate_up[slots[p]] . rows[pair_rows[p]]). Strides are in bytes.
 *
 * Biases are added to products that were rounded, and the sums are rounded. Of transposed experts
 * the weights are [num_slots, hidden, ..] and [num_slots, intermediate, hidden]. */
struct experts {
    const char *rows; /* [.., hidden] */
    int64_t row_stride;
    const int64_t *pair_rows, *slots;
    const char *gate_up; /* [num_slots, 2 * intermediate, hidden]; without a gate, up alone */
    int64_t gate_up_stride;
    const char *gate_up_bias; /* [num_slots, 2 * intermediate], or NULL, as the other bias is */
    int64_t gate_up_bias_stride;
    const char *down; /* [num_slots, hidden, intermediate] */
    int64_t down_stride;
    const char *down_bias; /* [num_slots, hidden] */
    int64_t down_bias_stride;
    const int64_t *shifts; /* [num_slots, 2], or NULL: bytes that gate_up and down stand behind */
    char *out;             /* [num_pairs, hidden] */
    int64_t num_pairs, num_slots, hidden, intermediate;
    int is_transposed;
    struct expert_kind kind;
    enum dtype dtype;
};

/* Attention of tokens over the keys and values of their own sequences, which lie in neighbouring
 * slots of a cache.
 *
 * Token t sees num_keys[t] slots from first_slots[t] on, of these the last `window`; without keys
 * its result is zero. Strides are in bytes; within a head, numbers are neighbours. All arithmetic
 * is float32. */
struct attention {
    const char *query;
    int64_t query_token_stride, query_head_stride;
    const char *keys;
    int64_t key_slot_stride, key_head_stride;
    const char *values;
    int64_t value_slot_stride, value_head_stride;
    char *out; /* [num_tokens, num_heads, value_width] */
    int64_t out_token_stride;
    const int64_t *first_slots, *num_keys;
    const float
        *sinks; /* [num_heads], logits that take part in the softmax and have no value; or NULL */
    int64_t num_tokens, num_heads, num_key_heads, key_width, value_width, window;
    float scaling;
    float *scores; /* room for `score_room` */
    enum dtype dtype;
};

/* to += from, number by number, rounded to the dtype. */
struct addition {
    char *to;
    const char *from;
    int64_t count;
    enum dtype dtype;
};

/* Root mean square normalisation of rows [outer, inner, width]: rounded to the dtype, times weight,
 * and rounded. */
struct normalisation {
    const char *rows;
    int64_t outer_stride, inner_stride;
    const char *weight;
    char *out; /* without gaps */
    int64_t num_outer, num_inner, width;
    float epsilon;
    enum dtype dtype;
};

/* Rotary position embedding in place, with the two halves of a head as its coordinates. */
struct rotation {
    char *heads; /* [num_tokens, num_heads, width] */
    int64_t token_stride, head_stride;
    const char *cosines, *sines; /* [num_tokens, width] */
    int64_t angle_stride;
    int64_t num_tokens, num_heads, width;
    enum dtype dtype;
};

/* A whole attention layer for tokens that each see their own keys, as `attention` says; its
 * queries, scores and results are set on the way. Queries, keys and values are one product, in this
 * order; `slots` says where the keys and values of the first tokens go. All weights are without
 * gaps. */
struct attention_layer {
    struct attention attention;
    const char *rows; /* [num_tokens, hidden], without gaps */
    const char *weight,
        *bias; /* [(num_heads + 2 * num_key_heads) * width, hidden], and as many or NULL */
    const char *query_norm, *key_norm; /* [width], or both NULL */
    int norms_span_heads;              /* they are [heads * width], for all heads together */
    const char *out_weight, *out_bias; /* [hidden, num_heads * width], [hidden] or NULL */
    const char *cosines, *sines;       /* [num_tokens, width] */
    char *keys, *values;  /* [slots, num_key_heads, width], where attention reads them */
    char *out;            /* [num_tokens, hidden] */
    const int64_t *slots; /* [num_written] */
    int64_t num_written, hidden, angle_stride;
    float query_epsilon, key_epsilon;
};

/* An expert on its way to being chosen. */
struct scored {
    float score;
    int64_t expert;
};

/* The experts with the highest scores of each row, and their weights. Scores are the logits, or
 * their softmax. */
struct routing {
    const char *logits; /* [num_rows, num_experts] */
    char *weights; /* [num_rows, num_chosen]: their softmax where they are logits, else divided by
                      their sum or not */
    int64_t *indices; /* [num_rows, num_chosen] */
    int64_t num_rows, num_experts, num_chosen;
    int softmax_first, renormalise;
    enum dtype dtype, weights_dtype;
    float *scores;          /* room for [num_experts, padded] */
    struct scored *experts; /* room for [num_experts] */
};

/* What lies between the experts of two layers: `arrived` is added to the hidden states; they are
 * normalised for attention, whose result is added; and normalised for the gate, which chooses.
 * Attention's rows and results are set on the way, as are those of the other parts. */
struct between {
    struct attention_layer attention;
    struct normalisation before, after; /* attention */
    struct product gate;                /* without a weight there is none */
    struct routing routing;
    char *hidden;        /* [num_tokens, hidden], changed in place */
    const char *arrived; /* as many, or NULL */
    char *normed;        /* as many: what the gate and the experts see */
    int64_t gate_nanos;  /* how long the gate took, at the end */
};

/* Weighted sums of rows: out[t] = weights[t, 0] * rows[t, 0] + weights[t, 1] * rows[t, 1] + .., in
 * this order.
 *
 * A row that is NULL is zero. Products are rounded to `product`; sums are float32, rounded to
 * `product` and then to `out_dtype`. */
struct combination {
    const char **rows;    /* [num_tokens, top_k], each of `width` numbers of `dtype` */
    const float *weights; /* [num_tokens, top_k] */
    char *out;            /* [num_tokens, width] */
    int64_t num_tokens, top_k, width;
    enum dtype dtype, product, out_dtype;
};

/* One level: the same functions, compiled for one instruction set. */
struct level {
    const char *name;
    void (*multiply)(const struct product *);
    int64_t tile_outputs; /* so many outputs it computes at once */
    int arranges_rows;    /* for each call anew, so that many rows are worth many outputs */
    void (*gate)(const struct gating *);
    void (*attend)(const struct attention *);
    void (*add)(const struct addition *);
    void (*normalise)(const struct normalisation *);
    void (*rotate)(const struct rotation *);
    int (*combine)(const struct combination *); /* whether all sums are finite */
    void (*route)(const struct routing *);
    void (*survey)(struct vocabulary *); /* sets what is highest and lowest */
    /* The sums of the shares in each bin, [VOCABULARY_BINS]. */
    void (*tally)(const struct vocabulary *, double *sums);
    /* The tokens of a bin, ascending, into room for one more; how many there are. */
    int64_t (*pick)(const struct vocabulary *, int bin, int32_t *tokens);
    /* The sum of the shares of at least `high`; -inf where one lies between `low` and that. */
    double (*sum_of_at_least)(const struct vocabulary *, double low, double high);
};

extern const struct level level_portable;
#if defined(__x86_64__)
extern const struct level level_avx2, level_avx512, level_avx512_bf16;
#endif

/* Compilers from here on know the matrix unit, and Linux lends it. */
#if defined(__x86_64__) && defined(__linux__)
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define HAS_MATRIX_UNIT
extern const struct level level_amx_bf16;
#endif
#endif

/* The portable level but for its products of bfloat16, which have the bits of `level_amx_bf16`. For
 * tests: it runs everywhere, slowly. */
extern const struct level level_amx_emulated;

/* Scores, of a token for its keys or of a row for the experts, are padded to a multiple of the
 * widest register. */
#define PADDED_SCORES(count) (((count) + 15) / 16 * 16)

/* Tokens of one sequence are attended together as long as they have no more queries than this for a
 * head of keys. */
#define BLOCK_QUERIES 16

static inline int64_t item_bytes(enum dtype dtype) { return dtype == BFLOAT16 ? 2 : 4; }

static inline void widen_weights(float *into, const char *weights, int64_t count,
                                 enum dtype dtype) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = 0;
        if (dtype == FLOAT32)
            bits = ((const uint32_t *)weights)[i];
        else
            bits = (uint32_t)((const uint16_t *)weights)[i] << 16;
        memcpy(into + i, &bits, sizeof bits);
    }
}

/* Bytes for the scores of an attention whose tokens see at most so many keys; never 0. */
static inline int64_t score_room(const struct attention *call, int64_t most) {
    const int64_t group = call->num_heads / call->num_key_heads;
    const int64_t queries = group > BLOCK_QUERIES ? group : BLOCK_QUERIES;
    return (queries * PADDED_SCORES(most) + 1) * (int64_t)sizeof(float);
}

/* Runs experts by a crew of its own. 0, or -1 when memory is short. */
int run_experts(const struct level *level, const struct experts *call);

/* `most` keys are seen by a token. 0, or -1 when memory is short. */
int run_attention_layer(const struct crew *crew, const struct level *level,
                        const struct attention_layer *layer, int64_t most);

/* The product, and the choice from its results. 0, or -1 when memory is short. */
int run_gate(const struct crew *crew, const struct level *level, const struct product *product,
             const struct routing *routing);

/* `most` keys are seen by a token. 0, or -1 when memory is short. */
int run_between(const struct crew *crew, const struct level *level, struct between *call,
                int64_t most);

#endif
