/* What lies between the experts of two layers: what its parts do, one after the other. */

#include <stdlib.h>
#include <time.h>

#include "kernels.h"

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t count_of(const struct between *call) {
    return call->attention.attention.num_tokens * call->attention.hidden;
}

static void add_to_hidden(const struct level *level, const struct between *call, const char *from) {
    const struct addition addition = {
        .to = call->hidden,
        .from = from,
        .count = count_of(call),
        .dtype = call->attention.attention.dtype,
    };
    level->add(&addition);
}

static void normalise_hidden(const struct level *level, const struct between *call,
                             struct normalisation by, char *out) {
    by.rows = call->hidden;
    by.out = out;
    by.num_inner = call->attention.attention.num_tokens;
    level->normalise(&by);
}

/* Logits, of which nobody hears, go to `room`. */
static int choose(const struct crew *crew, const struct level *level, const struct between *call,
                  char *room) {
    struct product product = call->gate;
    struct routing routing = call->routing;
    product.rows = call->normed;
    product.out = room;
    product.num_rows = call->attention.attention.num_tokens;
    routing.logits = room;
    routing.num_rows = product.num_rows;
    return run_gate(crew, level, &product, &routing);
}

static int run_with(const struct crew *crew, const struct level *level, struct between *call,
                    int64_t most, char *room) {
    const int64_t bytes = count_of(call) * item_bytes(call->attention.attention.dtype);
    if (call->arrived) add_to_hidden(level, call, call->arrived);
    normalise_hidden(level, call, call->before, room);
    call->attention.rows = room;
    call->attention.out = room + bytes;
    if (run_attention_layer(crew, level, &call->attention, most)) return -1;
    add_to_hidden(level, call, call->attention.out);
    normalise_hidden(level, call, call->after, call->normed);
    if (!call->gate.weight) return 0;
    const int64_t began = now();
    const int failed = choose(crew, level, call, room);
    call->gate_nanos = now() - began;
    return failed;
}

int run_between(const struct crew *crew, const struct level *level, struct between *call,
                int64_t most) {
    const int64_t num_tokens = call->attention.attention.num_tokens,
                  hidden = call->attention.hidden;
    const int64_t experts = call->gate.num_outputs;
    const int64_t wider = experts > 2 * hidden ? experts : 2 * hidden;
    /* Some bytes more, since there may be no token. */
    char *room = malloc((size_t)(num_tokens * wider + 1) * sizeof(float));
    if (!room) return -1;
    const int failed = run_with(crew, level, call, most, room);
    free(room);
    return failed;
}
