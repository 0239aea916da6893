/* Python's calls of exchanges. */

#include "exchange_calls.h"

#include "exchange.h"
#include "stream.h"

/* The number of a part's expert for the number of the part. */
static void name_experts(struct exchange *exchange, const int64_t *experts) {
    for (int i = 0; i < exchange->num_shares; i++) {
        const struct stretch *const pairs = exchange->shares[i].pairs;
        uint32_t *const parts = exchange->pairs.pair_experts + pairs->start;
        for (int64_t pair = 0; pair < pairs->num_pairs; pair++)
            parts[pair] = (uint32_t)experts[parts[pair]];
    }
}

/* (service, pairs, rows, experts) of each share, nobody's first as service -1. */
static PyObject *described(const struct exchange *exchange) {
    PyObject *const found = PyList_New(exchange->num_shares);
    for (int i = 0; found && i < exchange->num_shares; i++) {
        const struct stretch *const pairs = exchange->shares[i].pairs;
        PyObject *const item = Py_BuildValue(
            "LLLL", (long long)(pairs - exchange->pairs.stretches) - 1, (long long)pairs->num_pairs,
            (long long)pairs->num_rows, (long long)pairs->num_experts);
        if (!item || PyList_SetItem(found, i, item) < 0) {
            Py_DECREF(found);
            return NULL;
        }
    }
    return found;
}

#define SHARE_OUT(X)                                                                               \
    X(object, exchange)                                                                            \
    X(object, parts)                                                                               \
    X(object, owners)                                                                              \
    X(object, experts)                                                                             \
    X(number, num_pairs)                                                                           \
    X(number, num_parts)                                                                           \
    X(number, top_k)

CALL(share_out, SHARE_OUT);

static PyObject *share_out(const struct share_out_arguments *given) {
    enum { PARTS, OWNERS, EXPERTS, NUM_ARRAYS };
    struct exchange *const exchange = exchange_of(given->exchange);
    if (!exchange) return NULL;
    const int64_t num_parts = given->num_parts;
    if (given->top_k < 1 || given->num_pairs % given->top_k) {
        PyErr_SetString(PyExc_ValueError, "pairs are top_k for each token");
        return NULL;
    }
    const struct array wanted[NUM_ARRAYS] = {
        [PARTS] = {.from = given->parts,
                   .count = given->num_pairs,
                   .lowest = INT64_MIN,
                   .limit = num_parts},
        [OWNERS] = {.from = given->owners,
                    .count = num_parts,
                    .lowest = -1,
                    .limit = MOST_SERVICES},
        [EXPERTS] = {.from = given->experts, .count = num_parts, .limit = UINT32_MAX},
    };
    const int num_arrays = given->experts == Py_None ? EXPERTS : NUM_ARRAYS;
    Py_buffer arrays[NUM_ARRAYS];
    if (read_arrays(wanted, arrays, num_arrays) < 0) return NULL;
    exchange_end(exchange);
    struct scatter *const pairs = &exchange->pairs;
    pairs->experts = arrays[PARTS].buf, pairs->owners = arrays[OWNERS].buf;
    pairs->num_pairs = given->num_pairs, pairs->num_experts = num_parts;
    pairs->top_k = given->top_k;
    const int failed = exchange_share_out(exchange, kernels_in_use);
    if (!failed && num_arrays > EXPERTS) name_experts(exchange, arrays[EXPERTS].buf);
    pairs->experts = pairs->owners = NULL;
    release_arrays(arrays, num_arrays);
    return failed ? PyErr_NoMemory() : described(exchange);
}

static int read_uint64(PyObject *number, uint64_t *into) {
    *into = PyLong_AsUnsignedLongLong(number);
    return *into == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}

/* Attaches the connection of an EnteredFrame to a share. 0, or -1 with an error set. */
static int attach(struct exchange *exchange, int index, PyObject *frame) {
    enum { CONNECTION, FRAME_ID, REMAINING_NANOS, NUM_USED };
    struct share *const share = exchange->shares + index;
    if (!PyTuple_Check(frame) || PyTuple_Size(frame) < NUM_USED) {
        PyErr_SetString(PyExc_TypeError, "an EnteredFrame is wanted");
        return -1;
    }
    struct stream *const stream = stream_of(PyTuple_GetItem(frame, CONNECTION));
    if (!stream || read_uint64(PyTuple_GetItem(frame, FRAME_ID), &share->frame_id) < 0 ||
        read_uint64(PyTuple_GetItem(frame, REMAINING_NANOS), &share->remaining_nanos) < 0)
        return -1;
    if (stream->exchange) {
        PyErr_SetString(PyExc_ValueError, "the stream is in an exchange already");
        return -1;
    }
    share->stream = (struct stream *)Py_NewRef((PyObject *)stream);
    stream->exchange = exchange, stream->exchange_index = index;
    return 0;
}

static int note_traceparent(struct exchange *exchange, int index, PyObject *text) {
    Py_ssize_t count;
    const char *const data = text ? PyUnicode_AsUTF8AndSize(text, &count) : NULL;
    if (!data) return -1;
    exchange->shares[index].traceparent = (struct bytes){data, (size_t)count};
    return 0;
}

/* As many as there are shares. 0, or -1 with an error set and nothing attached. */
static int attach_all(struct exchange *exchange, PyObject *frames, PyObject *traceparents) {
    const int is_traced = traceparents != Py_None;
    if (!exchange->num_shares || PyList_Size(frames) != exchange->num_shares ||
        (is_traced && PyList_Size(traceparents) != exchange->num_shares)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "each share wants a frame");
        return -1;
    }
    for (int i = 0; i < exchange->num_shares; i++) {
        if (attach(exchange, i, PyList_GetItem(frames, i)) < 0 ||
            (is_traced && note_traceparent(exchange, i, PyList_GetItem(traceparents, i)) < 0)) {
            exchange_end(exchange);
            return -1;
        }
    }
    return 0;
}

#define SEND_FRAMES(X)                                                                             \
    X(object, exchange)                                                                            \
    X(object, frames)                                                                              \
    X(object, traceparents)                                                                        \
    X(object, requests)                                                                            \
    X(address, rows)                                                                               \
    X(number, row_bytes)                                                                           \
    X(number, layer)                                                                               \
    X(number, element_type)                                                                        \
    X(flag, checksums)

CALL(send_frames, SEND_FRAMES);

static PyObject *send_frames(const struct send_frames_arguments *given) {
    struct exchange *const exchange = exchange_of(given->exchange);
    if (!exchange) return NULL;
    const int64_t num_rows =
        exchange->num_shares ? exchange->pairs.num_pairs / exchange->pairs.top_k : 0;
    const struct array wanted = {.from = given->requests, .count = num_rows, .limit = INT64_MAX};
    Py_buffer requests;
    if (read_arrays(&wanted, &requests, 1) < 0) return NULL;
    exchange->row_bytes = (size_t)given->row_bytes;
    exchange->has_checksums = given->checksums;
    const struct sent_layer layer = {
        .rows = given->rows,
        .requests = requests.buf,
        .layer = (uint32_t)given->layer,
        .element_type = (uint32_t)given->element_type,
    };
    int failed = attach_all(exchange, given->frames, given->traceparents);
    if (!failed && (failed = exchange_send(exchange, &layer)) < 0) {
        exchange_end(exchange);
        PyErr_NoMemory();
    }
    release_arrays(&requests, 1);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

#define AWAIT_REPLIES(X)                                                                           \
    X(object, exchange)                                                                            \
    X(number, loop_descriptor)                                                                     \
    X(number, until_nanos)

CALL(await_replies, AWAIT_REPLIES);

static PyObject *await_replies(const struct await_replies_arguments *given) {
    struct exchange *const exchange = exchange_of(given->exchange);
    if (!exchange) return NULL;
    PyThreadState *const paused = PyEval_SaveThread();
    const enum wait_end why =
        exchange_wait(exchange, (int)given->loop_descriptor, (uint64_t)given->until_nanos);
    PyEval_RestoreThread(paused);
    return PyLong_FromLong(why);
}

/* (sent, arrived, decode, queue, compute, encode, granted pairs, whether the stream has something
 * for its reader) of each share; `arrived` is 0 where there is no reply. */
static PyObject *record_of(const struct share *share) {
    const uint64_t *const timings = share->reply.timings;
    const int has_news = stream_has_news(share->stream) || stream_wants_write(share->stream);
    return Py_BuildValue(
        "KKKKKKKO", (unsigned long long)share->sent_nanos, (unsigned long long)share->arrived_nanos,
        (unsigned long long)timings[DECODE_NANOS], (unsigned long long)timings[QUEUE_NANOS],
        (unsigned long long)timings[COMPUTE_NANOS], (unsigned long long)timings[ENCODE_NANOS],
        (unsigned long long)share->granted_pairs, has_news ? Py_True : Py_False);
}

PyObject *call_records(PyObject *Py_UNUSED(module), PyObject *object) {
    const struct exchange *const exchange = exchange_of(object);
    PyObject *const records = exchange ? PyList_New(exchange->num_shares) : NULL;
    for (int i = 0; records && i < exchange->num_shares; i++) {
        PyObject *const record = record_of(exchange->shares + i);
        if (!record || PyList_SetItem(records, i, record) < 0) {
            Py_DECREF(records);
            return NULL;
        }
    }
    return records;
}

#define SUM_REPLIES(X)                                                                             \
    X(object, exchange)                                                                            \
    X(address, weights)                                                                            \
    X(address, out)                                                                                \
    X(number, num_tokens)                                                                          \
    X(number, width)                                                                               \
    X(dtype, dtype)                                                                                \
    X(dtype, weights_dtype)                                                                        \
    X(dtype, out_dtype)

CALL(sum_replies, SUM_REPLIES);

static PyObject *sum_replies(const struct sum_replies_arguments *given) {
    struct exchange *const exchange = exchange_of(given->exchange);
    if (!exchange) return NULL;
    const enum dtype dtype = given->dtype;
    const struct combination call = {
        .out = given->out,
        .num_tokens = given->num_tokens,
        .top_k = exchange->pairs.top_k,
        .width = given->width,
        .dtype = dtype,
        .product = dtype == given->weights_dtype ? dtype : FLOAT32,
        .out_dtype = given->out_dtype,
    };
    if (!exchange->num_shares || exchange->num_awaited ||
        call.num_tokens * call.top_k < exchange->pairs.num_pairs ||
        (size_t)(call.width * item_bytes(dtype)) != exchange->row_bytes) {
        PyErr_SetString(PyExc_ValueError, "not all rows are there, or they are of another width");
        return NULL;
    }
    PyThreadState *const paused = pause_for(call.num_tokens * call.top_k * call.width);
    const int are_finite =
        exchange_sum(exchange, *kernels_in_use->active, call, given->weights, given->weights_dtype);
    resume(paused);
    if (are_finite < 0) return PyErr_NoMemory();
    if (are_finite) exchange_end(exchange); /* else the rows are looked at one by one */
    return PyBool_FromLong(are_finite);
}

/* What came of each share: its record, and the rows that it was answered with as bytes, or None. */
PyObject *call_give_up(PyObject *Py_UNUSED(module), PyObject *object) {
    struct exchange *const exchange = exchange_of(object);
    PyObject *const found = exchange ? PyList_New(exchange->num_shares) : NULL;
    for (int i = 0; found && i < exchange->num_shares; i++) {
        const struct share *const share = exchange->shares + i;
        const struct bytes rows = share->reply.rows;
        PyObject *const copy = share->arrived_nanos
                                   ? PyBytes_FromStringAndSize(rows.data, (Py_ssize_t)rows.count)
                                   : Py_NewRef(Py_None);
        PyObject *const item = Py_BuildValue("NN", record_of(share), copy);
        if (!item || PyList_SetItem(found, i, item) < 0) {
            Py_DECREF(found);
            return NULL;
        }
    }
    if (found) exchange_end(exchange);
    return found;
}
