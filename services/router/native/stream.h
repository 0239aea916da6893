/* One connection with one gRPC stream, as Python and the modules in C beside this one use it.
 *
 * It belongs to the event loop's thread. What is declared here may be called without the GIL, which
 * is taken only to keep a message or a header block for Python. */

#ifndef MOESAIC_ROUTER_STREAM_H
#define MOESAIC_ROUTER_STREAM_H

#include <Python.h>

#include <stdint.h>
#include <sys/uio.h>

#include "exchange.h"
#include "http2.h"

struct tls_context;

struct stream {
    PyObject base;
    struct http2_connection *connection; /* NULL once closed */
    struct http2_stream *on_wire;        /* NULL once the stream is gone */
    /* For Python: messages as (bytes, arrived_nanos), header blocks as (bytes, ends_stream). */
    PyObject *messages, *headers; /* lists */
    int is_over;                  /* nothing more comes, and nothing more can be sent */
    int is_lost;                  /* over with its connection */
    int was_reset;                /* the peer gave the stream up, with `reset_code` */
    uint32_t reset_code;
    int core; /* on which the kernel took in what was read last: its sender's, on one host */
    /* Who takes messages first while it is under way, and how it knows this stream; or NULL. */
    struct exchange *exchange;
    int exchange_index;
};

/* The stream behind an object of the type `Stream`; NULL with an error set for any other. */
struct stream *stream_of(PyObject *);

/* Begins a new one over a connected, non-blocking socket, and over TLS unless `tls` is NULL, with
 * the server that `host` names; it may be over at once. 0, or -1 without memory: then the socket is
 * still the caller's. */
int stream_open(struct stream *, int fd, struct bytes block, uint32_t max_message_bytes,
                struct tls_context *tls, const char *host);

int stream_fd(const struct stream *);
/* Whether a message sent now goes ahead of nothing: all before it were taken. */
int stream_is_clear(const struct stream *);
/* Sends one message given in parts, from where they lie; what is not taken now is copied. 0, or -1
 * when the stream is over. */
int stream_send(struct stream *, const struct iovec *parts, int num_parts);
/* Reads what has come: messages go to the exchange or are kept. Sends what that made sendable. 0,
 * or -1 when the stream is over. */
int stream_receive(struct stream *);
/* From within `exchange_take`: takes over the memory that the message lies in, to be freed; NULL
 * where that is not its own. */
void *stream_keep(struct stream *, struct bytes message);
/* Sends what waits. 0, or -1 when the stream is over. */
int stream_flush(struct stream *);
/* Whether to call `stream_flush` when the socket can be written to. */
int stream_wants_write(const struct stream *);
/* Whether Python has something to take: kept messages, a header block, or the end. With the GIL. */
int stream_has_news(const struct stream *);

/* Adds the type to the module. 0, or -1 with an error set. */
int add_stream_type(PyObject *module);

#endif
