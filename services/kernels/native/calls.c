/* From Python's arguments to a kernel of its own; layers made of several are in layer_calls.c. */

#include "calls.h"

#include <stdlib.h>

#include "arguments.h"

PyObject *call_linear(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given) {
    enum {
        ROWS,
        WEIGHT,
        BIAS,
        OUT,
        NUM_ROWS,
        NUM_OUTPUTS,
        WIDTH,
        ROW_STRIDE,
        WEIGHT_STRIDE,
        DTYPE,
        COUNT
    };
    int64_t read[COUNT];
    if (read_numbers(arguments, given, read, COUNT) < 0) return NULL;
    const enum dtype dtype = dtype_of(read[DTYPE]);
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

/* `arrays` are pair_rows and slots. */
static PyObject *run_gated_experts(struct experts *call, PyObject *const *arrays,
                                   int64_t num_rows) {
    const struct array wanted[] = {
        {.count = call->num_pairs, .limit = num_rows},
        {.count = call->num_pairs, .limit = call->num_slots},
    };
    Py_buffer buffers[2];
    if (read_arrays(arrays, wanted, buffers, 2) < 0) return NULL;
    call->pair_rows = buffers[0].buf;
    call->slots = buffers[1].buf;
    PyThreadState *paused = pause_for(call->num_pairs * call->hidden * call->intermediate * 3);
    const int failed = run_experts(active, call);
    resume(paused);
    release_arrays(buffers, 2);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject *call_gated_experts(PyObject *Py_UNUSED(module), PyObject *const *arguments,
                             Py_ssize_t given) {
    enum {
        ROWS,
        NUM_ROWS,
        ROW_STRIDE,
        GATE_UP,
        GATE_UP_STRIDE,
        DOWN,
        DOWN_STRIDE,
        OUT,
        NUM_PAIRS,
        NUM_SLOTS,
        HIDDEN,
        INTERMEDIATE,
        DTYPE,
        COUNT
    };
    int64_t read[COUNT];
    if (given < 2) return PyErr_Format(PyExc_TypeError, "pair_rows and slots are wanted");
    if (read_numbers(arguments + 2, given - 2, read, COUNT) < 0) return NULL;
    const enum dtype dtype = dtype_of(read[DTYPE]);
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
    return run_gated_experts(&call, arguments, read[NUM_ROWS]);
}

PyObject *call_rms_norm(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given) {
    enum {
        ROWS,
        WEIGHT,
        OUT,
        NUM_OUTER,
        OUTER_STRIDE,
        NUM_INNER,
        INNER_STRIDE,
        WIDTH,
        DTYPE,
        COUNT
    };
    int64_t read[COUNT];
    float epsilon;
    if (given < 1) return PyErr_Format(PyExc_TypeError, "epsilon is wanted");
    if (read_floats(arguments, &epsilon, 1) < 0) return NULL;
    if (read_numbers(arguments + 1, given - 1, read, COUNT) < 0) return NULL;
    const enum dtype dtype = dtype_of(read[DTYPE]);
    const struct normalisation call = {
        .rows = ADDRESS(read[ROWS]),
        .outer_stride = read[OUTER_STRIDE] * item_bytes(dtype),
        .inner_stride = read[INNER_STRIDE] * item_bytes(dtype),
        .weight = ADDRESS(read[WEIGHT]),
        .out = ADDRESS(read[OUT]),
        .num_outer = read[NUM_OUTER],
        .num_inner = read[NUM_INNER],
        .width = read[WIDTH],
        .epsilon = epsilon,
        .dtype = dtype,
    };
    active->normalise(&call);
    Py_RETURN_NONE;
}

int64_t most_keys(const struct attention *call, int64_t num_slots, int64_t *num_seen) {
    int64_t most = 0;
    for (int64_t token = 0; token < call->num_tokens; token++) {
        const int64_t seen =
            call->num_keys[token] < call->window ? call->num_keys[token] : call->window;
        if (call->first_slots[token] + call->num_keys[token] > num_slots) {
            PyErr_Format(PyExc_IndexError, "a token sees slots beyond the cache");
            return -1;
        }
        *num_seen += seen;
        if (seen > most) most = seen;
    }
    return most;
}

static PyObject *run_attend(struct attention *call, int64_t num_slots) {
    int64_t num_seen = 0;
    const int64_t most = most_keys(call, num_slots, &num_seen);
    if (most < 0) return NULL;
    call->scores = malloc((size_t)score_room(call, most));
    if (!call->scores) return PyErr_NoMemory();
    PyThreadState *paused =
        pause_for(num_seen * call->num_heads * (call->key_width + call->value_width));
    active->attend(call);
    resume(paused);
    free(call->scores);
    Py_RETURN_NONE;
}

/* `arrays` are first_slots and num_keys. */
static PyObject *attend_with(struct attention *call, PyObject *const *arrays, int64_t num_slots) {
    const struct array wanted[] = {
        {.count = call->num_tokens, .limit = MOST_SLOTS},
        {.count = call->num_tokens, .limit = MOST_SLOTS},
    };
    Py_buffer buffers[2];
    if (read_arrays(arrays, wanted, buffers, 2) < 0) return NULL;
    call->first_slots = buffers[0].buf;
    call->num_keys = buffers[1].buf;
    PyObject *result = run_attend(call, num_slots);
    release_arrays(buffers, 2);
    return result;
}

PyObject *call_attend(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given) {
    enum {
        QUERY,
        TOKEN_STRIDE,
        HEAD_STRIDE,
        KEYS,
        VALUES,
        OUT,
        SINKS,
        NUM_TOKENS,
        NUM_HEADS,
        NUM_KEY_HEADS,
        NUM_SLOTS,
        KEY_WIDTH,
        VALUE_WIDTH,
        WINDOW,
        DTYPE,
        COUNT
    };
    int64_t read[COUNT];
    float scaling;
    if (given < 3)
        return PyErr_Format(PyExc_TypeError, "first_slots, num_keys and scaling are wanted");
    if (read_floats(arguments + 2, &scaling, 1) < 0) return NULL;
    if (read_numbers(arguments + 3, given - 3, read, COUNT) < 0) return NULL;
    const enum dtype dtype = dtype_of(read[DTYPE]);
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
        .scaling = scaling,
        .dtype = dtype,
    };
    return attend_with(&call, arguments, read[NUM_SLOTS]);
}

PyObject *call_apply_rotary(PyObject *Py_UNUSED(module), PyObject *const *arguments,
                            Py_ssize_t given) {
    enum {
        HEADS,
        TOKEN_STRIDE,
        HEAD_STRIDE,
        COSINES,
        SINES,
        ANGLE_STRIDE,
        NUM_TOKENS,
        NUM_HEADS,
        WIDTH,
        DTYPE,
        COUNT
    };
    int64_t read[COUNT];
    if (read_numbers(arguments, given, read, COUNT) < 0) return NULL;
    const enum dtype dtype = dtype_of(read[DTYPE]);
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
