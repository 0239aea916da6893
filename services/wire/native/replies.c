/* Replies and grants: written in one allocation, read without a copy of the rows. Those with
 * failures or an error are rare, and left to the generated class. */

#include "checksum.h"
#include "codec.h"
#include "messages.h"

/* Of protos/moesaic/v1/expert.proto: FrameReply's fields. */
enum { FRAME_ID = 1, TIMINGS = 4, BATCH_FRAMES = 5, CHECKSUM = 6, ROWS = 15 };

/* ServerTimings' fields: decode_nanos, queue_nanos, compute_nanos and encode_nanos. */
enum { FIRST_TIMING = 1, NUM_TIMINGS = 4 };

/* DispatchResponse's other field. */
enum { GRANTED_PAIRS = 2 };

struct reply {
    uint64_t frame_id, granted_pairs, timings[NUM_TIMINGS];
    uint32_t batch_frames, checksum;
    struct bytes rows;
    int has_timings, has_checksum;
};

static uint32_t checksum_of_reply(const struct reply *reply) {
    char numbers[sizeof reply->frame_id];
    struct sink to = {.at = numbers};
    put_fixed(&to, reply->frame_id, sizeof reply->frame_id);
    return checksum_of(checksum_of(0, numbers, sizeof numbers), reply->rows.data,
                       reply->rows.count);
}

static void put_timings(struct sink *to, const struct reply *reply) {
    for (int i = 0; i < NUM_TIMINGS; i++) put_number(to, FIRST_TIMING + i, reply->timings[i]);
}

/* All of the reply but the bytes of its rows, which follow. */
static void put_head(struct sink *to, const struct reply *reply) {
    put_number(to, FRAME_ID, reply->frame_id);
    if (reply->has_timings) {
        struct sink counted = {0};
        put_timings(&counted, reply);
        put_header(to, TIMINGS, counted.count);
        put_timings(to, reply);
    }
    put_number(to, BATCH_FRAMES, reply->batch_frames);
    if (reply->has_checksum) put_checksum(to, CHECKSUM, reply->checksum);
    if (reply->rows.count) put_header(to, ROWS, reply->rows.count);
}

static PyObject *written(struct reply *reply, const struct rows *rows) {
    struct sink counted = {0}, after = {0}, to;
    put_head(&counted, reply);
    put_number(&after, GRANTED_PAIRS, reply->granted_pairs);
    PyObject *message = new_message(counted.count, rows, after.count, &to);
    if (!message) return NULL;
    reply->rows.data = to.at + counted.count;
    if (reply->has_checksum) reply->checksum = checksum_of_reply(reply);
    put_head(&to, reply);
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

/* Whether the bytes are timings with each field once at most, and none that is not known here. */
static int read_timings(struct reader from, struct reply *reply) {
    uint32_t seen = 0;
    while (from.at < from.end) {
        const int tag = read_new_tag(&from, &seen), timing = (tag >> 3) - FIRST_TIMING;
        if (timing < 0 || timing >= NUM_TIMINGS || tag != TAG(FIRST_TIMING + timing, VARINT))
            return 0;
        if (!read_varint(&from, reply->timings + timing)) return 0;
    }
    return 1;
}

/* The same of a reply, and its checksum, where it has one, is right. */
static int read_reply(struct reader from, struct reply *reply) {
    uint32_t seen = 0;
    struct bytes timings = {0};
    for (int is_read = 1; from.at < from.end;) {
        switch (read_new_tag(&from, &seen)) {
        case TAG(FRAME_ID, VARINT): is_read = read_varint(&from, &reply->frame_id); break;
        case TAG(TIMINGS, LENGTH_DELIMITED): is_read = read_bytes(&from, &timings); break;
        case TAG(BATCH_FRAMES, VARINT):
            is_read = read_word(&from, UINT32_MAX, &reply->batch_frames);
            break;
        case TAG(CHECKSUM, FIXED32):
            is_read = reply->has_checksum = read_fixed32(&from, &reply->checksum);
            break;
        case TAG(ROWS, LENGTH_DELIMITED): is_read = read_bytes(&from, &reply->rows); break;
        default: return 0;
        }
        if (!is_read) return 0;
    }
    if (!read_timings(reader_of(timings), reply)) return 0;
    return !reply->has_checksum || reply->checksum == checksum_of_reply(reply);
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
    struct reply reply = {0};
    struct bytes body = {0};
    uint32_t seen = 0;
    char *data;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(message, &data, &count) < 0) return NULL;
    struct reader from = reader_of((struct bytes){data, (size_t)count});
    for (int is_read = 1; from.at < from.end;) {
        switch (read_new_tag(&from, &seen)) {
        case TAG(BODY, LENGTH_DELIMITED): is_read = read_bytes(&from, &body); break;
        case TAG(GRANTED_PAIRS, VARINT): is_read = read_varint(&from, &reply.granted_pairs); break;
        default: is_read = 0;
        }
        if (!is_read) Py_RETURN_NONE;
    }
    if (!body.data) return Py_BuildValue("KO", (unsigned long long)reply.granted_pairs, Py_None);
    if (!read_reply(reader_of(body), &reply)) Py_RETURN_NONE;
    return described(message, &reply);
}
