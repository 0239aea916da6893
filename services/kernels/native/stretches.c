/* Counting sort of pairs by the service that owns their expert. */

#include "stretches.h"

#include <stdlib.h>

static struct stretch *stretch_of(const struct scatter *call, int64_t expert) {
    return call->stretches + 1 + call->owners[expert];
}

void scatter_pairs(const struct scatter *call) {
    for (int64_t i = 0; i < call->num_pairs; i++) {
        const int64_t expert = call->experts[i];
        if (expert < 0) continue;
        struct stretch *stretch = stretch_of(call, expert);
        stretch->num_pairs++;
        stretch->num_experts += !call->is_met[expert];
        call->is_met[expert] = 1;
    }
    int64_t start = 0;
    for (struct stretch *stretch = call->stretches; stretch < call->stretches + call->num_stretches;
         stretch++) {
        stretch->start = start;
        start += stretch->num_pairs;
        stretch->num_pairs = 0;
    }
    for (int64_t i = 0; i < call->num_pairs; i++) {
        const int64_t expert = call->experts[i], row = i / call->top_k;
        if (expert < 0) continue;
        struct stretch *stretch = stretch_of(call, expert);
        int64_t *const rows = call->rows + stretch->start;
        const int64_t at = stretch->start + stretch->num_pairs++;
        if (!stretch->num_rows || rows[stretch->num_rows - 1] != row)
            rows[stretch->num_rows++] = row;
        call->positions[at] = i;
        call->pair_rows[at] = (uint32_t)(stretch->num_rows - 1);
        call->pair_experts[at] = (uint32_t)expert;
    }
}

int make_stretches(struct scatter *call) {
    int64_t most = -1;
    for (int64_t i = 0; i < call->num_experts; i++) {
        if (call->owners[i] > most) most = call->owners[i];
    }
    call->num_stretches = most + 2;
    const size_t num_bytes = (size_t)call->num_stretches * sizeof(struct stretch);
    call->stretches = calloc(1, num_bytes + (size_t)call->num_experts);
    if (!call->stretches) return -1;
    call->is_met = (char *)call->stretches + num_bytes;
    return 0;
}
