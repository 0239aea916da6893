/* The connection behind a `Stream`: what its peer says is kept for Python or handed to an exchange.
 */

#include "stream.h"

#include "tls.h"

#include <sys/socket.h>

/* Keeps (bytes, number) in a list for Python. Without memory the stream is over: what came would be
 * lost without a word. */
static void keep(struct stream *stream, PyObject *list, const char *data, size_t count,
                 uint64_t number) {
    const PyGILState_STATE state = PyGILState_Ensure();
    PyObject *entry = Py_BuildValue("NK", PyBytes_FromStringAndSize(data, (Py_ssize_t)count),
                                    (unsigned long long)number);
    if (!entry || PyList_Append(list, entry) < 0) {
        PyErr_Clear();
        stream->is_over = 1;
    }
    Py_XDECREF(entry);
    PyGILState_Release(state);
}

static struct stream *owner_of(struct http2_stream *on_wire) { return on_wire->owner; }

static void take_headers(struct http2_stream *on_wire, const char *block, size_t count,
                         int ends_stream) {
    struct stream *const stream = owner_of(on_wire);
    keep(stream, stream->headers, block, count, (uint64_t)ends_stream);
    if (ends_stream) stream->is_over = 1;
}

static void take_message(struct http2_stream *on_wire, const char *data, size_t count) {
    struct stream *const stream = owner_of(on_wire);
    const uint64_t arrived = http2_arrived_nanos(stream->connection);
    if (stream->exchange &&
        exchange_take(stream->exchange, stream->exchange_index, data, count, arrived))
        return;
    keep(stream, stream->messages, data, count, arrived);
}

static void take_end(struct http2_stream *on_wire) { owner_of(on_wire)->is_over = 1; }

static void take_reset(struct http2_stream *on_wire, uint32_t code) {
    struct stream *const stream = owner_of(on_wire);
    stream->is_over = stream->was_reset = 1;
    stream->reset_code = code;
    stream->on_wire = NULL;
}

static const struct http2_events events = {take_headers, take_message, take_end, take_reset, NULL};

int stream_open(struct stream *stream, int fd, struct bytes block, uint32_t max_message_bytes,
                struct tls_context *tls, const char *host) {
    struct http2_limits limits = http2_limits_default;
    struct tls_session *const session = tls ? tls->calls->begin(tls, host) : NULL;
    if (tls && !session) return -1;
    limits.max_message_bytes = max_message_bytes;
    stream->connection = http2_begin(fd, 0, &events, &limits, stream);
    if (!stream->connection) {
        if (session) tls->calls->end(session);
        return -1;
    }
    http2_secure(stream->connection, session);
    stream->on_wire = http2_open(stream->connection, block.data, block.count, stream);
    if (!stream->on_wire) stream->is_over = stream->is_lost = 1;
    return 0;
}

/* What a call of the framing returned. */
static int ended(struct stream *stream, int failed) {
    if (failed < 0) stream->is_over = stream->is_lost = 1;
    return stream->is_over ? -1 : 0;
}

int stream_fd(const struct stream *stream) {
    return stream->connection ? http2_fd(stream->connection) : -1;
}

int stream_is_clear(const struct stream *stream) {
    return !stream->is_over && stream->on_wire && stream->on_wire->num_unsent == 0;
}

int stream_send(struct stream *stream, const struct iovec *parts, int num_parts) {
    if (stream->is_over || !stream->on_wire) return -1;
    return ended(stream, http2_send(stream->on_wire, parts, num_parts));
}

int stream_receive(struct stream *stream) {
    if (stream->is_over || !stream->connection) return -1;
    socklen_t size = sizeof stream->core;
    getsockopt(stream_fd(stream), SOL_SOCKET, SO_INCOMING_CPU, &stream->core, &size);
    const int failed = http2_receive(stream->connection);
    /* The end of a connection resets its streams too; it is not the peer's word on this one. */
    if (failed < 0 && stream->reset_code == HTTP2_CANCEL) stream->was_reset = 0;
    return ended(stream, failed);
}

void *stream_keep(struct stream *stream, struct bytes message) {
    return stream->on_wire ? http2_keep(stream->on_wire, message.data, message.count) : NULL;
}

int stream_flush(struct stream *stream) {
    if (stream->is_over || !stream->connection) return -1;
    return ended(stream, http2_flush(stream->connection));
}

int stream_wants_write(const struct stream *stream) {
    return !stream->is_over && stream->connection && http2_wants_write(stream->connection);
}

int stream_has_news(const struct stream *stream) {
    return stream->is_over || PyList_Size(stream->messages) > 0 || PyList_Size(stream->headers) > 0;
}
