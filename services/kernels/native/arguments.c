#include "arguments.h"

/* Multiplications from which on the work takes some 50 microseconds, and handing over the
 * interpreter is worth it. */
#define LONG_WORK (1 << 20)

int read_numbers(PyObject *const *arguments, Py_ssize_t given, int64_t *into, Py_ssize_t wanted) {
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd numbers are wanted, not %zd", wanted, given);
        return -1;
    }
    for (Py_ssize_t i = 0; i < wanted; i++) {
        into[i] = PyLong_AsLongLong(arguments[i]);
        if (into[i] == -1 && PyErr_Occurred()) return -1;
    }
    return 0;
}

int read_floats(PyObject *const *arguments, float *into, int wanted) {
    for (int i = 0; i < wanted; i++) {
        const double number = PyFloat_AsDouble(arguments[i]);
        if (number == -1.0 && PyErr_Occurred()) return -1;
        into[i] = (float)number;
    }
    return 0;
}

static int check_form(const Py_buffer *buffer, int64_t count) {
    const char format = buffer->format ? *buffer->format : 'B';
    if (buffer->ndim == 1 && buffer->shape[0] == count && buffer->itemsize == 8 &&
        (format == 'l' || format == 'q'))
        return 0;
    PyErr_Format(PyExc_ValueError, "an array of %lld int64 is wanted", (long long)count);
    return -1;
}

static int check_range(const int64_t *indices, const struct array *wanted) {
    for (int64_t i = 0; i < wanted->count; i++) {
        const int is_low = indices[i] < wanted->lowest;
        if (!is_low && indices[i] < wanted->limit) continue;
        PyErr_Format(PyExc_IndexError, is_low ? "%lld is below %lld" : "%lld is not below %lld",
                     (long long)indices[i], (long long)(is_low ? wanted->lowest : wanted->limit));
        return -1;
    }
    return 0;
}

static int read_array(PyObject *argument, const struct array *wanted, Py_buffer *buffer) {
    const int flags = PyBUF_ND | PyBUF_FORMAT | (wanted->is_room ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(argument, buffer, flags) < 0) return -1;
    if (!check_form(buffer, wanted->count) &&
        (wanted->is_room || !check_range(buffer->buf, wanted)))
        return 0;
    PyBuffer_Release(buffer);
    return -1;
}

int read_arrays(PyObject *const *arguments, const struct array *wanted, Py_buffer *buffers,
                int count) {
    for (int i = 0; i < count; i++) {
        if (read_array(arguments[i], wanted + i, buffers + i) < 0) {
            release_arrays(buffers, i);
            return -1;
        }
    }
    return 0;
}

void release_arrays(Py_buffer *buffers, int count) {
    while (count-- > 0) PyBuffer_Release(buffers + count);
}

PyThreadState *pause_for(int64_t multiplications) {
    return multiplications > LONG_WORK ? PyEval_SaveThread() : NULL;
}

void resume(PyThreadState *paused) {
    if (paused) PyEval_RestoreThread(paused);
}
