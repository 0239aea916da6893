/* Python's calls for frames: written in one allocation, read without a copy of their rows. */

#include "checksum.h"
#include "codec.h"
#include "frame.h"
#include "messages.h"

static PyObject *written(struct frame *frame, const struct rows *rows) {
    struct sink counted = {0}, head;
    put_frame_head(&counted, frame);
    PyObject *message = new_message(counted.count, rows, 0, &head);
    if (!message) return NULL;
    frame->rows.data = head.at + counted.count;
    if (frame->has_checksum) frame->checksum = checksum_of_frame(frame);
    put_frame_head(&head, frame);
    return message;
}

/* What a frame is written from, borrowed until `release`. */
struct sources {
    Py_buffer row_indices, pair_rows, pair_experts, pair_weights;
    char *requests;
};

static void release(struct sources *sources) {
    PyBuffer_Release(&sources->row_indices);
    PyBuffer_Release(&sources->pair_rows);
    PyBuffer_Release(&sources->pair_experts);
    PyBuffer_Release(&sources->pair_weights);
    PyMem_Free(sources->requests);
}

/* Borrows an array of numbers of 32 bits. 0, or -1 with an error set. */
static int read_words(PyObject *array, char format, Py_buffer *buffer, struct bytes *words) {
    if (PyObject_GetBuffer(array, buffer, PyBUF_ND | PyBUF_FORMAT) < 0) return -1;
    const char *const found = buffer->format ? buffer->format : "B";
    const int is_marked = *found == '='; /* as one of the machine's own that lies at any address */
    if (buffer->ndim != 1 || buffer->itemsize != WORD_BYTES || found[is_marked] != format) {
        PyErr_Format(PyExc_ValueError, "an array of '%c' is wanted, not of '%s'", format, found);
        return -1;
    }
    *words = (struct bytes){buffer->buf, (size_t)buffer->len};
    return 0;
}

/* Packs numbers as varints, into memory that is the caller's to free. 0, or -1 with an error set.
 */
static int read_requests(PyObject *numbers, char **memory, struct bytes *packed) {
    PyObject *requests = PySequence_Tuple(numbers);
    if (!requests) return -1;
    const Py_ssize_t count = PyTuple_Size(requests);
    struct sink to = {.at = *memory = PyMem_Malloc((size_t)count * MOST_VARINT_BYTES)};
    if (!to.at) PyErr_NoMemory();
    for (Py_ssize_t i = 0; to.at && i < count; i++) {
        uint64_t request;
        if (read_unsigned(PyTuple_GetItem(requests, i), UINT64_MAX, &request) < 0) break;
        put_varint(&to, request);
    }
    Py_DECREF(requests);
    *packed = (struct bytes){*memory, to.count};
    return PyErr_Occurred() ? -1 : 0;
}

#define ENCODE_FRAME(X)                                                                            \
    X(object, row_indices)                                                                         \
    X(object, pair_rows)                                                                           \
    X(object, pair_experts)                                                                        \
    X(object, pair_weights)                                                                        \
    X(object, requests)                                                                            \
    X(text, traceparent)                                                                           \
    X(uint64, frame_id)                                                                            \
    X(uint32, layer)                                                                               \
    X(uint31, element_type)                                                                        \
    X(uint64, remaining_nanos)                                                                     \
    X(flag, checksum)                                                                              \
    TENSOR(X)

CALL(encode_frame, ENCODE_FRAME);

/* 0, or -1 with an error set. */
static int read_sources(const struct encode_frame_arguments *given, struct sources *sources,
                        struct rows *rows, struct frame *frame) {
    PyObject *const weights = given->pair_weights;
    if (choose_rows(rows, given->row_indices, &sources->row_indices, &frame->rows.count) < 0)
        return -1;
    if (read_words(given->pair_rows, 'I', &sources->pair_rows, &frame->pair_rows) < 0) return -1;
    if (read_words(given->pair_experts, 'I', &sources->pair_experts, &frame->pair_experts) < 0)
        return -1;
    if (weights != Py_None &&
        read_words(weights, 'f', &sources->pair_weights, &frame->pair_weights) < 0)
        return -1;
    if (read_requests(given->requests, &sources->requests, &frame->requests) < 0) return -1;
    if (rows->count > UINT32_MAX) {
        PyErr_Format(PyExc_OverflowError, "%lld rows are too many", (long long)rows->count);
        return -1;
    }
    frame->num_rows = (uint32_t)rows->count;
    return 0;
}

static PyObject *encode_frame(const struct encode_frame_arguments *given) {
    struct rows rows = ROWS_OF(given);
    struct sources sources = {0};
    struct frame frame = {
        .frame_id = given->frame_id,
        .remaining_nanos = given->remaining_nanos,
        .layer = given->layer,
        .dtype = given->element_type,
        .traceparent = given->traceparent,
        .has_checksum = given->checksum,
    };
    PyObject *message = NULL;
    if (read_sources(given, &sources, &rows, &frame) == 0) message = written(&frame, &rows);
    release(&sources);
    return message;
}

/* A tuple of the packed numbers; NULL where they are none, with an error set only where there is no
 * memory. */
static PyObject *unpacked(struct bytes packed) {
    Py_ssize_t count = 0;
    for (size_t i = 0; i < packed.count; i++) count += !(packed.data[i] & 0x80);
    struct reader from = reader_of(packed);
    PyObject *numbers = PyTuple_New(count);
    for (Py_ssize_t i = 0; numbers && i < count; i++) {
        uint64_t value;
        PyObject *number = read_varint(&from, &value) ? PyLong_FromUnsignedLongLong(value) : NULL;
        if (!number || PyTuple_SetItem(numbers, i, number) < 0) Py_CLEAR(numbers);
    }
    if (numbers && from.at != from.end) Py_CLEAR(numbers);
    return numbers;
}

static PyObject *copied(struct bytes bytes) {
    return PyBytes_FromStringAndSize(bytes.data, (Py_ssize_t)bytes.count);
}

/* As _codec.pyi says; NULL as `unpacked`. */
static PyObject *described(PyObject *message, const struct frame *frame) {
    const struct bytes text = frame->traceparent;
    PyObject *requests = unpacked(frame->requests);
    if (!requests) return NULL;
    PyObject *traceparent =
        PyUnicode_DecodeUTF8(text.count ? text.data : "", (Py_ssize_t)text.count, NULL);
    if (!traceparent) {
        Py_DECREF(requests);
        if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) PyErr_Clear();
        return NULL;
    }
    return Py_BuildValue("KIIINNNNKNNO", (unsigned long long)frame->frame_id, frame->layer,
                         frame->dtype, frame->num_rows, view_of(message, frame->rows),
                         copied(frame->pair_rows), copied(frame->pair_experts),
                         copied(frame->pair_weights), (unsigned long long)frame->remaining_nanos,
                         traceparent, requests, frame->has_checksum ? Py_True : Py_False);
}

PyObject *call_decode_request(PyObject *Py_UNUSED(module), PyObject *message) {
    struct frame frame;
    char *data;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(message, &data, &count) < 0) return NULL;
    if (read_request((struct bytes){data, (size_t)count}, &frame)) {
        PyObject *fields = described(message, &frame);
        if (fields || PyErr_Occurred()) return fields;
    }
    Py_RETURN_NONE;
}
