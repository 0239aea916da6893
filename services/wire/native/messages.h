/* What Python's calls for frames and replies have in common. */

#ifndef MOESAIC_MESSAGES_H
#define MOESAIC_MESSAGES_H

#include <Python.h>

#include "arguments.h"
#include "protobuf.h"

/* Rows of the host's memory that are written: those with `indices`, or all in order. */
struct rows {
    const char *first;
    const int64_t *indices;
    int64_t count;
    size_t row_bytes;
    int64_t stride; /* bytes */
};

/* The arguments in which Python passes a tensor of rows, and all its rows. */
#define TENSOR(X)                                                                                  \
    X(address, rows)                                                                               \
    X(number, num_rows)                                                                            \
    X(number, row_bytes)                                                                           \
    X(number, row_stride)
#define ROWS_OF(given)                                                                             \
    {.first = (given)->rows,                                                                       \
     .count = (given)->num_rows,                                                                   \
     .row_bytes = (size_t)(given)->row_bytes,                                                      \
     .stride = (given)->row_stride}

/* Chooses the rows with `indices`, unless these are None. `num_bytes` is what the rows take when
 * written. 0, or -1 with an error set. */
int choose_rows(struct rows *rows, PyObject *indices, Py_buffer *buffer, size_t *num_bytes);

/* Reads an integer of at most `most`. 0, or -1 with an error set. */
int read_unsigned(PyObject *number, uint64_t most, uint64_t *into);

/* More kinds of arguments. */

typedef uint64_t uint64_argument;
typedef uint32_t uint32_argument, uint31_argument;
typedef struct bytes text_argument; /* in UTF-8, borrowed */

static inline int read_uint64(PyObject *number, uint64_t *into) {
    return read_unsigned(number, UINT64_MAX, into);
}

static inline int read_uint32(PyObject *number, uint32_t *into) {
    uint64_t read;
    if (read_unsigned(number, UINT32_MAX, &read) < 0) return -1;
    *into = (uint32_t)read;
    return 0;
}

static inline int read_uint31(PyObject *number, uint32_t *into) {
    uint64_t read;
    if (read_unsigned(number, INT32_MAX, &read) < 0) return -1;
    *into = (uint32_t)read;
    return 0;
}

static inline int read_text(PyObject *text, struct bytes *into) {
    Py_ssize_t count;
    into->data = PyUnicode_AsUTF8AndSize(text, &count);
    if (!into->data) return -1;
    into->count = (size_t)count;
    return 0;
}

/* A new message whose body has `num_head` bytes and then `rows`, which are in place already;
 * `num_after` bytes follow it. `head` is where the body is to be put. NULL with an error set. */
PyObject *new_message(size_t num_head, const struct rows *rows, size_t num_after,
                      struct sink *head);

/* A memoryview of bytes of `message`, or of none of them. */
PyObject *view_of(PyObject *message, struct bytes bytes);

#endif
