/* HTTP/2 (RFC 9113) as far as gRPC's streams need it: frames, flow control, length-prefixed
 * messages; many streams on a connection, as client or as server.
 *
 * No Python and no threads. Header blocks are handed out, and taken, as bytes; `header_decoder.h`
 * reads them. A connection belongs to one thread. What is read is any bytes at all, from anybody:
 * what breaks the rules or a bound ends the connection, never the process. */

#ifndef MOESAIC_HTTP2_H
#define MOESAIC_HTTP2_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct http2_connection;
struct tls_session; /* of services/wire/tls/tls.h */

/* Of one stream. `owner` is the owner's to set and to read. */
struct http2_stream {
    struct http2_connection *connection;
    uint32_t id;
    void *owner;
    /* Messages sent that the socket or the peer's windows have not taken yet. */
    size_t num_unsent;
    /* Whether the message that is being handed out is compressed. */
    int is_compressed;
    /* The rest is the framing's own; see connection.h. */
};

/* What a connection tells its owner, from within `http2_receive`. Bytes are valid until the call
 * returns. A stream that was `ended` by both sides, or `reset`, is gone when the call returns; the
 * owner forgets it there. */
struct http2_events {
    /* A server's new stream, or what the peer answers on one: headers, or trailers where they end
     * the stream. Trailing headers may come after messages. */
    void (*headers)(struct http2_stream *, const char *block, size_t count, int ends_stream);
    /* One gRPC message, whole, without its prefix. */
    void (*message)(struct http2_stream *, const char *data, size_t count);
    /* The peer sends no more on this stream: all of its messages were handed out. */
    void (*remote_ended)(struct http2_stream *);
    /* The stream is gone: the peer reset it, or the connection is ending. */
    void (*reset)(struct http2_stream *, uint32_t code);
    /* A header block that no stream is told of, in its turn among those that are: later ones may
     * build on it. A server's owner gets a client's trailers so. NULL where none is decoded. */
    void (*passed_over)(struct http2_connection *, const char *block, size_t count);
};

/* Bounds; each has a sane default in `http2_limits_default`. */
struct http2_limits {
    uint32_t max_streams;           /* that a peer may have open on a server's connection */
    uint32_t max_message_bytes;     /* of one gRPC message; the stream's window holds it */
    uint32_t max_header_bytes;      /* of one header block, CONTINUATION included */
    uint32_t max_header_list_bytes; /* that the peer is asked to keep to; the owner judges */
    uint32_t max_unsent_bytes;   /* of a connection: what is queued for a peer that does not read */
    uint32_t max_held_bytes;     /* of a connection: what the peer sent of messages that are not
                                    whole yet, or that wait on paused streams, or that the owner
                                    counts; one message of any size is always taken */
    uint32_t max_control_frames; /* in a second, of those that cost us and carry nothing: PING,
                                    SETTINGS, RST_STREAM, PRIORITY, empty DATA, refused HEADERS,
                                    unknown types, and WINDOW_UPDATE at a tenth of its number */
    int takes_compressed;        /* hand out compressed messages as they are, do not refuse them */
};

extern const struct http2_limits http2_limits_default;

/* Error codes of RFC 9113, section 7. */
enum http2_error {
    HTTP2_NO_ERROR = 0,
    HTTP2_PROTOCOL_ERROR = 1,
    HTTP2_INTERNAL_ERROR = 2,
    HTTP2_FLOW_CONTROL_ERROR = 3,
    HTTP2_STREAM_CLOSED = 5,
    HTTP2_FRAME_SIZE_ERROR = 6,
    HTTP2_REFUSED_STREAM = 7,
    HTTP2_CANCEL = 8,
    HTTP2_ENHANCE_YOUR_CALM = 11,
};

/* Takes over a connected, non-blocking socket and queues what is said first. NULL without memory:
 * then the socket is still the caller's. */
struct http2_connection *http2_begin(int fd, int is_server, const struct http2_events *,
                                     const struct http2_limits *, void *owner);
/* Has everything go through TLS, over which it takes; to be called before anything else is. */
void http2_secure(struct http2_connection *, struct tls_session *);
/* Closes the socket and frees everything, without an event. */
void http2_end(struct http2_connection *);

int http2_fd(const struct http2_connection *);
void *http2_owner(const struct http2_connection *);
/* Goes through the open streams: pass NULL for the first; NULL after the last. */
struct http2_stream *http2_next_stream(struct http2_connection *, struct http2_stream *);
/* The open stream of this id; NULL for none. */
struct http2_stream *http2_find(const struct http2_connection *, uint32_t id);
/* Of the messages that the stream has unsent. */
size_t http2_unsent_bytes(const struct http2_stream *);
/* Of all streams, also of those that are gone. */
size_t http2_all_unsent_bytes(const struct http2_connection *);

/* What `max_held_bytes` bounds: of the stream, and of the connection. */
size_t http2_held_bytes(const struct http2_stream *);
size_t http2_all_held_bytes(const struct http2_connection *);
/* The owner keeps so much more, or less, of what it was handed: it counts as held. Whether that is
 * within the bound; beyond it the next stream whose bytes have to be held is reset. */
int http2_count_held(struct http2_connection *, ptrdiff_t change);

/* Since when, by the monotonic clock, a message of the stream has been coming that is not whole
 * yet; 0 for none, and while it is paused. So of the connection: frames that are read as a whole,
 * and header blocks. */
uint64_t http2_message_nanos(const struct http2_stream *);
uint64_t http2_frame_nanos(const struct http2_connection *);

/* A client's new stream with this header block. NULL when the peer's limit of streams is reached,
 * the connection is ending, or without memory. */
struct http2_stream *http2_open(struct http2_connection *, const char *block, size_t count,
                                void *owner);
/* Sends headers; with `ends_stream` they are trailers, sent after all messages. A server's owner
 * forgets the stream then, since there is no further event for it; one whose client has not ended
 * its side is reset with NO_ERROR once the trailers are sent. 0, or -1 when the connection is
 * lost. */
int http2_send_headers(struct http2_stream *, const char *block, size_t count, int ends_stream);
/* Sends one gRPC message given in parts, from where they lie. What the socket or a window does not
 * take now is copied. 0, or -1 when the connection is lost or `max_unsent_bytes` would be passed:
 * then nothing of the message is sent. */
int http2_send(struct http2_stream *, const struct iovec *parts, int num_parts);
/* The client sends no more on this stream. 0, or -1 when the connection is lost. */
int http2_finish(struct http2_stream *);
/* Gives the stream up; it is gone when the call returns, without an event. */
int http2_reset(struct http2_stream *, enum http2_error);
/* From within `message`: takes over the memory that this message lies in, to be freed by `free`.
 * NULL where it does not lie in memory of its own, as short messages do not. */
void *http2_keep(struct http2_stream *, const char *data, size_t count);
/* While a stream is paused its messages are kept, and the peer is given no more window for it, so
 * that they are bounded by `max_message_bytes` and a frame. `http2_resume` hands them out; where
 * those are `most` messages, the stream is paused again behind them. */
void http2_pause(struct http2_stream *);
int http2_resume(struct http2_stream *, size_t most);

/* From now on nothing is written but by `http2_flush`, so that all that is sent meanwhile goes out
 * together. Small messages then count as taken by the socket where it last took everything. */
void http2_hold(struct http2_connection *);
/* Asks the peer for a sign of life: it answers at once, which is read as any of its frames is. */
int http2_ping(struct http2_connection *);
/* Says that no new streams are taken; those that are open go on. */
int http2_goaway(struct http2_connection *, enum http2_error);

/* Reads what the socket has, with an event for each thing complete, and sends what that made
 * sendable. A peer that sends faster than this reads is left after some megabytes, for the others'
 * sake, so the socket is to be watched by level. 0, or -1 when the connection is over: every stream
 * was `reset` first, and `http2_end` is what is left to do. Not to be called from within an event,
 * and neither is `http2_end`. */
int http2_receive(struct http2_connection *);
/* Sends what waits. 0, or -1 when the connection is lost. */
int http2_flush(struct http2_connection *);
int http2_is_over(const struct http2_connection *);
/* Whether the peer has said what each says first: that it speaks HTTP/2. */
int http2_has_begun(const struct http2_connection *);
/* Whether TLS, where there is one, has shaken hands; the peer is who it should be then. */
int http2_is_secured(const struct http2_connection *);
/* Whom the peer's certificate names, as `peer` in tls.h has it. */
const char *http2_peer(const struct http2_connection *);
/* Says that nothing more is written, once all is; what comes is still read. */
void http2_shut(struct http2_connection *);
/* Whether to call `http2_flush` when the socket can be written to. */
int http2_wants_write(const struct http2_connection *);
/* Whether everything was handed to the socket, also what waited for the peer's windows. */
int http2_is_drained(const struct http2_connection *);
/* When the bytes that were read last arrived, by the monotonic clock, in nanoseconds: as the kernel
 * says (SO_TIMESTAMPNS), or now where it does not. To be asked from within an event. */
uint64_t http2_arrived_nanos(const struct http2_connection *);
/* Why the connection was ended, as words for a log; never NULL. */
const char *http2_why(const struct http2_connection *);

#endif
