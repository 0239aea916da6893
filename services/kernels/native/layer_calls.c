/* From Python's arguments to whole layers: an attention layer, a gate. */

#include "calls.h"

#include <stdlib.h>

/* Multiplications of a token besides those for its keys. */
static int64_t work_of_token(const struct attention_layer *layer) {
    const struct attention *attention = &layer->attention;
    return 2 * layer->hidden * attention->key_width *
           (attention->num_heads + attention->num_key_heads);
}

static PyObject *run_layer(struct attention_layer *layer, int64_t num_slots) {
    const struct attention *attention = &layer->attention;
    int64_t num_seen = 0;
    const int64_t most = most_keys(attention, num_slots, &num_seen);
    if (most < 0) return NULL;
    const int64_t attending = num_seen * attention->num_heads * attention->key_width * 2;
    PyThreadState *paused = pause_for(attention->num_tokens * work_of_token(layer) + attending);
    const int failed = run_attention_layer(active, layer, most);
    resume(paused);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* What stays the same for all calls of a layer. */
#define DESCRIBE_LAYER(X)                                                                          \
    X(address, weight)                                                                             \
    X(address, bias)                                                                               \
    X(address, query_norm)                                                                         \
    X(address, key_norm)                                                                           \
    X(float, query_epsilon)                                                                        \
    X(float, key_epsilon)                                                                          \
    X(address, out_weight)                                                                         \
    X(address, out_bias)                                                                           \
    X(number, num_heads)                                                                           \
    X(number, num_key_heads)                                                                       \
    X(number, width)                                                                               \
    X(number, hidden)                                                                              \
    X(number, window)                                                                              \
    X(float, scaling)                                                                              \
    X(dtype, dtype)

CALL(describe_layer, DESCRIBE_LAYER);

/* The capsule that Python keeps it in. */
#define LAYER "services.kernels._native.layer"

static void free_layer(PyObject *capsule) { free(PyCapsule_GetPointer(capsule, LAYER)); }

static PyObject *describe_layer(const struct describe_layer_arguments *given) {
    struct describe_layer_arguments *const kept = malloc(sizeof *kept);
    if (!kept) return PyErr_NoMemory();
    *kept = *given;
    PyObject *capsule = PyCapsule_New(kept, LAYER, free_layer);
    if (!capsule) free(kept);
    return capsule;
}

/* A kind of argument: what such a capsule holds, borrowed. */
typedef const struct describe_layer_arguments *layer_argument;

static int read_layer(PyObject *capsule, layer_argument *into) {
    *into = PyCapsule_GetPointer(capsule, LAYER);
    return *into ? 0 : -1;
}

#define ATTENTION_LAYER(X)                                                                         \
    X(layer, layer)                                                                                \
    X(object, first_slots)                                                                         \
    X(object, num_keys)                                                                            \
    X(object, slots)                                                                               \
    X(address, rows)                                                                               \
    X(address, out)                                                                                \
    X(number, num_tokens)                                                                          \
    X(number, num_written)                                                                         \
    X(address, cosines)                                                                            \
    X(address, sines)                                                                              \
    X(number, angle_stride)                                                                        \
    X(address, keys)                                                                               \
    X(address, values)                                                                             \
    X(number, num_slots)

CALL(attention_layer, ATTENTION_LAYER);

static PyObject *run_layer_with(struct attention_layer *layer, const struct array *arrays,
                                int64_t num_slots) {
    Py_buffer buffers[3];
    if (read_arrays(arrays, buffers, 3) < 0) return NULL;
    layer->attention.first_slots = buffers[0].buf;
    layer->attention.num_keys = buffers[1].buf;
    layer->slots = buffers[2].buf;
    PyObject *result = run_layer(layer, num_slots);
    release_arrays(buffers, 3);
    return result;
}

/* Queries, results and arrays are yet to come. */
static struct attention attention_of(const struct attention_layer_arguments *given) {
    const layer_argument layer = given->layer;
    const int64_t head = layer->width * item_bytes(layer->dtype);
    return (struct attention){
        .keys = given->keys,
        .key_slot_stride = layer->num_key_heads * head,
        .key_head_stride = head,
        .values = given->values,
        .value_slot_stride = layer->num_key_heads * head,
        .value_head_stride = head,
        .num_tokens = given->num_tokens,
        .num_heads = layer->num_heads,
        .num_key_heads = layer->num_key_heads,
        .key_width = layer->width,
        .value_width = layer->width,
        .window = layer->window,
        .scaling = layer->scaling,
        .dtype = layer->dtype,
    };
}

static PyObject *attention_layer(const struct attention_layer_arguments *given) {
    const layer_argument layer = given->layer;
    const struct array arrays[] = {
        {.from = given->first_slots, .count = given->num_tokens, .limit = MOST_SLOTS},
        {.from = given->num_keys, .count = given->num_tokens, .limit = MOST_SLOTS},
        {.from = given->slots, .count = given->num_written, .limit = given->num_slots},
    };
    struct attention_layer call = {
        .attention = attention_of(given),
        .rows = given->rows,
        .weight = layer->weight,
        .bias = layer->bias,
        .query_norm = layer->query_norm,
        .key_norm = layer->key_norm,
        .out_weight = layer->out_weight,
        .out_bias = layer->out_bias,
        .cosines = given->cosines,
        .sines = given->sines,
        .keys = given->keys,
        .values = given->values,
        .out = given->out,
        .num_written = given->num_written,
        .hidden = layer->hidden,
        .angle_stride = given->angle_stride * item_bytes(layer->dtype),
        .query_epsilon = layer->query_epsilon,
        .key_epsilon = layer->key_epsilon,
    };
    return run_layer_with(&call, arrays, given->num_slots);
}

#define GATE(X)                                                                                    \
    X(address, rows)                                                                               \
    X(number, num_rows)                                                                            \
    X(number, row_stride)                                                                          \
    X(address, logits)                                                                             \
    X(address, weights)                                                                            \
    X(address, indices)                                                                            \
    X(address, weight)                                                                             \
    X(address, bias)                                                                               \
    X(number, num_experts)                                                                         \
    X(number, width)                                                                               \
    X(number, num_chosen)                                                                          \
    X(flag, softmax_first)                                                                         \
    X(flag, renormalise)                                                                           \
    X(dtype, weights_dtype)                                                                        \
    X(dtype, dtype)

CALL(gate, GATE);

static PyObject *run_gate(const struct product *product, struct routing *routing) {
    const size_t scores = (size_t)PADDED_SCORES(routing->num_experts) * sizeof(float);
    char *room = malloc(scores + (size_t)routing->num_experts * sizeof(struct scored));
    if (!room) return PyErr_NoMemory();
    routing->scores = (float *)room;
    routing->experts = (struct scored *)(room + scores);
    PyThreadState *paused = pause_for(product->num_rows * product->num_outputs * product->width);
    active->multiply(product);
    active->route(routing);
    resume(paused);
    free(room);
    Py_RETURN_NONE;
}

static PyObject *gate(const struct gate_arguments *given) {
    const int64_t item = item_bytes(given->dtype);
    const struct product product = {
        .rows = given->rows,
        .row_stride = given->row_stride * item,
        .weight = given->weight,
        .weight_stride = given->width * item,
        .bias = given->bias,
        .out = given->logits,
        .out_stride = given->num_experts * item,
        .num_rows = given->num_rows,
        .num_outputs = given->num_experts,
        .width = given->width,
        .dtype = given->dtype,
        .out_dtype = given->dtype,
    };
    struct routing routing = {
        .logits = given->logits,
        .weights = given->weights,
        .indices = (int64_t *)given->indices,
        .num_rows = given->num_rows,
        .num_experts = given->num_experts,
        .num_chosen = given->num_chosen,
        .softmax_first = given->softmax_first,
        .renormalise = given->renormalise,
        .dtype = given->dtype,
        .weights_dtype = given->weights_dtype,
    };
    return run_gate(&product, &routing);
}
