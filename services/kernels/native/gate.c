/* A whole gate: the product, and the choice from its results. */

#include <stdlib.h>

#include "shares.h"

int run_gate(const struct crew *crew, const struct level *level, const struct product *product,
             const struct routing *routing) {
    const size_t scores = (size_t)PADDED_SCORES(routing->num_experts) * sizeof(float);
    char *room = malloc(scores + (size_t)routing->num_experts * sizeof(struct scored));
    if (!room) return -1;
    struct routing call = *routing;
    call.scores = (float *)room;
    call.experts = (struct scored *)(room + scores);
    multiply_by(crew, level, product);
    level->route(&call);
    free(room);
    return 0;
}
