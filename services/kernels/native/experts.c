/* Experts: pairs are grouped by slot, and each group goes through its expert's two products.
 */

#include <stdlib.h>

#include "kernels.h"

/* The pairs sorted by slot; within a slot they keep their order. */
struct groups {
    int64_t *ends;  /* [num_slots], where in the sorted order each slot's pairs end */
    int64_t *pairs; /* [num_pairs], the pair at each place of the order */
    int64_t *rows;  /* [num_pairs], and its row */
    int64_t largest;
};

/* Counting sort. */
static void group_by_slot(const struct experts *call, struct groups *groups) {
    int64_t begin = 0;
    for (int64_t pair = 0; pair < call->num_pairs; pair++) groups->ends[call->slots[pair]]++;
    for (int64_t slot = 0; slot < call->num_slots; slot++) {
        const int64_t count = groups->ends[slot];
        if (count > groups->largest) groups->largest = count;
        groups->ends[slot] = begin; /* for now where the slot's next pair goes */
        begin += count;
    }
    for (int64_t pair = 0; pair < call->num_pairs; pair++) {
        const int64_t place = groups->ends[call->slots[pair]]++;
        groups->pairs[place] = pair;
        groups->rows[place] = call->pair_rows[pair];
    }
}

/* The gate and up weights of the next slot that has pairs, or NULL. */
static const char *next_expert(const struct experts *call, const struct groups *groups,
                               int64_t slot) {
    const int64_t end = groups->ends[slot];
    if (end == call->num_pairs) return NULL;
    return call->gate_up + call->slots[groups->pairs[end]] * call->gate_up_stride;
}

/* The numbers that an expert's first product gives for a row. */
static int64_t entered_width(const struct experts *call) {
    return (call->kind.is_gated ? 2 : 1) * call->intermediate;
}

/* A slot's bias, or NULL. */
static const char *bias_of(const char *biases, int64_t slot, int64_t stride) {
    return biases ? biases + slot * stride : NULL;
}

/* The sorted pairs from `begin` to the end of `slot`. `room` holds three times the intermediate
 * width for each. */
static void run_group(const struct level *level, const struct experts *call,
                      const struct groups *groups, int64_t slot, int64_t begin, char *room) {
    const int64_t item = item_bytes(call->dtype), num_rows = groups->ends[slot] - begin;
    const int64_t entered = entered_width(call);
    char *activated = room + num_rows * entered * item;
    const char *down = call->down + slot * call->down_stride;
    const struct product entering = {
        .rows = call->rows,
        .row_index = groups->rows + begin,
        .row_stride = call->row_stride,
        .weight = call->gate_up + slot * call->gate_up_stride,
        .weight_stride = (call->is_transposed ? entered : call->hidden) * item,
        .is_transposed = call->is_transposed,
        .next_weight = down,
        .bias = bias_of(call->gate_up_bias, slot, call->gate_up_bias_stride),
        .is_bias_apart = 1,
        .out = room,
        .out_stride = entered * item,
        .num_rows = num_rows,
        .num_outputs = entered,
        .width = call->hidden,
        .dtype = call->dtype,
        .out_dtype = call->dtype,
    };
    const struct gating gating = {room,       activated,  num_rows, call->intermediate,
                                  call->kind, call->dtype};
    const struct product leaving = {
        .rows = activated,
        .row_stride = call->intermediate * item,
        .weight = down,
        .weight_stride = (call->is_transposed ? call->hidden : call->intermediate) * item,
        .is_transposed = call->is_transposed,
        .next_weight = next_expert(call, groups, slot),
        .bias = bias_of(call->down_bias, slot, call->down_bias_stride),
        .is_bias_apart = 1,
        .out = call->out,
        .out_index = groups->pairs + begin,
        .out_stride = call->hidden * item,
        .num_rows = num_rows,
        .num_outputs = call->hidden,
        .width = call->intermediate,
        .dtype = call->dtype,
        .out_dtype = call->dtype,
    };
    level->multiply(&entering);
    level->gate(&gating);
    level->multiply(&leaving);
}

int run_experts(const struct level *level, const struct experts *call) {
    struct groups groups = {
        .ends = calloc((size_t)(call->num_slots + 2 * call->num_pairs + 1), sizeof(int64_t))};
    if (!groups.ends) return -1;
    groups.pairs = groups.ends + call->num_slots;
    groups.rows = groups.pairs + call->num_pairs;
    group_by_slot(call, &groups);
    char *room =
        malloc((size_t)(groups.largest * 3 * call->intermediate * item_bytes(call->dtype) + 1));
    for (int64_t begin = 0; room && begin < call->num_pairs;) {
        const int64_t slot = call->slots[groups.pairs[begin]];
        run_group(level, call, &groups, slot, begin, room);
        begin = groups.ends[slot];
    }
    free(groups.ends);
    free(room);
    return room ? 0 : -1;
}
