/* From Python's arguments to a kernel of its own; layers made of several are in layer_calls.c. */

#include "calls.h"
#include "shares.h"

#include <stdlib.h>

#include "described.h"

#define LINEAR(X)                                                                                  \
    X(address, rows)                                                                               \
    X(number, num_rows)                                                                            \
    X(number, row_stride)                                                                          \
    X(address, weight)                                                                             \
    X(number, weight_stride)                                                                       \
    X(address, bias)                                                                               \
    X(address, out)                                                                                \
    X(number, num_outputs)                                                                         \
    X(number, width)                                                                               \
    X(dtype, dtype)

CALL(linear, LINEAR);

static PyObject *linear(const struct linear_arguments *given) {
    const int64_t item = item_bytes(given->dtype);
    const struct product product = {
        .rows = given->rows,
        .row_stride = given->row_stride * item,
        .weight = given->weight,
        .weight_stride = given->weight_stride * item,
        .bias = given->bias,
        .out = given->out,
        .out_stride = given->num_outputs * item,
        .num_rows = given->num_rows,
        .num_outputs = given->num_outputs,
        .width = given->width,
        .dtype = given->dtype,
        .out_dtype = given->dtype,
    };
    const int64_t work = product.num_rows * product.num_outputs * product.width;
    PyThreadState *paused = pause_for(work);
    const struct crew crew = gather_crew(work, product.num_rows);
    multiply_by(&crew, active, &product);
    dismiss_crew(&crew);
    resume(paused);
    Py_RETURN_NONE;
}

#define GATED_EXPERTS(X)                                                                           \
    X(experts, experts)                                                                            \
    X(object, pair_rows)                                                                           \
    X(object, slots)                                                                               \
    X(number, num_pairs)                                                                           \
    X(address, rows)                                                                               \
    X(number, num_rows)                                                                            \
    X(number, row_stride)                                                                          \
    X(address, out)

CALL(gated_experts, GATED_EXPERTS);

static PyObject *gated_experts(const struct gated_experts_arguments *given) {
    struct experts call = *given->experts;
    const struct array arrays[] = {
        {.from = given->pair_rows, .count = given->num_pairs, .limit = given->num_rows},
        {.from = given->slots, .count = given->num_pairs, .limit = call.num_slots},
    };
    Py_buffer buffers[2];
    if (read_arrays(arrays, buffers, 2) < 0) return NULL;
    call.pair_rows = buffers[0].buf;
    call.slots = buffers[1].buf;
    call.num_pairs = given->num_pairs;
    call.rows = given->rows;
    call.row_stride = given->row_stride * item_bytes(call.dtype);
    call.out = given->out;
    PyThreadState *paused = pause_for(call.num_pairs * call.hidden * call.intermediate * 3);
    const int failed = run_experts(active, &call);
    resume(paused);
    release_arrays(buffers, 2);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

#define RMS_NORM(X)                                                                                \
    X(address, rows)                                                                               \
    X(address, weight)                                                                             \
    X(address, out)                                                                                \
    X(float, epsilon)                                                                              \
    X(number, num_outer)                                                                           \
    X(number, outer_stride)                                                                        \
    X(number, num_inner)                                                                           \
    X(number, inner_stride)                                                                        \
    X(number, width)                                                                               \
    X(dtype, dtype)

CALL(rms_norm, RMS_NORM);

static PyObject *rms_norm(const struct rms_norm_arguments *given) {
    const int64_t item = item_bytes(given->dtype);
    const struct normalisation call = {
        .rows = given->rows,
        .outer_stride = given->outer_stride * item,
        .inner_stride = given->inner_stride * item,
        .weight = given->weight,
        .out = given->out,
        .num_outer = given->num_outer,
        .num_inner = given->num_inner,
        .width = given->width,
        .epsilon = given->epsilon,
        .dtype = given->dtype,
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
    const int64_t work = num_seen * call->num_heads * (call->key_width + call->value_width);
    PyThreadState *paused = pause_for(work);
    const struct crew crew = gather_crew(work, call->num_heads / call->num_key_heads);
    call->scores = malloc((size_t)crew_score_room(&crew, call, most));
    if (call->scores) attend_by(&crew, active, call, most);
    dismiss_crew(&crew);
    resume(paused);
    if (!call->scores) return PyErr_NoMemory();
    free(call->scores);
    Py_RETURN_NONE;
}

#define ATTEND(X)                                                                                  \
    X(object, first_slots)                                                                         \
    X(object, num_keys)                                                                            \
    X(address, query)                                                                              \
    X(shape, query_shape)                                                                          \
    X(shape, query_strides)                                                                        \
    X(address, keys)                                                                               \
    X(address, values)                                                                             \
    X(shape, values_shape)                                                                         \
    X(address, out)                                                                                \
    X(address, sinks)                                                                              \
    X(number, window)                                                                              \
    X(float, scaling)                                                                              \
    X(dtype, dtype)

CALL(attend, ATTEND);

static PyObject *attend_with(struct attention *call, const struct array *arrays,
                             int64_t num_slots) {
    Py_buffer buffers[2];
    if (read_arrays(arrays, buffers, 2) < 0) return NULL;
    call->first_slots = buffers[0].buf;
    call->num_keys = buffers[1].buf;
    PyObject *result = run_attend(call, num_slots);
    release_arrays(buffers, 2);
    return result;
}

static PyObject *attend(const struct attend_arguments *given) {
    const int64_t item = item_bytes(given->dtype);
    const int64_t num_tokens = given->query_shape[0], key_width = given->query_shape[2];
    const int64_t num_key_heads = given->values_shape[1], value_width = given->values_shape[2];
    const struct array arrays[] = {
        {.from = given->first_slots, .count = num_tokens, .limit = MOST_SLOTS},
        {.from = given->num_keys, .count = num_tokens, .limit = MOST_SLOTS},
    };
    struct attention call = {
        .query = given->query,
        .query_token_stride = given->query_strides[0] * item,
        .query_head_stride = given->query_strides[1] * item,
        .keys = given->keys,
        .key_slot_stride = num_key_heads * key_width * item,
        .key_head_stride = key_width * item,
        .values = given->values,
        .value_slot_stride = num_key_heads * value_width * item,
        .value_head_stride = value_width * item,
        .out = given->out,
        .out_token_stride = given->query_shape[1] * value_width * item,
        .sinks = (const float *)given->sinks,
        .num_tokens = num_tokens,
        .num_heads = given->query_shape[1],
        .num_key_heads = num_key_heads,
        .key_width = key_width,
        .value_width = value_width,
        .window = given->window,
        .scaling = given->scaling,
        .dtype = given->dtype,
    };
    return attend_with(&call, arrays, given->values_shape[0]);
}

#define APPLY_ROTARY(X)                                                                            \
    X(address, heads)                                                                              \
    X(number, token_stride)                                                                        \
    X(number, head_stride)                                                                         \
    X(address, cosines)                                                                            \
    X(address, sines)                                                                              \
    X(number, angle_stride)                                                                        \
    X(number, num_tokens)                                                                          \
    X(number, num_heads)                                                                           \
    X(number, width)                                                                               \
    X(dtype, dtype)

CALL(apply_rotary, APPLY_ROTARY);

static PyObject *apply_rotary(const struct apply_rotary_arguments *given) {
    const int64_t item = item_bytes(given->dtype);
    const struct rotation call = {
        .heads = given->heads,
        .token_stride = given->token_stride * item,
        .head_stride = given->head_stride * item,
        .cosines = given->cosines,
        .sines = given->sines,
        .angle_stride = given->angle_stride * item,
        .num_tokens = given->num_tokens,
        .num_heads = given->num_heads,
        .width = given->width,
        .dtype = given->dtype,
    };
    active->rotate(&call);
    Py_RETURN_NONE;
}
