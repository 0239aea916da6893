/* Python's call that sorts a layer's pairs by the service that computes them. */

#include "calls.h"

#include <stdlib.h>

#include "stretches.h"

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
    } else {
        PyErr_NoMemory();
    }
    release_arrays(buffers, NUM_ARRAYS);
    return services;
}
