/* From Python's arguments to whole layers: an attention layer, a gate, all between two layers'
 * experts. */

#include "calls.h"
#include "described.h"

#define ATTENTION_LAYER(X)                                                                         \
    X(layer, layer)                                                                                \
    X(rows, rows)                                                                                  \
    X(cache, cache)                                                                                \
    X(address, hidden)                                                                             \
    X(address, out)

CALL(attention_layer, ATTENTION_LAYER);

static PyObject *attention_layer(const struct attention_layer_arguments *given) {
    struct attention_layer layer = *given->layer;
    int64_t work = 0;
    const int64_t most = complete_layer(&layer, given->rows, given->cache, &work);
    if (most < 0) return NULL;
    layer.rows = given->hidden;
    layer.out = given->out;
    PyThreadState *paused = pause_for(work);
    const struct crew crew = gather_crew(work, layer.attention.num_tokens);
    const int failed = run_attention_layer(&crew, active, &layer, most);
    dismiss_crew(&crew);
    resume(paused);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
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
    const struct routing routing = {
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
    const int64_t work = product.num_rows * product.num_outputs * product.width;
    PyThreadState *paused = pause_for(work);
    const struct crew crew = gather_crew(work, product.num_rows);
    const int failed = run_gate(&crew, active, &product, &routing);
    dismiss_crew(&crew);
    resume(paused);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* Without a gate the numbers about it are 0. */
#define DESCRIBE_BETWEEN(X)                                                                        \
    X(layer, attention)                                                                            \
    X(address, before)                                                                             \
    X(float, before_epsilon)                                                                       \
    X(address, after)                                                                              \
    X(float, after_epsilon)                                                                        \
    X(address, gate)                                                                               \
    X(address, gate_bias)                                                                          \
    X(number, num_experts)                                                                         \
    X(number, num_chosen)                                                                          \
    X(flag, softmax_first)                                                                         \
    X(flag, renormalise)                                                                           \
    X(dtype, weights_dtype)

CALL(describe_between, DESCRIBE_BETWEEN);

#define BETWEEN_CAPSULE "services.kernels._native.between"

static struct normalisation norm_of(layer_argument layer, const char *weight, float epsilon) {
    return (struct normalisation){
        .inner_stride = layer->hidden * item_bytes(layer->attention.dtype),
        .weight = weight,
        .num_outer = 1,
        .width = layer->hidden,
        .epsilon = epsilon,
        .dtype = layer->attention.dtype,
    };
}

static struct product gate_of(const struct describe_between_arguments *given) {
    const layer_argument layer = given->attention;
    const enum dtype dtype = layer->attention.dtype;
    return (struct product){
        .row_stride = layer->hidden * item_bytes(dtype),
        .weight = given->gate,
        .weight_stride = layer->hidden * item_bytes(dtype),
        .bias = given->gate_bias,
        .out_stride = given->num_experts * item_bytes(dtype),
        .num_outputs = given->num_experts,
        .width = layer->hidden,
        .dtype = dtype,
        .out_dtype = dtype,
    };
}

static PyObject *describe_between(const struct describe_between_arguments *given) {
    const layer_argument layer = given->attention;
    const struct between between = {
        .attention = *layer,
        .before = norm_of(layer, given->before, given->before_epsilon),
        .after = norm_of(layer, given->after, given->after_epsilon),
        .gate = gate_of(given),
        .routing =
            {
                .num_experts = given->num_experts,
                .num_chosen = given->num_chosen,
                .softmax_first = given->softmax_first,
                .renormalise = given->renormalise,
                .dtype = layer->attention.dtype,
                .weights_dtype = given->weights_dtype,
            },
    };
    return in_capsule(&between, sizeof between, BETWEEN_CAPSULE);
}

typedef const struct between *between_argument;

static int read_between(PyObject *capsule, between_argument *into) {
    *into = PyCapsule_GetPointer(capsule, BETWEEN_CAPSULE);
    return *into ? 0 : -1;
}

#define BETWEEN(X)                                                                                 \
    X(between, layer)                                                                              \
    X(rows, rows)                                                                                  \
    X(cache, cache)                                                                                \
    X(address, hidden)                                                                             \
    X(address, arrived)                                                                            \
    X(address, normed)                                                                             \
    X(address, weights)                                                                            \
    X(address, indices)

CALL(between, BETWEEN);

/* How many nanoseconds of it were the gate's. */
static PyObject *between(const struct between_arguments *given) {
    struct between call = *given->layer;
    int64_t work = given->rows->num_tokens * call.gate.num_outputs * call.gate.width;
    const int64_t most = complete_layer(&call.attention, given->rows, given->cache, &work);
    if (most < 0) return NULL;
    call.hidden = given->hidden;
    call.arrived = given->arrived;
    call.normed = given->normed;
    call.routing.weights = given->weights;
    call.routing.indices = (int64_t *)given->indices;
    PyThreadState *paused = pause_for(work);
    const struct crew crew = gather_crew(work, given->rows->num_tokens);
    const int failed = run_between(&crew, active, &call, most);
    dismiss_crew(&crew);
    resume(paused);
    if (failed) return PyErr_NoMemory();
    return PyLong_FromLongLong(call.gate_nanos);
}
