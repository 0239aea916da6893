/* What Python may ask of a plane. */

#include "plane_object.h"

#include "tls_python.h"

#include <stdlib.h>

static PyObject *events(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    struct handover *handover = &plane_of(self)->handover;
    PyObject *list = PyList_New(0);
    struct event *event = list ? take_events(handover) : NULL;
    while (event) {
        PyObject *told =
            Py_BuildValue("iKKy#", event->kind, (unsigned long long)event->number,
                          (unsigned long long)event->nanos, event->data, (Py_ssize_t)event->count);
        const int failed = !told || PyList_Append(list, told) < 0;
        Py_XDECREF(told);
        if (failed) {
            put_back(handover, event);
            if (PyList_Size(list)) { /* the next call has the rest */
                PyErr_Clear();
                return list;
            }
            Py_CLEAR(list);
            return NULL;
        }
        struct event *next = event->next;
        free_event(event);
        event = next;
    }
    return list;
}

static PyObject *command(PyObject *self, PyObject *arguments) {
    int kind;
    unsigned long long number;
    const char *data = NULL;
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(arguments, "iK|y#", &kind, &number, &data, &count)) return NULL;
    const enum command_kind asked = (enum command_kind)kind;
    if (ask(&plane_of(self)->handover, asked, number, data, (size_t)count) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *take(PyObject *self, PyObject *arguments) {
    unsigned long long number, num_pairs;
    if (!PyArg_ParseTuple(arguments, "KK", &number, &num_pairs)) return NULL;
    return PyBool_FromLong(take_credit(plane_of(self), number, num_pairs));
}

static PyObject *grant(PyObject *self, PyObject *arguments) {
    unsigned long long number, num_pairs;
    if (!PyArg_ParseTuple(arguments, "KK", &number, &num_pairs)) return NULL;
    grant_credit(plane_of(self), number, num_pairs);
    Py_RETURN_NONE;
}

static PyObject *fileno_of(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLong(plane_of(self)->handover.told);
}

static unsigned long long count_of(_Atomic uint64_t *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static PyObject *counts(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    struct plane *plane = plane_of(self);
    struct records *records = &plane->records;
    PyObject *batches = PyList_New(0);
    for (int64_t layer = 0; batches && layer < plane->bank.num_layers; layer++) {
        PyObject *count = PyLong_FromUnsignedLongLong(count_of(records->num_batches + layer));
        if (!count || PyList_Append(batches, count) < 0) Py_CLEAR(batches);
        Py_XDECREF(count);
    }
    if (!batches) return NULL;
    return Py_BuildValue("KKKNK", count_of(&records->num_frames), count_of(&records->num_pairs),
                         count_of(&records->num_lost), batches,
                         count_of(&records->num_waiting_pairs));
}

static int append(PyObject *list, PyObject *made) {
    const int failed = !made || PyList_Append(list, made) < 0;
    Py_XDECREF(made);
    return failed ? -1 : 0;
}

static PyObject *make_batch(const struct batch_record *batch) {
    return Py_BuildValue("LLLL", (long long)batch->layer, (long long)batch->num_frames,
                         (long long)batch->num_active, (long long)batch->nanos);
}

static PyObject *make_frame(const struct frame_record *frame) {
    const uint64_t *const timings = frame->timings;
    return Py_BuildValue("s#LLLLLL(KKKK)", frame->traceparent, (Py_ssize_t)TRACEPARENT_BYTES,
                         (long long)frame->layer, (long long)frame->num_rows,
                         (long long)frame->num_pairs, (long long)frame->num_bytes,
                         (long long)frame->batch_frames, (long long)frame->ended_nanos,
                         (unsigned long long)timings[0], (unsigned long long)timings[1],
                         (unsigned long long)timings[2], (unsigned long long)timings[3]);
}

static PyObject *records(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct rings *rings = take_records(&plane_of(self)->records);
    PyObject *batches = PyList_New(0), *frames = PyList_New(0);
    int failed = !batches || !frames;
    for (size_t i = 0; !failed && i < rings->num_batches; i++)
        failed = append(batches, make_batch(rings->batches + i));
    for (size_t i = 0; !failed && i < rings->num_frames; i++)
        failed = append(frames, make_frame(rings->frames + i));
    if (!failed) return Py_BuildValue("NN", batches, frames);
    Py_XDECREF(batches);
    Py_XDECREF(frames);
    return NULL;
}

static PyObject *secure(PyObject *self, PyObject *context) {
    struct tls_context *tls;
    if (tls_context_of(context, &tls) < 0) return NULL;
    secure_plane(plane_of(self), tls);
    Py_RETURN_NONE;
}

static PyObject *stop(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Py_BEGIN_ALLOW_THREADS;
    stop_plane(plane_of(self));
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

PyMethodDef plane_methods[] = {
    {"fileno", fileno_of, METH_NOARGS, "fileno($self, /)\n--\n\n"},
    {"events", events, METH_NOARGS, "events($self, /)\n--\n\n"},
    {"command", command, METH_VARARGS, "command($self, kind, number, data=b'', /)\n--\n\n"},
    {"take", take, METH_VARARGS, "take($self, number, num_pairs, /)\n--\n\n"},
    {"grant", grant, METH_VARARGS, "grant($self, number, num_pairs, /)\n--\n\n"},
    {"counts", counts, METH_NOARGS, "counts($self, /)\n--\n\n"},
    {"records", records, METH_NOARGS, "records($self, /)\n--\n\n"},
    {"secure", secure, METH_O, "secure($self, tls, /)\n--\n\n"},
    {"stop", stop, METH_NOARGS, "stop($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};
