#include "described.h"

#include <stdlib.h>
#include <string.h>

#include "calls.h"

#define LAYER "services.kernels._native.layer"
#define ROWS "services.kernels._native.rows"
#define CACHE "services.kernels._native.cache"

static void free_capsule(PyObject *capsule) {
    free(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
}

PyObject *in_capsule(const void *described, size_t size, const char *name) {
    void *const kept = malloc(size);
    if (!kept) return PyErr_NoMemory();
    memcpy(kept, described, size);
    PyObject *capsule = PyCapsule_New(kept, name, free_capsule);
    if (!capsule) free(kept);
    return capsule;
}

#define DESCRIBE_LAYER(X)                                                                          \
    X(address, weight)                                                                             \
    X(address, bias)                                                                               \
    X(address, query_norm)                                                                         \
    X(address, key_norm)                                                                           \
    X(float, query_epsilon)                                                                        \
    X(float, key_epsilon)                                                                          \
    X(address, out_weight)                                                                         \
    X(address, out_bias)                                                                           \
    X(flag, norms_span_heads)                                                                      \
    X(shape, heads)                                                                                \
    X(number, hidden)                                                                              \
    X(number, window)                                                                              \
    X(float, scaling)                                                                              \
    X(dtype, dtype)

CALL(describe_layer, DESCRIBE_LAYER);

/* `heads` are how many of queries, how many of keys, and how wide. */
static struct attention attention_of(const struct describe_layer_arguments *given) {
    const int64_t num_key_heads = given->heads[1], width = given->heads[2];
    const int64_t head = width * item_bytes(given->dtype);
    return (struct attention){
        .key_slot_stride = num_key_heads * head,
        .key_head_stride = head,
        .value_slot_stride = num_key_heads * head,
        .value_head_stride = head,
        .num_heads = given->heads[0],
        .num_key_heads = num_key_heads,
        .key_width = width,
        .value_width = width,
        .window = given->window,
        .scaling = given->scaling,
        .dtype = given->dtype,
    };
}

static PyObject *describe_layer(const struct describe_layer_arguments *given) {
    const struct attention_layer layer = {
        .attention = attention_of(given),
        .weight = given->weight,
        .bias = given->bias,
        .query_norm = given->query_norm,
        .key_norm = given->key_norm,
        .norms_span_heads = given->norms_span_heads,
        .out_weight = given->out_weight,
        .out_bias = given->out_bias,
        .hidden = given->hidden,
        .query_epsilon = given->query_epsilon,
        .key_epsilon = given->key_epsilon,
    };
    return in_capsule(&layer, sizeof layer, LAYER);
}

#define DESCRIBE_ROWS(X)                                                                           \
    X(object, first_slots)                                                                         \
    X(object, num_keys)                                                                            \
    X(object, slots)                                                                               \
    X(number, num_tokens)                                                                          \
    X(number, num_written)                                                                         \
    X(address, cosines)                                                                            \
    X(address, sines)                                                                              \
    X(number, angle_stride)

CALL(describe_rows, DESCRIBE_ROWS);

static void free_rows(PyObject *capsule) {
    struct described_rows *const rows = PyCapsule_GetPointer(capsule, ROWS);
    release_arrays(rows->arrays, 3);
    free(rows);
}

static void fill_in(struct described_rows *rows, const struct describe_rows_arguments *given) {
    rows->first_slots = rows->arrays[0].buf;
    rows->num_keys = rows->arrays[1].buf;
    rows->slots = rows->arrays[2].buf;
    rows->num_tokens = given->num_tokens;
    rows->num_written = given->num_written;
    rows->cosines = given->cosines;
    rows->sines = given->sines;
    rows->angle_stride = given->angle_stride;
    rows->slots_end = 0;
    for (int64_t i = 0; i < rows->num_written; i++)
        if (rows->slots[i] >= rows->slots_end) rows->slots_end = rows->slots[i] + 1;
}

static PyObject *describe_rows(const struct describe_rows_arguments *given) {
    const struct array arrays[] = {
        {.from = given->first_slots, .count = given->num_tokens, .limit = MOST_SLOTS},
        {.from = given->num_keys, .count = given->num_tokens, .limit = MOST_SLOTS},
        {.from = given->slots, .count = given->num_written, .limit = MOST_SLOTS},
    };
    struct described_rows *const rows = malloc(sizeof *rows);
    if (!rows) return PyErr_NoMemory();
    if (read_arrays(arrays, rows->arrays, 3) < 0) {
        free(rows);
        return NULL;
    }
    fill_in(rows, given);
    PyObject *capsule = PyCapsule_New(rows, ROWS, free_rows);
    if (!capsule) {
        release_arrays(rows->arrays, 3);
        free(rows);
    }
    return capsule;
}

#define DESCRIBE_CACHE(X)                                                                          \
    X(address, keys)                                                                               \
    X(address, values)                                                                             \
    X(number, num_slots)

CALL(describe_cache, DESCRIBE_CACHE);

static PyObject *describe_cache(const struct describe_cache_arguments *given) {
    const struct described_cache cache = {
        .keys = given->keys,
        .values = given->values,
        .num_slots = given->num_slots,
    };
    return in_capsule(&cache, sizeof cache, CACHE);
}

/* (activation, is_gated, is_interleaved, limit, scale, offset), as ExpertKind says. */
typedef struct expert_kind kind_argument;

static int read_kind(PyObject *tuple, struct expert_kind *into) {
    int64_t activation = 0;
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != 6) {
        PyErr_Format(PyExc_TypeError, "a tuple of 6 is wanted, not %R", tuple);
        return -1;
    }
    if (read_number(PyTuple_GetItem(tuple, 0), &activation) < 0 ||
        read_flag(PyTuple_GetItem(tuple, 1), &into->is_gated) < 0 ||
        read_flag(PyTuple_GetItem(tuple, 2), &into->is_interleaved) < 0 ||
        read_float(PyTuple_GetItem(tuple, 3), &into->limit) < 0 ||
        read_float(PyTuple_GetItem(tuple, 4), &into->scale) < 0 ||
        read_float(PyTuple_GetItem(tuple, 5), &into->offset) < 0)
        return -1;
    into->activation = (enum activation)activation;
    return 0;
}

#define DESCRIBE_EXPERTS(X)                                                                        \
    X(address, gate_up)                                                                            \
    X(number, gate_up_stride)                                                                      \
    X(address, gate_up_bias)                                                                       \
    X(number, gate_up_bias_stride)                                                                 \
    X(address, down)                                                                               \
    X(number, down_stride)                                                                         \
    X(address, down_bias)                                                                          \
    X(number, down_bias_stride)                                                                    \
    X(address, shifts)                                                                             \
    X(number, num_slots)                                                                           \
    X(number, hidden)                                                                              \
    X(number, intermediate)                                                                        \
    X(flag, is_transposed)                                                                         \
    X(kind, kind)                                                                                  \
    X(dtype, dtype)

CALL(describe_experts, DESCRIBE_EXPERTS);

static PyObject *describe_experts(const struct describe_experts_arguments *given) {
    const int64_t item = item_bytes(given->dtype);
    const struct experts experts = {
        .gate_up = given->gate_up,
        .gate_up_stride = given->gate_up_stride * item,
        .gate_up_bias = given->gate_up_bias,
        .gate_up_bias_stride = given->gate_up_bias_stride * item,
        .down = given->down,
        .down_stride = given->down_stride * item,
        .down_bias = given->down_bias,
        .down_bias_stride = given->down_bias_stride * item,
        .shifts = (const int64_t *)given->shifts,
        .num_slots = given->num_slots,
        .hidden = given->hidden,
        .intermediate = given->intermediate,
        .is_transposed = given->is_transposed,
        .kind = given->kind,
        .dtype = given->dtype,
    };
    return in_capsule(&experts, sizeof experts, EXPERTS_NAME);
}

int read_layer(PyObject *capsule, layer_argument *into) {
    *into = PyCapsule_GetPointer(capsule, LAYER);
    return *into ? 0 : -1;
}

int read_rows(PyObject *capsule, rows_argument *into) {
    *into = PyCapsule_GetPointer(capsule, ROWS);
    return *into ? 0 : -1;
}

int read_cache(PyObject *capsule, cache_argument *into) {
    *into = PyCapsule_GetPointer(capsule, CACHE);
    return *into ? 0 : -1;
}

int64_t complete_layer(struct attention_layer *layer, const struct described_rows *rows,
                       const struct described_cache *cache, int64_t *work) {
    struct attention *const attention = &layer->attention;
    if (rows->slots_end > cache->num_slots) {
        PyErr_Format(PyExc_IndexError, "%lld is not below %lld", (long long)rows->slots_end - 1,
                     (long long)cache->num_slots);
        return -1;
    }
    layer->keys = cache->keys;
    layer->values = cache->values;
    layer->cosines = rows->cosines;
    layer->sines = rows->sines;
    layer->angle_stride = rows->angle_stride * item_bytes(attention->dtype);
    layer->slots = rows->slots;
    layer->num_written = rows->num_written;
    attention->keys = cache->keys;
    attention->values = cache->values;
    attention->first_slots = rows->first_slots;
    attention->num_keys = rows->num_keys;
    attention->num_tokens = rows->num_tokens;
    int64_t num_seen = 0;
    const int64_t most = most_keys(attention, cache->num_slots, &num_seen);
    const int64_t heads = attention->num_heads + attention->num_key_heads;
    *work += 2 * attention->key_width *
             (num_seen * attention->num_heads + attention->num_tokens * layer->hidden * heads);
    return most;
}
