/* A layer's pairs by the service that computes them: arithmetic on indices, the same at every
 * level. */

#include "calls.h"

#include <stdlib.h>

/* A service's number is below; there is a stretch for each. */
#define MOST_SERVICES (1 << 15)

/* A service's pairs: how many, where they begin in the arrays of results, and on how many rows and
 * of how many experts they are. */
struct stretch {
    int64_t start, num_pairs, num_rows, num_experts;
};

/* The pairs of one service keep their order. A pair's position is its index in `experts`; of `rows`
 * as many are used from the service's start on as it has rows, each once. */
struct scatter {
    const int64_t *experts; /* [num_pairs], a negative one for a pair that is not computed */
    const int64_t *owners;  /* [num_experts], -1 for nobody */
    int64_t num_pairs, num_experts, top_k;
    int64_t *positions, *rows;          /* [num_pairs] */
    uint32_t *pair_rows, *pair_experts; /* [num_pairs] */
    struct stretch *stretches;          /* by service, nobody's first */
    int64_t num_stretches;
    char *is_met; /* [num_experts], in the memory of the stretches */
};

static struct stretch *stretch_of(const struct scatter *call, int64_t expert) {
    return call->stretches + 1 + call->owners[expert];
}

static void scatter_pairs(const struct scatter *call) {
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

/* (service, start, pairs, rows, experts) of each stretch that has pairs, nobody's first as service
 * -1. */
static PyObject *described(const struct scatter *call) {
    PyObject *found = PyList_New(0);
    for (int64_t i = 0; found && i < call->num_stretches; i++) {
        const struct stretch *stretch = call->stretches + i;
        if (!stretch->num_pairs) continue;
        PyObject *item = Py_BuildValue("LLLLL", (long long)i - 1, (long long)stretch->start,
                                       (long long)stretch->num_pairs, (long long)stretch->num_rows,
                                       (long long)stretch->num_experts);
        if (!item || PyList_Append(found, item) < 0) Py_CLEAR(found);
        Py_XDECREF(item);
    }
    return found;
}

/* Makes a stretch for nobody and for each service. 0, or -1 with an error set. */
static int make_stretches(struct scatter *call) {
    int64_t most = -1;
    for (int64_t i = 0; i < call->num_experts; i++) {
        if (call->owners[i] > most) most = call->owners[i];
    }
    call->num_stretches = most + 2;
    const size_t num_bytes = (size_t)call->num_stretches * sizeof(struct stretch);
    call->stretches = calloc(1, num_bytes + (size_t)call->num_experts);
    if (!call->stretches) PyErr_NoMemory();
    call->is_met = (char *)call->stretches + num_bytes;
    return call->stretches ? 0 : -1;
}

#define SCATTER(X)                                                                                 \
    X(object, experts)                                                                             \
    X(object, owners)                                                                              \
    X(object, results)                                                                             \
    X(number, num_pairs)                                                                           \
    X(number, num_experts)                                                                         \
    X(number, top_k)

CALL(scatter, SCATTER);

static PyObject *scatter(const struct scatter_arguments *given) {
    enum { EXPERTS, OWNERS, RESULTS, NUM_ARRAYS };
    const int64_t num_pairs = given->num_pairs, num_experts = given->num_experts;
    const struct array wanted[NUM_ARRAYS] = {
        [EXPERTS] = {.from = given->experts,
                     .count = num_pairs,
                     .lowest = INT64_MIN,
                     .limit = num_experts},
        [OWNERS] = {.from = given->owners,
                    .count = num_experts,
                    .lowest = -1,
                    .limit = MOST_SERVICES},
        [RESULTS] = {.from = given->results, .count = 3 * num_pairs, .is_room = 1},
    };
    Py_buffer buffers[NUM_ARRAYS];
    if (read_arrays(wanted, buffers, NUM_ARRAYS) < 0) return NULL;
    int64_t *const results = buffers[RESULTS].buf;
    PyObject *services = NULL;
    struct scatter call = {
        .experts = buffers[EXPERTS].buf,
        .owners = buffers[OWNERS].buf,
        .num_pairs = num_pairs,
        .num_experts = num_experts,
        .top_k = given->top_k,
        .positions = results,
        .rows = results + num_pairs,
        .pair_rows = (uint32_t *)(results + 2 * num_pairs),
        .pair_experts = (uint32_t *)(results + 2 * num_pairs) + num_pairs,
    };
    if (make_stretches(&call) == 0) {
        scatter_pairs(&call);
        services = described(&call);
        free(call.stretches);
    }
    release_arrays(buffers, NUM_ARRAYS);
    return services;
}
