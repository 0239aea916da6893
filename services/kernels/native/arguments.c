#include "arguments.h"

/* Multiplications from which on the work takes some 50 microseconds, and handing over the
 * interpreter is worth it. */
#define LONG_WORK (1 << 20)

/* Where the call has an argument of this name, or -1. `expected` is looked at first. */
static Py_ssize_t place_of(const struct call *call, PyObject *name, Py_ssize_t expected) {
    for (Py_ssize_t i = 0; PyUnicode_Check(name) && i < call->count; i++) {
        const Py_ssize_t place = (expected + i) % call->count;
        if (PyUnicode_CompareWithASCIIString(name, call->arguments[place]) == 0) return place;
    }
    return -1;
}

/* Puts each value into its place; others stay NULL. How many came where they belong, or -1 with an
 * error set. */
static Py_ssize_t sort(const struct call *call, PyObject *const *values, PyObject *names,
                       PyObject **sorted) {
    const Py_ssize_t count = names ? PyTuple_Size(names) : 0;
    Py_ssize_t num_in_place = 0;
    for (Py_ssize_t i = 0; i < call->count; i++) sorted[i] = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *const name = PyTuple_GetItem(names, i);
        const Py_ssize_t place = place_of(call, name, i);
        if (place < 0 || sorted[place]) {
            PyErr_Format(PyExc_TypeError, "%s() %s %R", call->name,
                         place < 0 ? "has no argument" : "was given twice", name);
            return -1;
        }
        sorted[place] = values[i];
        num_in_place += place == i;
    }
    return num_in_place;
}

/* 0, or -1 with an error set. */
static int check_all_came(const struct call *call, PyObject *const *sorted) {
    for (Py_ssize_t i = 0; i < call->count; i++) {
        if (sorted[i]) continue;
        PyErr_Format(PyExc_TypeError, "%s() wants the argument '%s'", call->name,
                     call->arguments[i]);
        return -1;
    }
    return 0;
}

static void remember(struct call *call, PyObject *names) {
    PyObject *const before = call->usual;
    call->usual = Py_NewRef(names);
    Py_XDECREF(before);
}

PyObject *const *in_order(struct call *call, PyObject *const *values, Py_ssize_t num_positional,
                          PyObject *names, PyObject **sorted) {
    if (num_positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes keyword arguments alone, not %zd positional",
                     call->name, num_positional);
        return NULL;
    }
    if (names && names == call->usual) return values;
    const Py_ssize_t num_in_place = sort(call, values, names, sorted);
    if (num_in_place < 0 || check_all_came(call, sorted) < 0) return NULL;
    if (num_in_place == call->count) remember(call, names);
    return sorted;
}

int read_shape(PyObject *tuple, int64_t (*into)[3]) {
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != 3) {
        PyErr_Format(PyExc_TypeError, "a tuple of 3 numbers is wanted, not %R", tuple);
        return -1;
    }
    for (int i = 0; i < 3; i++) {
        if (read_number(PyTuple_GetItem(tuple, i), *into + i) < 0) return -1;
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

static int read_array(const struct array *wanted, Py_buffer *buffer) {
    const int flags = PyBUF_ND | PyBUF_FORMAT | (wanted->is_room ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(wanted->from, buffer, flags) < 0) return -1;
    if (!check_form(buffer, wanted->count) &&
        (wanted->is_room || !check_range(buffer->buf, wanted)))
        return 0;
    PyBuffer_Release(buffer);
    return -1;
}

int read_arrays(const struct array *wanted, Py_buffer *buffers, int count) {
    for (int i = 0; i < count; i++) {
        if (read_array(wanted + i, buffers + i) < 0) {
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
