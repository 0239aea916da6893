/* What writing and reading frames and replies have in common. */

#include "messages.h"

/* Half of what there is room for, so that what stands around the rows can be added without a look.
 */
#define MOST_ROW_BYTES (PY_SSIZE_T_MAX / 2)

int read_unsigned(PyObject *number, uint64_t most, uint64_t *into) {
    PyObject *index = PyNumber_Index(number);
    if (!index) return -1;
    *into = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (*into == (uint64_t)-1 && PyErr_Occurred()) return -1;
    if (*into <= most) return 0;
    PyErr_Format(PyExc_OverflowError, "%llu is above %llu", (unsigned long long)*into,
                 (unsigned long long)most);
    return -1;
}

int choose_rows(struct rows *rows, PyObject *indices, Py_buffer *buffer, size_t *num_bytes) {
    if (indices != Py_None) {
        const struct array wanted = {
            .from = indices, .count = PyObject_Size(indices), .limit = rows->count};
        if (wanted.count < 0 || read_arrays(&wanted, buffer, 1) < 0) return -1;
        rows->indices = buffer->buf;
        rows->count = wanted.count;
    }
    if (!__builtin_mul_overflow((size_t)rows->count, rows->row_bytes, num_bytes) &&
        *num_bytes < MOST_ROW_BYTES)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static void copy_rows(const struct rows *rows, char *to) {
    for (int64_t i = 0; i < rows->count; i++, to += rows->row_bytes) {
        const int64_t row = rows->indices ? rows->indices[i] : i;
        memcpy(to, rows->first + row * rows->stride, rows->row_bytes);
    }
}

PyObject *new_message(size_t num_head, const struct rows *rows, size_t num_after,
                      struct sink *head) {
    const size_t num_body = num_head + (size_t)rows->count * rows->row_bytes;
    struct sink header = {0};
    put_header(&header, BODY, num_body);
    PyObject *message =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(header.count + num_body + num_after));
    if (!message) return NULL;
    *head = (struct sink){.at = PyBytes_AsString(message)};
    put_header(head, BODY, num_body);
    copy_rows(rows, head->at + num_head);
    return message;
}

PyObject *view_of(PyObject *message, struct bytes bytes) {
    const Py_ssize_t start = bytes.count ? bytes.data - PyBytes_AsString(message) : 0;
    PyObject *all = PyMemoryView_FromObject(message);
    PyObject *view = all ? PySequence_GetSlice(all, start, start + (Py_ssize_t)bytes.count) : NULL;
    Py_XDECREF(all);
    return view;
}
