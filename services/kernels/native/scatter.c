/* A layer's pairs by the service that computes them, and rows into a message: plain copies, the same at every level. */

#include "arguments.h"
#include "calls.h"
#include "checksum.h"

#include <stdlib.h>
#include <string.h>

/* A service's number is below; there is a stretch for each. */
#define MOST_SERVICES (1 << 15)

/* Where the checksum stands in a message that has none. */
#define NOWHERE (-1)
#define CHECKSUM_BYTES 4

/* A service's pairs: how many, where they begin in the arrays of results, and on how many rows they are. */
struct stretch {
    int64_t start, num_pairs, num_rows;
};

/* The pairs of one service keep their order. A pair's position is its index in `experts`; of `rows` as many are used
 * from the service's start on as it has rows, each once. */
struct scatter {
    const int64_t *experts; /* [num_pairs], a negative one for a pair that is not computed */
    const int64_t *owners;  /* [num_experts], -1 for nobody */
    int64_t num_pairs, num_experts, top_k;
    int64_t *positions, *rows;          /* [num_pairs] */
    uint32_t *pair_rows, *pair_experts; /* [num_pairs] */
    struct stretch *stretches;          /* by service, nobody's first */
    int64_t num_stretches;
};

static struct stretch *stretch_of(const struct scatter *call, int64_t expert) {
    return call->stretches + 1 + call->owners[expert];
}

static void scatter_pairs(const struct scatter *call) {
    for (int64_t i = 0; i < call->num_pairs; i++) {
        if (call->experts[i] >= 0) stretch_of(call, call->experts[i])->num_pairs++;
    }
    int64_t start = 0;
    for (struct stretch *stretch = call->stretches; stretch < call->stretches + call->num_stretches; stretch++) {
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
        if (!stretch->num_rows || rows[stretch->num_rows - 1] != row) rows[stretch->num_rows++] = row;
        call->positions[at] = i;
        call->pair_rows[at] = (uint32_t)(stretch->num_rows - 1);
        call->pair_experts[at] = (uint32_t)expert;
    }
}

/* (service, start, pairs, rows) of each stretch that has pairs, nobody's first as service -1. */
static PyObject *described(const struct scatter *call) {
    PyObject *found = PyList_New(0);
    for (int64_t i = 0; found && i < call->num_stretches; i++) {
        const struct stretch *stretch = call->stretches + i;
        if (!stretch->num_pairs) continue;
        PyObject *item = Py_BuildValue("LLLL", (long long)i - 1, (long long)stretch->start,
                                       (long long)stretch->num_pairs, (long long)stretch->num_rows);
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
    call->stretches = calloc((size_t)call->num_stretches, sizeof(struct stretch));
    if (!call->stretches) PyErr_NoMemory();
    return call->stretches ? 0 : -1;
}

PyObject *call_scatter(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    enum { EXPERTS, OWNERS, RESULTS, NUM_ARRAYS };
    enum { NUM_PAIRS, NUM_EXPERTS, TOP_K, COUNT };
    int64_t read[COUNT];
    Py_buffer buffers[NUM_ARRAYS];
    if (given < NUM_ARRAYS) return PyErr_Format(PyExc_TypeError, "experts, owners and results are wanted");
    if (read_numbers(arguments + NUM_ARRAYS, given - NUM_ARRAYS, read, COUNT) < 0) return NULL;
    const int64_t num_pairs = read[NUM_PAIRS];
    const struct array wanted[NUM_ARRAYS] = {
        [EXPERTS] = {.count = num_pairs, .lowest = INT64_MIN, .limit = read[NUM_EXPERTS]},
        [OWNERS] = {.count = read[NUM_EXPERTS], .lowest = -1, .limit = MOST_SERVICES},
        [RESULTS] = {.count = 3 * num_pairs, .is_room = 1},
    };
    if (read_arrays(arguments, wanted, buffers, NUM_ARRAYS) < 0) return NULL;
    int64_t *const results = buffers[RESULTS].buf;
    PyObject *services = NULL;
    struct scatter call = {
        .experts = buffers[EXPERTS].buf,
        .owners = buffers[OWNERS].buf,
        .num_pairs = num_pairs,
        .num_experts = read[NUM_EXPERTS],
        .top_k = read[TOP_K],
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

/* Puts the checksum of what has `checksum`, followed by the rows, into its place in the prefix, little-endian. */
static void put_checksum(char *place, uint32_t checksum, const char *rows, size_t num_bytes) {
    checksum = checksum_of(checksum, rows, num_bytes);
    for (int i = 0; i < CHECKSUM_BYTES; i++) place[i] = (char)(checksum >> 8 * i);
}

/* 0, or -1 with an error set. */
static int check_place(int64_t place, Py_ssize_t prefix_bytes) {
    if (place == NOWHERE || (has_checksum() && place >= 0 && place <= prefix_bytes - CHECKSUM_BYTES)) return 0;
    PyErr_Format(PyExc_ValueError, "there is no checksum, or no room for it at %lld", (long long)place);
    return -1;
}

PyObject *call_joined(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    enum { PREFIX, INDICES, SUFFIX, NUM_OBJECTS };
    enum { ROWS, NUM_ROWS, ROW_BYTES, ROW_STRIDE, NUM_COPIED, CHECKSUM_AT, CHECKSUM, COUNT };
    int64_t read[COUNT];
    char *prefix, *suffix;
    Py_ssize_t prefix_bytes, suffix_bytes;
    Py_buffer indices;
    if (given < NUM_OBJECTS) return PyErr_Format(PyExc_TypeError, "prefix, indices and suffix are wanted");
    if (read_numbers(arguments + NUM_OBJECTS, given - NUM_OBJECTS, read, COUNT) < 0) return NULL;
    if (PyBytes_AsStringAndSize(arguments[PREFIX], &prefix, &prefix_bytes) < 0) return NULL;
    if (PyBytes_AsStringAndSize(arguments[SUFFIX], &suffix, &suffix_bytes) < 0) return NULL;
    if (check_place(read[CHECKSUM_AT], prefix_bytes) < 0) return NULL;
    const int num_arrays = arguments[INDICES] == Py_None ? 0 : 1; /* without indices all rows are copied in order */
    const struct array wanted = {.count = read[NUM_COPIED], .limit = read[NUM_ROWS]};
    if (read_arrays(arguments + INDICES, &wanted, &indices, num_arrays) < 0) return NULL;
    const size_t row_bytes = (size_t)read[ROW_BYTES], rows_bytes = (size_t)read[NUM_COPIED] * row_bytes;
    PyObject *message = PyBytes_FromStringAndSize(NULL, prefix_bytes + (Py_ssize_t)rows_bytes + suffix_bytes);
    if (message) {
        char *const start = PyBytes_AsString(message), *to = start + prefix_bytes;
        memcpy(start, prefix, (size_t)prefix_bytes);
        for (int64_t i = 0; i < read[NUM_COPIED]; i++, to += row_bytes) {
            const int64_t row = num_arrays ? ((const int64_t *)indices.buf)[i] : i;
            memcpy(to, ADDRESS(read[ROWS]) + row * read[ROW_STRIDE], row_bytes);
        }
        memcpy(to, suffix, (size_t)suffix_bytes);
        if (read[CHECKSUM_AT] != NOWHERE)
            put_checksum(start + read[CHECKSUM_AT], (uint32_t)read[CHECKSUM], to - rows_bytes, rows_bytes);
    }
    release_arrays(&indices, num_arrays);
    return message;
}
