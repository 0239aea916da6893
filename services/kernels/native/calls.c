/* From Python's arguments to a kernel of its own; layers made of several are in layer_calls.c. */

#include "calls.h"

#include <stdlib.h>

#include "arguments.h"

PyObject *call_linear(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    enum { ROWS, WEIGHT, BIAS, OUT, NUM_ROWS, NUM_OUTPUTS, WIDTH, ROW_STRIDE, WEIGHT_STRIDE, DTYPE, COUNT };
    int64_t read[COUNT];
    if (read_numbers(arguments, given, read, COUNT) < 0) return NULL;
    const enum dtype dtype = read[DTYPE] ? BFLOAT16 : FLOAT32;
    const int64_t item = item_bytes(dtype);
    const struct product product = {
        .rows = ADDRESS(read[ROWS]),
        .row_stride = read[ROW_STRIDE] * item,
        .weight = ADDRESS(read[WEIGHT]),
        .weight_stride = read[WEIGHT_STRIDE] * item,
        .bias = ADDRESS(read[BIAS]),
        .out = ADDRESS(read[OUT]),
        .out_stride = read[NUM_OUTPUTS] * item,
        .num_rows = read[NUM_ROWS],
        .num_outputs = read[NUM_OUTPUTS],
        .width = read[WIDTH],
        .dtype = dtype,
        .out_dtype = dtype,
    };
    PyThreadState *paused = pause_for(product.num_rows * product.num_outputs * product.width);
    active->multiply(&product);
    resume(paused);
    Py_RETURN_NONE;
}

static PyObject *run_gated_experts(struct experts *call, PyObject *pair_rows, PyObject *slots, int64_t num_rows) {
    Py_buffer row_buffer, slot_buffer;
    if (read_indices(pair_rows, call->num_pairs, num_rows, &row_buffer) < 0) return NULL;
    if (read_indices(slots, call->num_pairs, call->num_slots, &slot_buffer) < 0) {
        PyBuffer_Release(&row_buffer);
        return NULL;
    }
    call->pair_rows = row_buffer.buf;
    call->slots = slot_buffer.buf;
    PyThreadState *paused = pause_for(call->num_pairs * call->hidden * call->intermediate * 3);
    const int failed = run_experts(active, call);
    resume(paused);
    PyBuffer_Release(&slot_buffer);
    PyBuffer_Release(&row_buffer);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject *call_gated_experts(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    enum { ROWS, NUM_ROWS, ROW_STRIDE, GATE_UP, GATE_UP_STRIDE, DOWN, DOWN_STRIDE, OUT, NUM_PAIRS, NUM_SLOTS, HIDDEN,
           INTERMEDIATE, DTYPE, COUNT };
    int64_t read[COUNT];
    if (given < 2) return PyErr_Format(PyExc_TypeError, "pair_rows and slots are wanted");
    if (read_numbers(arguments + 2, given - 2, read, COUNT) < 0) return NULL;
    const enum dtype dtype = read[DTYPE] ? BFLOAT16 : FLOAT32;
    const int64_t item = item_bytes(dtype);
    struct experts call = {
        .rows = ADDRESS(read[ROWS]),
        .row_stride = read[ROW_STRIDE] * item,
        .gate_up = ADDRESS(read[GATE_UP]),
        .gate_up_stride = read[GATE_UP_STRIDE] * item,
        .down = ADDRESS(read[DOWN]),
        .down_stride = read[DOWN_STRIDE] * item,
        .out = ADDRESS(read[OUT]),
        .num_pairs = read[NUM_PAIRS],
        .num_slots = read[NUM_SLOTS],
        .hidden = read[HIDDEN],
        .intermediate = read[INTERMEDIATE],
        .dtype = dtype,
    };
    return run_gated_experts(&call, arguments[0], arguments[1], read[NUM_ROWS]);
}

PyObject *call_rms_norm(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    enum { ROWS, WEIGHT, OUT, NUM_OUTER, OUTER_STRIDE, NUM_INNER, INNER_STRIDE, WIDTH, DTYPE, COUNT };
    int64_t read[COUNT];
    if (given < 1) return PyErr_Format(PyExc_TypeError, "epsilon is wanted");
    const double epsilon = PyFloat_AsDouble(arguments[0]);
    if (epsilon == -1.0 && PyErr_Occurred()) return NULL;
    if (read_numbers(arguments + 1, given - 1, read, COUNT) < 0) return NULL;
    const enum dtype dtype = read[DTYPE] ? BFLOAT16 : FLOAT32;
    const struct normalisation call = {
        .rows = ADDRESS(read[ROWS]),
        .outer_stride = read[OUTER_STRIDE] * item_bytes(dtype),
        .inner_stride = read[INNER_STRIDE] * item_bytes(dtype),
        .weight = ADDRESS(read[WEIGHT]),
        .out = ADDRESS(read[OUT]),
        .num_outer = read[NUM_OUTER],
        .num_inner = read[NUM_INNER],
        .width = read[WIDTH],
        .epsilon = (float)epsilon,
        .dtype = dtype,
    };
    active->normalise(&call);
    Py_RETURN_NONE;
}

static PyObject *run_attend(struct attention *call, int64_t num_slots) {
    int64_t num_seen = 0;
    const int64_t most = most_keys(call, num_slots, &num_seen);
    if (most < 0) return PyErr_Format(PyExc_IndexError, "a token sees slots beyond the cache");
    call->scores = malloc((size_t)score_room(call, most));
    if (!call->scores) return PyErr_NoMemory();
    PyThreadState *paused = pause_for(num_seen * call->num_heads * (call->key_width + call->value_width));
    active->attend(call);
    resume(paused);
    free(call->scores);
    Py_RETURN_NONE;
}

static PyObject *attend_with(struct attention *call, PyObject *first_slots, PyObject *num_keys, int64_t num_slots) {
    Py_buffer first_buffer, count_buffer;
    if (read_indices(first_slots, call->num_tokens, INT64_MAX / 2, &first_buffer) < 0) return NULL;
    if (read_indices(num_keys, call->num_tokens, INT64_MAX / 2, &count_buffer) < 0) {
        PyBuffer_Release(&first_buffer);
        return NULL;
    }
    call->first_slots = first_buffer.buf;
    call->num_keys = count_buffer.buf;
    PyObject *result = run_attend(call, num_slots);
    PyBuffer_Release(&count_buffer);
    PyBuffer_Release(&first_buffer);
    return result;
}

PyObject *call_attend(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    enum { QUERY, TOKEN_STRIDE, HEAD_STRIDE, KEYS, VALUES, OUT, SINKS, NUM_TOKENS, NUM_HEADS, NUM_KEY_HEADS, NUM_SLOTS,
           KEY_WIDTH, VALUE_WIDTH, WINDOW, DTYPE, COUNT };
    int64_t read[COUNT];
    if (given < 3) return PyErr_Format(PyExc_TypeError, "first_slots, num_keys and scaling are wanted");
    const double scaling = PyFloat_AsDouble(arguments[2]);
    if (scaling == -1.0 && PyErr_Occurred()) return NULL;
    if (read_numbers(arguments + 3, given - 3, read, COUNT) < 0) return NULL;
    const enum dtype dtype = read[DTYPE] ? BFLOAT16 : FLOAT32;
    const int64_t item = item_bytes(dtype);
    struct attention call = {
        .query = ADDRESS(read[QUERY]),
        .query_token_stride = read[TOKEN_STRIDE] * item,
        .query_head_stride = read[HEAD_STRIDE] * item,
        .keys = ADDRESS(read[KEYS]),
        .key_slot_stride = read[NUM_KEY_HEADS] * read[KEY_WIDTH] * item,
        .key_head_stride = read[KEY_WIDTH] * item,
        .values = ADDRESS(read[VALUES]),
        .value_slot_stride = read[NUM_KEY_HEADS] * read[VALUE_WIDTH] * item,
        .value_head_stride = read[VALUE_WIDTH] * item,
        .out = ADDRESS(read[OUT]),
        .sinks = (const float *)ADDRESS(read[SINKS]),
        .num_tokens = read[NUM_TOKENS],
        .num_heads = read[NUM_HEADS],
        .num_key_heads = read[NUM_KEY_HEADS],
        .key_width = read[KEY_WIDTH],
        .value_width = read[VALUE_WIDTH],
        .window = read[WINDOW],
        .scaling = (float)scaling,
        .dtype = dtype,
    };
    return attend_with(&call, arguments[0], arguments[1], read[NUM_SLOTS]);
}

PyObject *call_apply_rotary(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    enum { HEADS, TOKEN_STRIDE, HEAD_STRIDE, COSINES, SINES, ANGLE_STRIDE, NUM_TOKENS, NUM_HEADS, WIDTH, DTYPE, COUNT };
    int64_t read[COUNT];
    if (read_numbers(arguments, given, read, COUNT) < 0) return NULL;
    const enum dtype dtype = read[DTYPE] ? BFLOAT16 : FLOAT32;
    const struct rotation call = {
        .heads = ADDRESS(read[HEADS]),
        .token_stride = read[TOKEN_STRIDE] * item_bytes(dtype),
        .head_stride = read[HEAD_STRIDE] * item_bytes(dtype),
        .cosines = ADDRESS(read[COSINES]),
        .sines = ADDRESS(read[SINES]),
        .angle_stride = read[ANGLE_STRIDE] * item_bytes(dtype),
        .num_tokens = read[NUM_TOKENS],
        .num_heads = read[NUM_HEADS],
        .width = read[WIDTH],
        .dtype = dtype,
    };
    active->rotate(&call);
    Py_RETURN_NONE;
}
