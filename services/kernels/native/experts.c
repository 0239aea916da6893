/* Experts: pairs are grouped by slot, and each group goes through its expert's two products. A crew
 * takes as many groups at once as there is room for, product by product. */

#include <stdlib.h>

#include "shares.h"

/* Of what comes between the products of the groups that are computed at once, unless a single one
 * has more; and how many groups they are at most. */
#define MOST_ROOM_BYTES ((int64_t)4 << 20)
#define MOST_AT_ONCE 64

/* The pairs sorted by slot; within a slot they keep their order. */
struct groups {
    int64_t *ends;  /* [num_slots], where in the sorted order each slot's pairs end */
    int64_t *pairs; /* [num_pairs], the pair at each place of the order */
    int64_t *rows;  /* [num_pairs], and its row */
    int64_t num_groups, largest;
};

/* One slot's pairs, in the sorted order from `begin` on. `room` holds three times the intermediate
 * width for each. */
struct group {
    int64_t slot, begin, num_rows;
    char *room;
};

/* Counting sort. */
static void group_by_slot(const struct experts *call, struct groups *groups) {
    int64_t begin = 0;
    for (int64_t pair = 0; pair < call->num_pairs; pair++) groups->ends[call->slots[pair]]++;
    for (int64_t slot = 0; slot < call->num_slots; slot++) {
        const int64_t count = groups->ends[slot];
        if (count > groups->largest) groups->largest = count;
        groups->num_groups += count > 0;
        groups->ends[slot] = begin; /* for now where the slot's next pair goes */
        begin += count;
    }
    for (int64_t pair = 0; pair < call->num_pairs; pair++) {
        const int64_t place = groups->ends[call->slots[pair]]++;
        groups->pairs[place] = pair;
        groups->rows[place] = call->pair_rows[pair];
    }
}

static struct group group_from(const struct experts *call, const struct groups *groups,
                               int64_t begin, char *room) {
    const int64_t slot = call->slots[groups->pairs[begin]];
    return (struct group){slot, begin, groups->ends[slot] - begin, room};
}

static int64_t room_of(const struct experts *call, int64_t num_pairs) {
    return num_pairs * 3 * call->intermediate * item_bytes(call->dtype);
}

/* The numbers that an expert's first product gives for a row. */
static int64_t entered_width(const struct experts *call) {
    return (call->kind.is_gated ? 2 : 1) * call->intermediate;
}

/* Where the activations lie, behind what they are made of. */
static char *activated(const struct experts *call, const struct group *group) {
    return group->room + group->num_rows * entered_width(call) * item_bytes(call->dtype);
}

/* Where a slot's weights begin: gate's and up's, then those of the second product. */
static const char *gate_up_of(const struct experts *call, int64_t slot) {
    const int64_t shift = call->shifts ? call->shifts[2 * slot] : 0;
    return call->gate_up + slot * call->gate_up_stride + shift;
}

static const char *down_of(const struct experts *call, int64_t slot) {
    const int64_t shift = call->shifts ? call->shifts[2 * slot + 1] : 0;
    return call->down + slot * call->down_stride + shift;
}

/* A slot's bias, or NULL. */
static const char *bias_of(const char *biases, int64_t slot, int64_t stride) {
    return biases ? biases + slot * stride : NULL;
}

static struct product entering(const struct experts *call, const struct groups *groups,
                               const struct group *group) {
    const int64_t item = item_bytes(call->dtype), entered = entered_width(call);
    return (struct product){
        .rows = call->rows,
        .row_index = groups->rows + group->begin,
        .row_stride = call->row_stride,
        .weight = gate_up_of(call, group->slot),
        .weight_stride = (call->is_transposed ? entered : call->hidden) * item,
        .is_transposed = call->is_transposed,
        .next_weight = down_of(call, group->slot),
        .bias = bias_of(call->gate_up_bias, group->slot, call->gate_up_bias_stride),
        .is_bias_apart = 1,
        .out = group->room,
        .out_stride = entered * item,
        .num_rows = group->num_rows,
        .num_outputs = entered,
        .width = call->hidden,
        .dtype = call->dtype,
        .out_dtype = call->dtype,
    };
}

static struct gating between_of(const struct experts *call, const struct group *group) {
    return (struct gating){group->room,     activated(call, group),
                           group->num_rows, call->intermediate,
                           call->kind,      call->dtype};
}

/* The gate and up weights of the next slot that has pairs, or NULL. */
static const char *next_expert(const struct experts *call, const struct groups *groups,
                               int64_t slot) {
    const int64_t end = groups->ends[slot];
    if (end == call->num_pairs) return NULL;
    return gate_up_of(call, call->slots[groups->pairs[end]]);
}

static struct product leaving(const struct experts *call, const struct groups *groups,
                              const struct group *group) {
    const int64_t item = item_bytes(call->dtype);
    return (struct product){
        .rows = activated(call, group),
        .row_stride = call->intermediate * item,
        .weight = down_of(call, group->slot),
        .weight_stride = (call->is_transposed ? call->hidden : call->intermediate) * item,
        .is_transposed = call->is_transposed,
        .next_weight = next_expert(call, groups, group->slot),
        .bias = bias_of(call->down_bias, group->slot, call->down_bias_stride),
        .is_bias_apart = 1,
        .out = call->out,
        .out_index = groups->pairs + group->begin,
        .out_stride = call->hidden * item,
        .num_rows = group->num_rows,
        .num_outputs = call->hidden,
        .width = call->intermediate,
        .dtype = call->dtype,
        .out_dtype = call->dtype,
    };
}

static void run_alone(const struct level *level, const struct experts *call,
                      const struct groups *groups, char *room) {
    for (int64_t begin = 0; begin < call->num_pairs;) {
        const struct group group = group_from(call, groups, begin, room);
        const struct product first = entering(call, groups, &group);
        const struct gating gating = between_of(call, &group);
        const struct product second = leaving(call, groups, &group);
        level->multiply(&first);
        level->gate(&gating);
        level->multiply(&second);
        begin += group.num_rows;
    }
}

/* Groups that a crew computes at once. All have products of the same size, but for the rows. */
struct wave {
    const struct level *level;
    const struct experts *call;
    const struct groups *groups;
    struct group members[MOST_AT_ONCE];
    int64_t num_members, outputs_each, parts_each;
};

static void enter_part(const void *call, int64_t part, int thread) {
    const struct wave *wave = call;
    const struct group *group = wave->members + part / wave->parts_each;
    const struct product whole = entering(wave->call, wave->groups, group);
    const struct product product =
        product_part(&whole, wave->outputs_each, part % wave->parts_each);
    (void)thread;
    wave->level->multiply(&product);
}

static void gate_part(const void *call, int64_t part, int thread) {
    const struct wave *wave = call;
    const struct gating gating = between_of(wave->call, wave->members + part);
    (void)thread;
    wave->level->gate(&gating);
}

static void leave_part(const void *call, int64_t part, int thread) {
    const struct wave *wave = call;
    const struct group *group = wave->members + part / wave->parts_each;
    const struct product whole = leaving(wave->call, wave->groups, group);
    const struct product product =
        product_part(&whole, wave->outputs_each, part % wave->parts_each);
    (void)thread;
    wave->level->multiply(&product);
}

/* Takes the groups from `begin` on that have room together; where the next one begins. */
static int64_t fill(struct wave *wave, int64_t begin, char *room) {
    const struct experts *call = wave->call;
    int64_t used = 0;
    for (wave->num_members = 0; begin < call->num_pairs && wave->num_members < MOST_AT_ONCE;) {
        const struct group group = group_from(call, wave->groups, begin, room + used);
        used += room_of(call, group.num_rows);
        if (wave->num_members && used > MOST_ROOM_BYTES) break;
        wave->members[wave->num_members++] = group;
        begin += group.num_rows;
    }
    return begin;
}

/* Into parts as the largest product is worth: all are divided alike. */
static void divide(struct wave *wave, struct product product) {
    for (int64_t i = 0; i < wave->num_members; i++)
        if (wave->members[i].num_rows > product.num_rows)
            product.num_rows = wave->members[i].num_rows;
    wave->outputs_each = outputs_a_part(wave->level, &product);
    wave->parts_each = num_product_parts(&product, wave->outputs_each);
}

static void run_by(const struct crew *crew, const struct level *level, const struct experts *call,
                   const struct groups *groups, char *room) {
    struct wave wave = {.level = level, .call = call, .groups = groups};
    for (int64_t begin = 0; begin < call->num_pairs;) {
        begin = fill(&wave, begin, room);
        const struct product first = entering(call, groups, wave.members);
        const struct product second = leaving(call, groups, wave.members);
        divide(&wave, first);
        run_parts(crew, enter_part, &wave, wave.num_members * wave.parts_each);
        run_parts(crew, gate_part, &wave, wave.num_members);
        divide(&wave, second);
        run_parts(crew, leave_part, &wave, wave.num_members * wave.parts_each);
    }
}

static int run_groups(const struct crew *crew, const struct level *level,
                      const struct experts *call, const struct groups *groups) {
    const int64_t largest = room_of(call, groups->largest), all = room_of(call, call->num_pairs);
    const int64_t together = all < MOST_ROOM_BYTES ? all : MOST_ROOM_BYTES;
    const int is_alone = crew->num_threads == 1;
    char *room = malloc((size_t)(is_alone || largest > together ? largest : together) + 1);
    if (!room) return -1;
    if (is_alone)
        run_alone(level, call, groups, room);
    else
        run_by(crew, level, call, groups, room);
    free(room);
    return 0;
}

int run_experts(const struct level *level, const struct experts *call) {
    struct groups groups = {
        .ends = calloc((size_t)(call->num_slots + 2 * call->num_pairs + 1), sizeof(int64_t))};
    if (!groups.ends) return -1;
    groups.pairs = groups.ends + call->num_slots;
    groups.rows = groups.pairs + call->num_pairs;
    group_by_slot(call, &groups);
    const int64_t rows_each = call->num_pairs / (groups.num_groups ? groups.num_groups : 1);
    const struct crew crew =
        gather_crew(3 * call->num_pairs * call->hidden * call->intermediate, rows_each);
    const int failed = run_groups(&crew, level, call, &groups);
    dismiss_crew(&crew);
    free(groups.ends);
    return failed;
}
