/* The Python type `Stream`. */

#include "stream.h"

#include "tls_python.h"

#include <unistd.h>

static PyTypeObject *stream_type;

struct stream *stream_of(PyObject *object) {
    if (PyObject_TypeCheck(object, stream_type)) return (struct stream *)object;
    PyErr_SetString(PyExc_TypeError, "a Stream is wanted");
    return NULL;
}

static void close_connection(struct stream *stream) {
    stream->is_over = 1;
    if (stream->connection) http2_end(stream->connection);
    stream->connection = NULL, stream->on_wire = NULL;
}

/* Stream(fd, header_block, max_message_bytes, tls, host): the descriptor is taken over, also by a
 * failure. */
static PyObject *new_stream(PyTypeObject *type, PyObject *arguments,
                            PyObject *Py_UNUSED(keywords)) {
    int fd;
    PyObject *block, *tls = NULL;
    unsigned int max_message_bytes;
    const char *host = NULL;
    struct tls_context *context;
    if (!PyArg_ParseTuple(arguments, "iSI|Oz", &fd, &block, &max_message_bytes, &tls, &host) ||
        tls_context_of(tls, &context) < 0)
        return NULL;
    struct stream *const stream = (struct stream *)PyType_GenericAlloc(type, 0);
    if (!stream) return NULL;
    stream->messages = PyList_New(0), stream->headers = PyList_New(0);
    const struct bytes whole = {PyBytes_AsString(block), (size_t)PyBytes_Size(block)};
    if (stream->messages && stream->headers &&
        stream_open(stream, fd, whole, max_message_bytes, context, host) == 0)
        return (PyObject *)stream;
    close(fd);
    Py_DECREF(stream);
    return PyErr_NoMemory();
}

static void free_stream(PyObject *self) {
    struct stream *const stream = (struct stream *)self;
    PyTypeObject *const type = Py_TYPE(self);
    close_connection(stream);
    Py_XDECREF(stream->messages);
    Py_XDECREF(stream->headers);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* The list, with an empty one in its place. */
static PyObject *taken(PyObject **list) {
    PyObject *const empty = PyList_New(0);
    if (!empty) return NULL;
    PyObject *const found = *list;
    *list = empty;
    return found;
}

static PyObject *receive(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    struct stream *const stream = (struct stream *)self;
    stream_receive(stream);
    return taken(&stream->messages);
}

static PyObject *take_headers(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return taken(&((struct stream *)self)->headers);
}

static PyObject *send_message(PyObject *self, PyObject *message) {
    struct stream *const stream = (struct stream *)self;
    char *data;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(message, &data, &count) < 0) return NULL;
    if (!stream_is_clear(stream)) Py_RETURN_FALSE;
    const struct iovec part = {data, (size_t)count};
    return PyBool_FromLong(stream_send(stream, &part, 1) == 0);
}

static PyObject *flush(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    stream_flush((struct stream *)self);
    Py_RETURN_NONE;
}

static PyObject *fileno_of(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLong(stream_fd((struct stream *)self));
}

static PyObject *why(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct stream *const stream = (struct stream *)self;
    if (!stream->connection) return PyUnicode_FromString("it was closed");
    if (!stream->is_lost) return PyUnicode_FromString("it ended without a status");
    return PyUnicode_FromString(http2_why(stream->connection));
}

static PyObject *close_stream(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    close_connection((struct stream *)self);
    Py_RETURN_NONE;
}

static PyObject *get_has_news(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(stream_has_news((struct stream *)self));
}

static PyObject *get_is_over(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((struct stream *)self)->is_over);
}

static PyObject *get_is_clear(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(stream_is_clear((struct stream *)self));
}

static PyObject *get_is_free(PyObject *self, void *Py_UNUSED(closure)) {
    const struct stream *const stream = (struct stream *)self;
    return PyBool_FromLong(stream_is_clear(stream) && !stream->exchange);
}

static PyObject *get_wants_write(PyObject *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(stream_wants_write((struct stream *)self));
}

static PyObject *get_peer(PyObject *self, void *Py_UNUSED(closure)) {
    const struct stream *const stream = (struct stream *)self;
    return Py_BuildValue("z", stream->connection ? http2_peer(stream->connection) : NULL);
}

static PyObject *get_reset_code(PyObject *self, void *Py_UNUSED(closure)) {
    const struct stream *const stream = (struct stream *)self;
    if (!stream->was_reset) Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(stream->reset_code);
}

static PyMethodDef methods[] = {
    {"receive", receive, METH_NOARGS, "receive($self, /)\n--\n\n"},
    {"take_headers", take_headers, METH_NOARGS, "take_headers($self, /)\n--\n\n"},
    {"send", send_message, METH_O, "send($self, message, /)\n--\n\n"},
    {"flush", flush, METH_NOARGS, "flush($self, /)\n--\n\n"},
    {"fileno", fileno_of, METH_NOARGS, "fileno($self, /)\n--\n\n"},
    {"why", why, METH_NOARGS, "why($self, /)\n--\n\n"},
    {"close", close_stream, METH_NOARGS, "close($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"has_news", get_has_news, NULL, NULL, NULL},       {"is_over", get_is_over, NULL, NULL, NULL},
    {"is_clear", get_is_clear, NULL, NULL, NULL},       {"is_free", get_is_free, NULL, NULL, NULL},
    {"wants_write", get_wants_write, NULL, NULL, NULL}, {"peer", get_peer, NULL, NULL, NULL},
    {"reset_code", get_reset_code, NULL, NULL, NULL},   {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new_stream},
    {Py_tp_dealloc, free_stream},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec specification = {
    .name = "services.router._streams.Stream",
    .basicsize = sizeof(struct stream),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int add_stream_type(PyObject *module) {
    PyObject *const type = PyType_FromSpec(&specification);
    stream_type = (PyTypeObject *)type;
    return type && PyModule_AddObjectRef(module, "Stream", type) == 0 ? 0 : -1;
}
