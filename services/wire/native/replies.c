/* Python's calls for replies and grants: written in one allocation, read without a copy of the
 * rows. */

#include "checksum.h"
#include "codec.h"
#include "messages.h"
#include "reply.h"

static PyObject *written(struct reply *reply, const struct rows *rows) {
    struct sink counted = {0}, after = {0}, to;
    put_reply_head(&counted, reply);
    put_number(&after, GRANTED_PAIRS, reply->granted_pairs);
    PyObject *message = new_message(counted.count, rows, after.count, &to);
    if (!message) return NULL;
    reply->rows.data = to.at + counted.count;
    if (reply->has_checksum) reply->checksum = checksum_of_reply(reply);
    put_reply_head(&to, reply);
    to.at += reply->rows.count;
    put_number(&to, GRANTED_PAIRS, reply->granted_pairs);
    return message;
}

/* 0, or -1 with an error set. */
static int read_timings_argument(PyObject *timings, struct reply *reply) {
    reply->has_timings = timings != Py_None;
    for (int i = 0; reply->has_timings && i < NUM_TIMINGS; i++) {
        PyObject *timing = PyTuple_GetItem(timings, i);
        if (!timing || read_unsigned(timing, UINT64_MAX, reply->timings + i) < 0) return -1;
    }
    return 0;
}

#define ENCODE_REPLY(X)                                                                            \
    X(uint64, frame_id)                                                                            \
    X(uint32, batch_frames)                                                                        \
    X(object, timings)                                                                             \
    X(uint64, granted_pairs)                                                                       \
    X(flag, checksum)                                                                              \
    TENSOR(X)

CALL(encode_reply, ENCODE_REPLY);

static PyObject *encode_reply(const struct encode_reply_arguments *given) {
    struct rows rows = ROWS_OF(given);
    struct reply reply = {
        .frame_id = given->frame_id,
        .granted_pairs = given->granted_pairs,
        .batch_frames = given->batch_frames,
        .has_checksum = given->checksum,
    };
    if (read_timings_argument(given->timings, &reply) < 0) return NULL;
    if (choose_rows(&rows, Py_None, NULL, &reply.rows.count) < 0) return NULL;
    return written(&reply, &rows);
}

/* As _codec.pyi says. */
static PyObject *described(PyObject *message, const struct reply *reply) {
    const unsigned long long id = reply->frame_id, granted = reply->granted_pairs;
    const uint64_t *const timings = reply->timings;
    return Py_BuildValue("K(KN(KKKK)IO)", granted, id, view_of(message, reply->rows),
                         (unsigned long long)timings[0], (unsigned long long)timings[1],
                         (unsigned long long)timings[2], (unsigned long long)timings[3],
                         reply->batch_frames, reply->has_checksum ? Py_True : Py_False);
}

PyObject *call_decode_response(PyObject *Py_UNUSED(module), PyObject *message) {
    struct reply reply;
    int has_reply;
    char *data;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(message, &data, &count) < 0) return NULL;
    if (!read_response((struct bytes){data, (size_t)count}, &reply, &has_reply)) Py_RETURN_NONE;
    if (!has_reply) return Py_BuildValue("KO", (unsigned long long)reply.granted_pairs, Py_None);
    return described(message, &reply);
}
