/* From a layer's replies to its weighted sums: finds the row of each pair, wherever it lies. */

#include "calls.h"
#include "workers.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Notes where the rows of one reply lie: row i is that of the pair positions[i]. */
static int find_rows(const char **rows, int64_t num_pairs, PyObject *reply, PyObject *positions,
                     int64_t row_bytes) {
    Py_buffer data, indices;
    if (PyObject_GetBuffer(reply, &data, PyBUF_SIMPLE) < 0) return -1;
    const int64_t num_rows = data.len / row_bytes;
    int failed = data.len % row_bytes ? -1 : 0;
    if (failed)
        PyErr_Format(PyExc_ValueError, "%zd bytes are no multiple of a row's %lld", data.len,
                     (long long)row_bytes);
    else
        failed = read_arrays(
            &(struct array){.from = positions, .count = num_rows, .limit = num_pairs}, &indices, 1);
    if (!failed) {
        for (int64_t i = 0; i < num_rows; i++)
            rows[((const int64_t *)indices.buf)[i]] = (const char *)data.buf + i * row_bytes;
        release_arrays(&indices, 1);
    }
    // The caller's list keeps the reply, and so its bytes, where they are.
    PyBuffer_Release(&data);
    return failed;
}

static int find_all_rows(const char **rows, int64_t num_pairs, PyObject *replies,
                         PyObject *positions, int64_t row_bytes) {
    const Py_ssize_t count = PyList_Size(replies);
    if (count < 0 || PyList_Size(positions) != count) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "each reply needs its positions");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *reply = PyList_GetItem(replies, i), *indices = PyList_GetItem(positions, i);
        if (find_rows(rows, num_pairs, reply, indices, row_bytes) < 0) return -1;
    }
    return 0;
}

/* Tokens in a part: many of them, since each takes little. */
#define PART_TOKENS 8

struct shared_combination {
    const struct level *level;
    const struct combination *combination;
    atomic_int *are_finite;
};

static void combine_part(const void *call, int64_t number, int thread) {
    const struct shared_combination *shared = call;
    struct combination part = *shared->combination;
    const int64_t first = number * PART_TOKENS, left = part.num_tokens - first;
    (void)thread;
    part.rows += first * part.top_k;
    part.weights += first * part.top_k;
    part.out += first * part.width * item_bytes(part.out_dtype);
    part.num_tokens = left < PART_TOKENS ? left : PART_TOKENS;
    if (!shared->level->combine(&part)) atomic_store(shared->are_finite, 0);
}

/* Whether all sums are finite. */
static int combine_all(const struct combination *call) {
    atomic_int are_finite = 1;
    const int64_t work = call->num_tokens * call->top_k * call->width;
    PyThreadState *paused = pause_for(work);
    const struct crew crew = gather_crew(work, 1);
    const struct shared_combination shared = {active, call, &are_finite};
    run_parts(&crew, combine_part, &shared, (call->num_tokens + PART_TOKENS - 1) / PART_TOKENS);
    dismiss_crew(&crew);
    resume(paused);
    return atomic_load(&are_finite);
}

#define COMBINE(X)                                                                                 \
    X(object, replies)                                                                             \
    X(object, positions)                                                                           \
    X(address, weights)                                                                            \
    X(address, out)                                                                                \
    X(number, num_tokens)                                                                          \
    X(number, top_k)                                                                               \
    X(number, width)                                                                               \
    X(dtype, dtype)                                                                                \
    X(dtype, weights_dtype)                                                                        \
    X(dtype, out_dtype)

CALL(combine, COMBINE);

static PyObject *combine(const struct combine_arguments *given) {
    const enum dtype dtype = given->dtype;
    const int64_t num_pairs = given->num_tokens * given->top_k;
    const char **rows = calloc((size_t)num_pairs + 1, sizeof *rows + sizeof(float));
    if (!rows) return PyErr_NoMemory();
    float *weights = (float *)(rows + num_pairs);
    widen_weights(weights, given->weights, num_pairs, given->weights_dtype);
    const struct combination call = {
        .rows = rows,
        .weights = weights,
        .out = given->out,
        .num_tokens = given->num_tokens,
        .top_k = given->top_k,
        .width = given->width,
        .dtype = dtype,
        .product = dtype == given->weights_dtype ? dtype : FLOAT32,
        .out_dtype = given->out_dtype,
    };
    const int failed = find_all_rows(rows, num_pairs, given->replies, given->positions,
                                     call.width * item_bytes(dtype));
    const int are_finite = failed ? 0 : combine_all(&call);
    free(rows);
    return failed ? NULL : PyBool_FromLong(are_finite);
}
