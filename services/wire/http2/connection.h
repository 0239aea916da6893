/* What the files of the framing share about a connection and its streams. Not for their users. */

#ifndef MOESAIC_HTTP2_CONNECTION_H
#define MOESAIC_HTTP2_CONNECTION_H

#include "buffer.h"
#include "frames.h"
#include "http2.h"

#include <stdbool.h>
#include <sys/types.h>

/* What ends a stream's sending once its messages are gone. */
enum h2_ending { H2_GOES_ON, H2_FINISHES, H2_HAS_TRAILERS };

struct h2_stream {
    struct http2_stream shown; /* comes first: its address is the stream's */
    struct h2_stream *previous, *next;

    /* Sending. `pending` are whole messages with their prefixes, but for what is sent of the first;
     * the stream is in the connection's list of waiting ones while it has any. */
    struct h2_buffer pending, trailers;
    size_t first_left, planned;
    int64_t send_window;
    enum h2_ending ending;
    bool local_ended;

    /* Receiving. `in` begins at a message. What came while the stream was paused is withheld: its
     * window is not given back before it is handed out. */
    struct h2_buffer in, kept_trailers;
    int64_t receive_window;
    size_t withheld, consumed, held; /* `held`: as the connection counts it */
    bool has_headers, has_messages, has_kept_trailers, remote_ended, end_told;
    bool is_paused, is_handing_out;
    uint64_t begun_nanos; /* since when the message that `in` begins with comes; 0 for none */
    bool is_silent;       /* a server's owner has sent trailers: it is told nothing more */

    bool is_gone; /* left the table; freed when no event is running */
};

/* A message that is sent: its prefix, then its parts. */
struct h2_message {
    char prefix[H2_MESSAGE_PREFIX_BYTES];
    const struct iovec *parts;
    int num_parts;
    size_t total;
};

/* A DATA frame of which the socket has taken a part: nothing else may come before its rest. */
struct h2_begun {
    char header[H2_FRAME_HEADER_BYTES];
    size_t header_left, payload_left;
    struct h2_stream *stream; /* in whose `pending` the payload lies; NULL: in `rest` */
    struct h2_buffer rest;
};

struct http2_connection {
    int fd;
    struct tls_session *tls; /* NULL: bytes go as they are */
    bool is_server;
    const struct http2_events *events;
    struct http2_limits limits;
    void *owner;

    bool is_over; /* for `why`; streams may still be in the table */
    bool is_lost; /* over, and the socket is of no more use */
    bool is_going_away;
    bool is_blocked; /* the socket took less than it was given */
    bool is_holding; /* writes only when told to */
    int depth;       /* of calls in which events run */
    const char *why;

    struct h2_stream **streams; /* by id, upwards */
    size_t num_streams, streams_room;
    uint32_t last_id; /* the highest that was opened, by whichever side opens them */
    struct h2_stream *gone;

    /* Reading. A DATA frame is taken as it comes: `payload_left`, then `padding_left`. */
    struct h2_buffer in;
    bool has_preface, has_settings, is_socket_empty;
    struct h2_stream *data_stream; /* NULL: the payload is nobody's */
    size_t payload_left, padding_left;
    bool data_ends_stream;
    struct h2_buffer block;
    uint32_t block_stream; /* whose header block is not whole yet; 0 for none */
    bool block_ends_stream;

    /* Writing: what is left of `begun`, then `out`, then DATA of the waiting streams. */
    struct h2_begun begun;
    struct h2_buffer out;
    struct h2_stream *first_waiting, *last_waiting;
    size_t num_pending_bytes;

    size_t num_held_bytes;
    size_t num_told; /* messages, since the owner had them read last */

    int64_t send_window, receive_window;
    size_t consumed;
    uint32_t our_stream_window, our_window;
    uint32_t peer_stream_window, peer_frame_bytes, peer_max_streams;

    uint64_t read_nanos, arrived_nanos, drained_nanos;
    uint64_t frame_nanos; /* since when a frame, or a header block, is not whole; 0 for none */
    uint64_t second_began_nanos, control_cost;
};

/* connection.c. An error ends the connection by GOAWAY; a lost one can say nothing any more. Both
 * return -1. */
int h2_fail(struct http2_connection *, enum http2_error, const char *why);
int h2_lose(struct http2_connection *, const char *why);
int h2_out_of_memory(struct http2_connection *);
/* Sends what is queued, unless events are running: then it goes at their end. 0, or -1. */
int h2_settle(struct http2_connection *);

/* reading.c. One call of the socket, and everything that its bytes make whole. */
int h2_prepare_reading(struct http2_connection *);
void h2_read(struct http2_connection *);
void h2_parse(struct http2_connection *);

/* streams.c. NULL for a stream that is idle or closed, or without memory for a new one. */
struct h2_stream *h2_find(const struct http2_connection *, uint32_t id);
struct h2_stream *h2_add(struct http2_connection *, uint32_t id);
/* Whether this stream was never opened. */
bool h2_is_idle(const struct http2_connection *, uint32_t id);
/* Takes it out of the table, without an event or a frame. */
void h2_forget(struct h2_stream *);
void h2_free_gone(struct http2_connection *);
/* Forgets it, with the event; so only where events run, which keeps it until they are over. */
void h2_reset(struct h2_stream *, uint32_t code);
/* The peer broke a rule on this stream: it is reset, the others go on. */
void h2_stream_error(struct h2_stream *, enum http2_error);
/* Our END_STREAM is queued; the stream may be gone then. */
void h2_local_ends(struct h2_stream *);
/* Judges the header of a DATA frame, of which `padding` bytes are no message's. */
void h2_begin_data(struct http2_connection *, struct h2_frame, size_t padding);

/* messages.c. A part of a DATA frame's payload, which is anything from a byte to many messages. */
void h2_take_data(struct h2_stream *, const char *data, size_t count);
/* Where the rest of a long message can be read to, no more than `most` bytes; 0 for nowhere. */
size_t h2_direct_room(struct h2_stream *, size_t most, char **at);
void h2_took_direct(struct h2_stream *, size_t count);
/* The peer's END_STREAM came; it is told once every message was. The stream may be gone then. */
void h2_remote_ends(struct h2_stream *);

/* held.c. To be called whenever that changed which is held of the stream. */
void h2_count_held(struct h2_stream *);
/* How much more may be held. */
size_t h2_room_to_hold(const struct http2_connection *);
/* Drops what is held of a stream of which nothing more is told, unless it is being handed out. */
void h2_drop_held(struct h2_stream *);

/* sending.c. Writes until all that the windows allow is gone, or the socket takes no more. */
int h2_flush(struct http2_connection *);

/* pending.c. Keeps the message but for its first bytes. 0, or -1 without memory. */
int h2_add_pending(struct h2_stream *, const struct h2_message *, size_t skip);
/* The socket took the first `count` bytes. The stream may be gone then. */
void h2_took_pending(struct h2_stream *, size_t count);
void h2_drop_pending(struct h2_stream *);
/* Ends the sending side as it was asked to, once no message is left. */
void h2_end_sending(struct h2_stream *);

/* windows.c. The longest DATA frame that may be sent once `planned` bytes are. */
size_t h2_sendable(const struct h2_stream *, size_t planned);
void h2_sent(struct h2_stream *, size_t count);
/* The header of a DATA frame came, for a stream or, as NULL, for nobody; bytes of it were read. */
void h2_took_frame(struct http2_connection *, struct h2_stream *, uint32_t count);
void h2_consume(struct http2_connection *, struct h2_stream *, size_t count);
/* Gives back what is no longer withheld, if it is much. */
void h2_return_window(struct h2_stream *);
void h2_take_window_update(struct http2_connection *, struct h2_frame, const char *payload);
void h2_change_peer_window(struct http2_connection *, uint32_t window);

/* headers.c. Blocks are put as HEADERS and as much CONTINUATION as the peer's frames take. */
void h2_take_headers(struct http2_connection *, struct h2_frame, const char *payload);
void h2_take_continuation(struct http2_connection *, struct h2_frame, const char *payload);
void h2_put_headers(struct http2_connection *, uint32_t id, const char *block, size_t count,
                    bool ends_stream);

/* control.c. Frames are put behind those that wait; a queue that is too long ends the connection.
 */
void h2_put_control(struct http2_connection *, enum h2_type, uint8_t flags, uint32_t stream,
                    const char *payload, size_t count);
void h2_put_word_frame(struct http2_connection *, enum h2_type, uint32_t stream, uint32_t value);
void h2_put_goaway(struct http2_connection *, enum http2_error);
void h2_put_first(struct http2_connection *);
void h2_take_control(struct http2_connection *, struct h2_frame, const char *payload);
void h2_check_priority(struct http2_connection *, struct h2_frame);

/* limits.c. A frame that costs us and carries nothing; a tenth of one. */
void h2_count_control(struct http2_connection *);
void h2_count_tenth(struct http2_connection *);
/* Whether the payload is longer than any that is read as a whole. */
bool h2_is_too_long(const struct http2_connection *, struct h2_frame);

/* channel.c. As `recvmsg`, through TLS where there is one. */
ssize_t h2_channel_receive(struct http2_connection *, struct iovec *, int num_vectors,
                           size_t asked);
/* Whether it has something without another byte from the socket. */
bool h2_channel_has_more(const struct http2_connection *);
/* As `sendmsg`, but 0 where the socket takes nothing now; -1 when the connection was lost by it. */
ssize_t h2_channel_send(struct http2_connection *, const struct iovec *, int num_vectors);
/* Of what was taken, and the socket has not. */
size_t h2_channel_unsent(const struct http2_connection *);
/* Whether anything is taken: the handshake is over. */
bool h2_channel_is_open(const struct http2_connection *);
void h2_channel_end(struct http2_connection *);

/* timestamps.c */
uint64_t h2_now_nanos(void);
void h2_prepare_socket(int fd);
/* `recvmsg` that notes when the bytes arrived. */
ssize_t h2_receive_bytes(struct http2_connection *, struct iovec *, int num_vectors, size_t asked);

static inline size_t h2_least(size_t left, size_t right) { return left < right ? left : right; }

static inline struct h2_stream *h2_of(struct http2_stream *stream) {
    return (struct h2_stream *)stream;
}
static inline struct http2_connection *h2_connection(const struct h2_stream *stream) {
    return stream->shown.connection;
}

#endif
