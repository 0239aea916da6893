/* From Python's arguments to whole layers: an attention layer, a gate. */

#include <stdlib.h>

#include "arguments.h"
#include "calls.h"

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

/* `arrays` are first_slots, num_keys and slots. */
static PyObject *run_layer_with(struct attention_layer *layer, PyObject *const *arrays,
                                int64_t num_slots) {
    const struct array wanted[] = {
        {.count = layer->attention.num_tokens, .limit = MOST_SLOTS},
        {.count = layer->attention.num_tokens, .limit = MOST_SLOTS},
        {.count = layer->num_written, .limit = num_slots},
    };
    Py_buffer buffers[3];
    if (read_arrays(arrays, wanted, buffers, 3) < 0) return NULL;
    layer->attention.first_slots = buffers[0].buf;
    layer->attention.num_keys = buffers[1].buf;
    layer->slots = buffers[2].buf;
    PyObject *result = run_layer(layer, num_slots);
    release_arrays(buffers, 3);
    return result;
}

PyObject *call_attention_layer(PyObject *Py_UNUSED(module), PyObject *const *arguments,
                               Py_ssize_t given) {
    enum {
        ROWS,
        OUT,
        NUM_TOKENS,
        NUM_WRITTEN,
        COSINES,
        SINES,
        ANGLE_STRIDE,
        KEYS,
        VALUES,
        NUM_SLOTS,
        WEIGHT,
        BIAS,
        QUERY_NORM,
        KEY_NORM,
        OUT_WEIGHT,
        OUT_BIAS,
        NUM_HEADS,
        NUM_KEY_HEADS,
        WIDTH,
        HIDDEN,
        WINDOW,
        DTYPE,
        COUNT
    };
    int64_t read[COUNT];
    float scaling_and_epsilons[3];
    if (given < 6)
        return PyErr_Format(PyExc_TypeError, "three arrays, scaling and two epsilons are wanted");
    if (read_floats(arguments + 3, scaling_and_epsilons, 3) < 0) return NULL;
    if (read_numbers(arguments + 6, given - 6, read, COUNT) < 0) return NULL;
    const enum dtype dtype = dtype_of(read[DTYPE]);
    const int64_t head = read[WIDTH] * item_bytes(dtype);
    struct attention_layer layer = {
        .attention =
            {
                .keys = ADDRESS(read[KEYS]),
                .key_slot_stride = read[NUM_KEY_HEADS] * head,
                .key_head_stride = head,
                .values = ADDRESS(read[VALUES]),
                .value_slot_stride = read[NUM_KEY_HEADS] * head,
                .value_head_stride = head,
                .num_tokens = read[NUM_TOKENS],
                .num_heads = read[NUM_HEADS],
                .num_key_heads = read[NUM_KEY_HEADS],
                .key_width = read[WIDTH],
                .value_width = read[WIDTH],
                .window = read[WINDOW],
                .scaling = scaling_and_epsilons[0],
                .dtype = dtype,
            },
        .rows = ADDRESS(read[ROWS]),
        .weight = ADDRESS(read[WEIGHT]),
        .bias = ADDRESS(read[BIAS]),
        .query_norm = ADDRESS(read[QUERY_NORM]),
        .key_norm = ADDRESS(read[KEY_NORM]),
        .out_weight = ADDRESS(read[OUT_WEIGHT]),
        .out_bias = ADDRESS(read[OUT_BIAS]),
        .cosines = ADDRESS(read[COSINES]),
        .sines = ADDRESS(read[SINES]),
        .keys = ADDRESS(read[KEYS]),
        .values = ADDRESS(read[VALUES]),
        .out = ADDRESS(read[OUT]),
        .num_written = read[NUM_WRITTEN],
        .hidden = read[HIDDEN],
        .angle_stride = read[ANGLE_STRIDE] * item_bytes(dtype),
        .query_epsilon = scaling_and_epsilons[1],
        .key_epsilon = scaling_and_epsilons[2],
    };
    return run_layer_with(&layer, arguments, read[NUM_SLOTS]);
}

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

PyObject *call_gate(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given) {
    enum {
        ROWS,
        NUM_ROWS,
        ROW_STRIDE,
        LOGITS,
        WEIGHTS,
        INDICES,
        WEIGHT,
        BIAS,
        NUM_EXPERTS,
        WIDTH,
        NUM_CHOSEN,
        SOFTMAX_FIRST,
        RENORMALISE,
        WEIGHTS_DTYPE,
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
        .weight_stride = read[WIDTH] * item,
        .bias = ADDRESS(read[BIAS]),
        .out = ADDRESS(read[LOGITS]),
        .out_stride = read[NUM_EXPERTS] * item,
        .num_rows = read[NUM_ROWS],
        .num_outputs = read[NUM_EXPERTS],
        .width = read[WIDTH],
        .dtype = dtype,
        .out_dtype = dtype,
    };
    struct routing routing = {
        .logits = ADDRESS(read[LOGITS]),
        .weights = ADDRESS(read[WEIGHTS]),
        .indices = (int64_t *)ADDRESS(read[INDICES]),
        .num_rows = read[NUM_ROWS],
        .num_experts = read[NUM_EXPERTS],
        .num_chosen = read[NUM_CHOSEN],
        .softmax_first = read[SOFTMAX_FIRST] != 0,
        .renormalise = read[RENORMALISE] != 0,
        .dtype = dtype,
        .weights_dtype = dtype_of(read[WEIGHTS_DTYPE]),
    };
    return run_gate(&product, &routing);
}
