/* The Python type `Connection`. What the framing tells becomes a list that `receive` returns. */

#include "connection_type.h"

#include "http2.h"
#include "tls_python.h"

#include <unistd.h>

/* As services/wire/connections/__init__.py has them. */
enum kind { HEADERS, TRAILERS, MESSAGE, COMPRESSED, REMOTE_ENDED, RESET };

#define MAX_HEADER_BYTES (64 << 10)

struct connection {
    PyObject base;
    struct http2_connection *wire; /* NULL once closed */
    PyObject *events;              /* what is being told; NULL but while the framing reads */
    int has_lost_events;           /* there was no memory for one */
};

static struct connection *connection_of(PyObject *self) { return (struct connection *)self; }

static void tell_of(const struct http2_connection *wire, uint32_t stream, enum kind kind,
                    const char *data, size_t count, uint64_t number) {
    struct connection *const connection = http2_owner(wire);
    PyObject *const event = Py_BuildValue("IiNK", (unsigned int)stream, (int)kind,
                                          PyBytes_FromStringAndSize(data, (Py_ssize_t)count),
                                          (unsigned long long)number);
    if (!event || PyList_Append(connection->events, event) < 0) {
        PyErr_Clear();
        connection->has_lost_events = 1;
    }
    Py_XDECREF(event);
}

static void tell(const struct http2_stream *stream, enum kind kind, const char *data, size_t count,
                 uint64_t number) {
    tell_of(stream->connection, stream->id, kind, data, count, number);
}

static void on_headers(struct http2_stream *stream, const char *block, size_t count,
                       int ends_stream) {
    tell(stream, ends_stream ? TRAILERS : HEADERS, block, count,
         http2_arrived_nanos(stream->connection));
}

static void on_message(struct http2_stream *stream, const char *data, size_t count) {
    tell(stream, stream->is_compressed ? COMPRESSED : MESSAGE, data, count,
         http2_arrived_nanos(stream->connection));
}

static void on_remote_ended(struct http2_stream *stream) {
    tell(stream, REMOTE_ENDED, NULL, 0, http2_arrived_nanos(stream->connection));
}

static void on_reset(struct http2_stream *stream, uint32_t code) {
    tell(stream, RESET, NULL, 0, code);
}

/* Of stream 0, which nobody has. */
static void on_passed_over(struct http2_connection *wire, const char *block, size_t count) {
    tell_of(wire, 0, HEADERS, block, count, http2_arrived_nanos(wire));
}

static const struct http2_events events = {on_headers, on_message, on_remote_ended, on_reset,
                                           on_passed_over};

static void close_wire(struct connection *connection) {
    if (connection->wire) http2_end(connection->wire);
    connection->wire = NULL;
}

/* 0, or -1 with an error set; the descriptor is the connection's in either case. */
static int begin_wire(struct connection *connection, int fd, int is_server,
                      const struct http2_limits *limits, PyObject *tls, const char *host) {
    struct tls_context *context;
    struct tls_session *session = NULL;
    connection->wire = http2_begin(fd, is_server, &events, limits, connection);
    if (!connection->wire) {
        close(fd);
        PyErr_NoMemory();
        return -1;
    }
    http2_hold(connection->wire);
    if (tls_context_of(tls, &context) < 0) return -1;
    if (context && !(session = context->calls->begin(context, host))) {
        PyErr_NoMemory();
        return -1;
    }
    http2_secure(connection->wire, session);
    return 0;
}

/* Connection(fd, is_server, max_message_bytes, max_streams, max_unsent_bytes, max_held_bytes, tls,
 * host): the descriptor is taken over, also by a failure. */
static PyObject *new_connection(PyTypeObject *type, PyObject *arguments,
                                PyObject *Py_UNUSED(keywords)) {
    int fd, is_server;
    PyObject *tls = NULL;
    const char *host = NULL;
    struct http2_limits limits = http2_limits_default;
    if (!PyArg_ParseTuple(arguments, "ipIIII|Oz", &fd, &is_server, &limits.max_message_bytes,
                          &limits.max_streams, &limits.max_unsent_bytes, &limits.max_held_bytes,
                          &tls, &host))
        return NULL;
    /* A peer may give up all of its streams at once, and ask for as many again. */
    limits.max_control_frames += 4 * limits.max_streams;
    limits.takes_compressed = is_server;
    /* What is too long for a call is read all the same, or no later block could be. */
    limits.max_header_bytes = MAX_HEADER_BYTES;
    struct connection *const connection = (struct connection *)PyType_GenericAlloc(type, 0);
    if (!connection) {
        close(fd);
        return NULL;
    }
    if (begin_wire(connection, fd, is_server, &limits, tls, host) == 0)
        return (PyObject *)connection;
    Py_DECREF(connection);
    return NULL;
}

static void free_connection(PyObject *self) {
    PyTypeObject *const type = Py_TYPE(self);
    close_wire(connection_of(self));
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static int begin_events(struct connection *connection) {
    connection->events = PyList_New(0);
    return connection->events ? 0 : -1;
}

/* What was told. Raises MemoryError, and closes the connection, where some of it is lost. */
static PyObject *taken(struct connection *connection) {
    PyObject *const found = connection->events;
    connection->events = NULL;
    if (!connection->has_lost_events) return found;
    close_wire(connection);
    Py_DECREF(found);
    return PyErr_NoMemory();
}

static PyObject *receive(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    struct connection *const connection = connection_of(self);
    if (begin_events(connection) < 0) return NULL;
    if (connection->wire) http2_receive(connection->wire);
    return taken(connection);
}

/* Of arguments whose first is the id of a stream: 0 where the stream is not open, -1 with an error
 * set. */
static int find(PyObject *self, PyObject *id, struct http2_stream **stream) {
    const struct connection *const connection = connection_of(self);
    const unsigned long number = PyLong_AsUnsignedLong(id);
    if (number == (unsigned long)-1 && PyErr_Occurred()) return -1;
    *stream = connection->wire && number <= INT32_MAX
                  ? http2_find(connection->wire, (uint32_t)number)
                  : NULL;
    return *stream != NULL;
}

static PyObject *resume(PyObject *self, PyObject *arguments) {
    struct connection *const connection = connection_of(self);
    PyObject *id;
    unsigned int most;
    struct http2_stream *stream;
    if (!PyArg_ParseTuple(arguments, "OI", &id, &most)) return NULL;
    const int found = find(self, id, &stream);
    if (found < 0 || begin_events(connection) < 0) return NULL;
    if (found) http2_resume(stream, most);
    return taken(connection);
}

static PyObject *pause_stream(PyObject *self, PyObject *id) {
    struct http2_stream *stream;
    const int found = find(self, id, &stream);
    if (found < 0) return NULL;
    if (found) http2_pause(stream);
    Py_RETURN_NONE;
}

static PyObject *unsent_bytes(PyObject *self, PyObject *id) {
    struct http2_stream *stream;
    const int found = find(self, id, &stream);
    if (found < 0) return NULL;
    return PyLong_FromSize_t(found ? http2_unsent_bytes(stream) : 0);
}

static PyObject *all_unsent_bytes(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct connection *const connection = connection_of(self);
    return PyLong_FromSize_t(connection->wire ? http2_all_unsent_bytes(connection->wire) : 0);
}

static PyObject *held_bytes(PyObject *self, PyObject *id) {
    struct http2_stream *stream;
    const int found = find(self, id, &stream);
    if (found < 0) return NULL;
    return PyLong_FromSize_t(found ? http2_held_bytes(stream) : 0);
}

static PyObject *all_held_bytes(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct connection *const connection = connection_of(self);
    return PyLong_FromSize_t(connection->wire ? http2_all_held_bytes(connection->wire) : 0);
}

static int add_number(PyObject *numbers, unsigned long number) {
    PyObject *const added = PyLong_FromUnsignedLong(number);
    const int failed = added ? PyList_Append(numbers, added) : -1;
    Py_XDECREF(added);
    return failed;
}

static PyObject *late(PyObject *self, PyObject *before) {
    const struct connection *const connection = connection_of(self);
    const unsigned long long nanos = PyLong_AsUnsignedLongLong(before);
    if (nanos == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    PyObject *found = PyList_New(0);
    if (!found || !connection->wire) return found;
    const uint64_t of_frame = http2_frame_nanos(connection->wire);
    int failed = of_frame && of_frame < nanos ? add_number(found, 0) : 0;
    struct http2_stream *stream = NULL;
    while (!failed && (stream = http2_next_stream(connection->wire, stream))) {
        const uint64_t of_message = http2_message_nanos(stream);
        if (of_message && of_message < nanos) failed = add_number(found, stream->id);
    }
    if (failed) Py_CLEAR(found);
    return found;
}

static PyObject *count_held(PyObject *self, PyObject *change) {
    const struct connection *const connection = connection_of(self);
    const Py_ssize_t count = PyLong_AsSsize_t(change);
    if (count == -1 && PyErr_Occurred()) return NULL;
    return PyBool_FromLong(!connection->wire || http2_count_held(connection->wire, count));
}

static PyObject *open_stream(PyObject *self, PyObject *block) {
    const struct connection *const connection = connection_of(self);
    char *data;
    Py_ssize_t count;
    if (PyBytes_AsStringAndSize(block, &data, &count) < 0) return NULL;
    const struct http2_stream *const stream =
        connection->wire ? http2_open(connection->wire, data, (size_t)count, NULL) : NULL;
    return PyLong_FromUnsignedLong(stream ? stream->id : 0);
}

static PyObject *send_message(PyObject *self, PyObject *arguments) {
    PyObject *id, *message;
    struct http2_stream *stream;
    if (!PyArg_ParseTuple(arguments, "OS", &id, &message)) return NULL;
    const int found = find(self, id, &stream);
    if (found < 0) return NULL;
    const struct iovec part = {PyBytes_AsString(message), (size_t)PyBytes_Size(message)};
    return PyBool_FromLong(found && http2_send(stream, &part, 1) == 0);
}

static PyObject *send_headers(PyObject *self, PyObject *arguments) {
    PyObject *id, *block;
    struct http2_stream *stream;
    int ends_stream;
    if (!PyArg_ParseTuple(arguments, "OSp", &id, &block, &ends_stream)) return NULL;
    const int found = find(self, id, &stream);
    if (found < 0) return NULL;
    return PyBool_FromLong(found &&
                           http2_send_headers(stream, PyBytes_AsString(block),
                                              (size_t)PyBytes_Size(block), ends_stream) == 0);
}

static PyObject *finish(PyObject *self, PyObject *id) {
    struct http2_stream *stream;
    const int found = find(self, id, &stream);
    if (found < 0) return NULL;
    return PyBool_FromLong(found && http2_finish(stream) == 0);
}

static PyObject *reset(PyObject *self, PyObject *arguments) {
    PyObject *id;
    unsigned int code;
    struct http2_stream *stream;
    if (!PyArg_ParseTuple(arguments, "OI", &id, &code)) return NULL;
    const int found = find(self, id, &stream);
    if (found < 0) return NULL;
    return PyBool_FromLong(found && http2_reset(stream, (enum http2_error)code) == 0);
}

static PyObject *go_away(PyObject *self, PyObject *code) {
    const struct connection *const connection = connection_of(self);
    const unsigned long number = PyLong_AsUnsignedLong(code);
    if (number == (unsigned long)-1 && PyErr_Occurred()) return NULL;
    if (connection->wire) http2_goaway(connection->wire, (enum http2_error)number);
    Py_RETURN_NONE;
}

static PyObject *ping(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct connection *const connection = connection_of(self);
    if (connection->wire) http2_ping(connection->wire);
    Py_RETURN_NONE;
}

static PyObject *flush(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct connection *const connection = connection_of(self);
    return PyBool_FromLong(connection->wire && http2_flush(connection->wire) == 0);
}

static PyObject *fileno_of(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct connection *const connection = connection_of(self);
    return PyLong_FromLong(connection->wire ? http2_fd(connection->wire) : -1);
}

static PyObject *why(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct connection *const connection = connection_of(self);
    return PyUnicode_FromString(connection->wire ? http2_why(connection->wire) : "it was closed");
}

static PyObject *close_connection(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    close_wire(connection_of(self));
    Py_RETURN_NONE;
}

static PyObject *get_is_over(PyObject *self, void *Py_UNUSED(closure)) {
    const struct connection *const connection = connection_of(self);
    return PyBool_FromLong(!connection->wire || http2_is_over(connection->wire));
}

static PyObject *get_has_begun(PyObject *self, void *Py_UNUSED(closure)) {
    const struct connection *const connection = connection_of(self);
    return PyBool_FromLong(connection->wire && http2_has_begun(connection->wire));
}

static PyObject *get_is_secured(PyObject *self, void *Py_UNUSED(closure)) {
    const struct connection *const connection = connection_of(self);
    return PyBool_FromLong(connection->wire && http2_is_secured(connection->wire));
}

static PyObject *get_peer(PyObject *self, void *Py_UNUSED(closure)) {
    const struct connection *const connection = connection_of(self);
    return Py_BuildValue("z", connection->wire ? http2_peer(connection->wire) : NULL);
}

static PyObject *get_wants_write(PyObject *self, void *Py_UNUSED(closure)) {
    const struct connection *const connection = connection_of(self);
    return PyBool_FromLong(connection->wire && http2_wants_write(connection->wire));
}

static PyObject *get_is_drained(PyObject *self, void *Py_UNUSED(closure)) {
    const struct connection *const connection = connection_of(self);
    return PyBool_FromLong(!connection->wire || http2_is_drained(connection->wire));
}

static PyMethodDef methods[] = {
    {"open", open_stream, METH_O, "open($self, header_block, /)\n--\n\n"},
    {"receive", receive, METH_NOARGS, "receive($self, /)\n--\n\n"},
    {"send", send_message, METH_VARARGS, "send($self, stream, message, /)\n--\n\n"},
    {"send_headers", send_headers, METH_VARARGS,
     "send_headers($self, stream, header_block, ends_stream, /)\n--\n\n"},
    {"finish", finish, METH_O, "finish($self, stream, /)\n--\n\n"},
    {"reset", reset, METH_VARARGS, "reset($self, stream, code, /)\n--\n\n"},
    {"pause", pause_stream, METH_O, "pause($self, stream, /)\n--\n\n"},
    {"resume", resume, METH_VARARGS, "resume($self, stream, most, /)\n--\n\n"},
    {"held_bytes", held_bytes, METH_O, "held_bytes($self, stream, /)\n--\n\n"},
    {"all_held_bytes", all_held_bytes, METH_NOARGS, "all_held_bytes($self, /)\n--\n\n"},
    {"late", late, METH_O, "late($self, before_nanos, /)\n--\n\n"},
    {"count_held", count_held, METH_O, "count_held($self, change, /)\n--\n\n"},
    {"unsent_bytes", unsent_bytes, METH_O, "unsent_bytes($self, stream, /)\n--\n\n"},
    {"all_unsent_bytes", all_unsent_bytes, METH_NOARGS, "all_unsent_bytes($self, /)\n--\n\n"},
    {"goaway", go_away, METH_O, "goaway($self, code, /)\n--\n\n"},
    {"ping", ping, METH_NOARGS, "ping($self, /)\n--\n\n"},
    {"flush", flush, METH_NOARGS, "flush($self, /)\n--\n\n"},
    {"fileno", fileno_of, METH_NOARGS, "fileno($self, /)\n--\n\n"},
    {"why", why, METH_NOARGS, "why($self, /)\n--\n\n"},
    {"close", close_connection, METH_NOARGS, "close($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"is_over", get_is_over, NULL, NULL, NULL},
    {"has_begun", get_has_begun, NULL, NULL, NULL},
    {"is_secured", get_is_secured, NULL, NULL, NULL},
    {"peer", get_peer, NULL, NULL, NULL},
    {"wants_write", get_wants_write, NULL, NULL, NULL},
    {"is_drained", get_is_drained, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, new_connection},
    {Py_tp_dealloc, free_connection},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec specification = {
    .name = "services.wire.connections._connections.Connection",
    .basicsize = sizeof(struct connection),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int add_connection_type(PyObject *module) {
    PyObject *const type = PyType_FromSpec(&specification);
    const int failed = type ? PyModule_AddObjectRef(module, "Connection", type) : -1;
    Py_XDECREF(type);
    return failed;
}
