/* The native data plane: one thread that serves streams of frames. Plain C, nothing of Python.
 *
 * All of it belongs to that thread but for the handover, the records' counters and rings, and the
 * credit of streams. */

#ifndef MOESAIC_PLANE_H
#define MOESAIC_PLANE_H

#include <stdatomic.h>

#include "handover.h"
#include "http2.h"
#include "records.h"
#include "waiting.h"

#define NUM_BUCKETS 256
/* Between two looks at who has said nothing for too long. */
#define LOOK_MILLISECONDS 500

struct tls_context;

struct connection {
    struct connection *next;
    struct plane *plane;
    struct http2_connection *http2;
    uint64_t number; /* as Python knows it; never used twice */
    struct event *gone;
    size_t num_streams;
    uint64_t silent_until; /* closed then unless its peer has begun; 0 once it has */
    int is_known;          /* to Python */
    int is_watched_for_writing;
    int is_lost; /* closed at the end of this turn of the loop */
    int is_shut; /* all was said; it is closed when the peer closes its side */
};

/* A stream from its headers until its trailers, or until it breaks. */
struct stream {
    uint64_t number; /* as Python knows it; never used twice */
    struct connection *connection;
    struct http2_stream *http2;
    struct stream *next_in_bucket, *next_held, **held_at;
    struct event *gone;
    _Atomic uint64_t taken_pairs, granted_pairs; /* Python's too */
    size_t num_in_hand; /* things to answer: frames that wait, and what Python was handed */
    size_t num_waiting; /* of them, those that wait here */
    char *trailers;     /* what it ends with where that is not OK */
    size_t num_trailers;
    int is_admitted;
    int is_ending; /* nothing more is read; it ends when nothing is in hand */
    int is_held;   /* paused until there is room for its messages */
};

/* Memory of a batch, kept for the next one. */
struct room {
    char *memory;
    size_t size;
};

/* Bounds; what is beyond them waits in the sockets where nothing else is said. */
struct plane_limits {
    int64_t max_waiting_pairs; /* in C; frames beyond them are Python's, which may refuse them */
    size_t max_waiting_bytes;  /* of the messages of waiting frames */
    size_t max_events, max_event_bytes; /* that wait for Python */
    size_t max_unsent;      /* a peer with more unread answers on a stream is not read from there */
    size_t max_connections; /* others are closed at once */
    uint64_t max_silent_nanos;  /* for a peer to shake hands, and to speak HTTP/2 */
    uint32_t max_message_bytes; /* a stream with a longer one is reset */
};

/* But for `max_waiting_pairs`, `max_message_bytes` and `max_silent_nanos`, which are settings. */
extern const struct plane_limits plane_limits_default;

struct plane {
    struct bank bank;
    struct waiting waiting;
    struct handover handover;
    struct records records;
    struct plane_limits limits;
    uint64_t window_pairs; /* that a stream may have unanswered */

    int listener, epoll;
    int is_deaf; /* does not listen for now: the process has no descriptor left */
    struct connection *connections;
    size_t num_connections;
    int has_lost;             /* one of them at least */
    int has_silent;           /* as it was when they were last looked at, or one came since */
    uint64_t looked_nanos;    /* when that was */
    pthread_mutex_t tls_lock; /* held where `tls` is changed, or taken for a connection */
    struct tls_context *tls;  /* of connections that come; NULL: without TLS */
    uint64_t last_number;

    pthread_mutex_t streams_lock; /* held where the table changes, or Python looks into it */
    struct stream *buckets[NUM_BUCKETS];
    struct stream *held;

    uint32_t *seen, turn; /* [num_slots]: the last batch with the slot; numbers batches */
    struct room room;

    int is_draining;
    uint64_t linger_until; /* 0 until all was said */
    _Atomic int is_stopping;
    struct event *ended;
    pthread_t thread;
    int has_thread;
};

/* plane.c. Begins with what is set of it: bank, bounds and listener, which is the plane's from then
 * on; `tls` is as `secure_plane` has it. 0, or -1 with errno and everything freed. */
int begin_plane(struct plane *, struct tls_context *tls);
/* Ends the thread, wherever it is. */
void stop_plane(struct plane *);
/* Connections that come from now on use this context, which is held, or none where it is NULL. */
void secure_plane(struct plane *, struct tls_context *);
void end_plane(struct plane *);

/* server.c: the thread's loop, until it is told to stop or has drained. */
void run_plane(struct plane *);
uint64_t monotonic_nanos(void);

/* connections.c */
void accept_connections(struct plane *);
void listen_again(struct plane *);
void receive_from(struct connection *);
void flush_to(struct connection *);
/* Watches the socket for what the connection waits for now. */
void watch(struct connection *);
void lose(struct connection *);
void close_lost(struct plane *);
/* Gives up peers that have been silent for too long. */
void lose_silent(struct plane *);
/* Closes the sides that have nothing more to say; whether all connections are at that point. */
int shut_drained(struct plane *);

/* streams.c */
struct stream *open_stream(struct connection *, struct http2_stream *);
struct stream *find_stream(struct plane *, uint64_t number);
/* Nothing is sent on it any more; frees it. */
void forget_stream(struct stream *);
/* One thing less is in hand. It may have been the last: then the stream is gone. */
void settle_one(struct stream *);
/* Nothing more is read; it may be gone at once. */
void end_stream(struct stream *);
/* Ends it now by these trailers. */
void cut_stream(struct stream *, const char *trailers, size_t count);
/* Reads no more of it until there is room. */
void hold(struct stream *);
void release_held(struct plane *);

/* credit.c. Sends parts of a message, with the credit behind them; `parts` has room for one more.
 */
void send_message(struct stream *, struct iovec *parts, int num_parts);
/* Python's side, of any stream that there is: counts pairs that its sender has sent, and whether
 * the credit held them; and pairs that may be sent anew. */
int take_credit(struct plane *, uint64_t number, uint64_t num_pairs);
void grant_credit(struct plane *, uint64_t number, uint64_t num_pairs);

/* frames.c */
void take_message(struct stream *, const char *data, size_t count);
/* Python answers the frame, whose pairs stay counted as taken. */
void hand_over(struct waiting_frame *);
/* Python answers those frames of the stream that wait; with `named_only` those alone that say which
 * requests they are for. */
void hand_over_waiting(struct stream *, int named_only);

/* batches.c: computes all frames of the layer that has waited longest. */
void run_batch(struct plane *);

/* commands.c */
void obey_commands(struct plane *);

#endif
