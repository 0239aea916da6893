#include "arguments.h"

/* Multiplications from which on the work takes some 50 microseconds, and handing over the interpreter is worth it. */
#define LONG_WORK (1 << 20)

int read_numbers(PyObject *const *arguments, Py_ssize_t given, int64_t *into, Py_ssize_t wanted) {
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are wanted, not %zd", wanted, given);
        return -1;
    }
    for (Py_ssize_t i = 0; i < wanted; i++) {
        into[i] = PyLong_AsLongLong(arguments[i]);
        if (into[i] == -1 && PyErr_Occurred()) return -1;
    }
    return 0;
}

int read_indices(PyObject *array, int64_t count, int64_t limit, Py_buffer *buffer) {
    if (PyObject_GetBuffer(array, buffer, PyBUF_ND | PyBUF_FORMAT) < 0) return -1;
    const char format = buffer->format ? *buffer->format : 'B';
    if (buffer->ndim != 1 || buffer->shape[0] != count || buffer->itemsize != 8 || (format != 'l' && format != 'q')) {
        PyErr_Format(PyExc_ValueError, "an array of %lld int64 is wanted", (long long)count);
        PyBuffer_Release(buffer);
        return -1;
    }
    const int64_t *indices = buffer->buf;
    for (int64_t i = 0; i < count; i++) {
        if (indices[i] < 0 || indices[i] >= limit) {
            PyErr_Format(PyExc_IndexError, "%lld is not below %lld", (long long)indices[i], (long long)limit);
            PyBuffer_Release(buffer);
            return -1;
        }
    }
    return 0;
}

PyThreadState *pause_for(int64_t multiplications) {
    return multiplications > LONG_WORK ? PyEval_SaveThread() : NULL;
}

void resume(PyThreadState *paused) {
    if (paused) PyEval_RestoreThread(paused);
}
