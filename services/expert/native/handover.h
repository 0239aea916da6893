/* What goes between the native thread and Python: events one way, commands the other. Plain C,
 * nothing of Python; the only place where the two touch besides counters and credit.
 *
 * Each side is woken by an eventfd. Events are bounded: who makes them asks `handover_is_full` and
 * reads no more from whoever causes them until Python has caught up. */

#ifndef MOESAIC_HANDOVER_H
#define MOESAIC_HANDOVER_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* As `Event` in services/expert/plane.py numbers them. */
enum event_kind {
    STREAM_OPENED = 1, /* with its header block; `nanos` is the connection's number */
    MESSAGE = 2,       /* for Python to answer, received at `nanos`; exactly one command is due */
    STREAM_GONE = 3,   /* nothing can be said on it any more */
    CONNECTION_GONE = 4,
    SETTLED = 5,           /* what was in hand when SETTLE came is done with, or Python's */
    THREAD_ENDED = 6,      /* nothing comes after this */
    COUNTED_MESSAGE = 7,   /* a MESSAGE whose pairs are counted as taken already */
    PEER_NAMED = 8,        /* a connection's, before its first stream: `data` as `peer` in tls.h */
    BLOCK_PASSED_OVER = 9, /* a connection's header block that opens no stream */
};

/* `number` is the stream's, or the connection's, or the one that SETTLE came with. An event is in
 * one piece of memory with its data, unless these are `kept`. */
struct event {
    struct event *next;
    enum event_kind kind;
    uint64_t number, nanos;
    const char *data;
    size_t count;
    void *kept; /* the memory that `data` lies in, where that is not the event's */
};

/* As `Command` in services/expert/plane_stream.py numbers them. */
enum command_kind {
    ADMIT,  /* the stream is served: `data` are its response headers */
    REPLY,  /* `data` answers a message */
    DONE,   /* a message needs no answer */
    END,    /* a message was none: `data` are the trailers that end the stream after what is owed */
    CUT,    /* `data` are the trailers that end the stream now */
    CLOSE,  /* the stream's whole connection is ended */
    SETTLE, /* says SETTLED with this number when all that is in hand now is done with */
    DRAIN,  /* serve no more than is read, and end */
};

struct command {
    struct command *next;
    enum command_kind kind;
    uint64_t number;
    struct event *settled; /* what SETTLE is answered with */
    size_t count;
    char data[];
};

struct handover {
    pthread_mutex_t lock;
    struct event *first_event, **event_end;
    size_t num_events, num_bytes;
    struct command *first_command, **command_end;
    int told;  /* readable while there are events */
    int asked; /* readable when there are commands, or room for events again */
    int was_full;
    size_t max_events, max_bytes; /* of events */
};

/* With its bounds set. 0, or -1 with errno. */
int handover_begin(struct handover *);
/* Frees what was not taken. */
void handover_end(struct handover *);

/* The native thread's side. */
void tell(struct handover *, struct event *);
int handover_is_full(struct handover *);
struct command *take_commands(struct handover *);
void free_command(struct command *);
/* An event in memory of its own, with a copy of the data; NULL when there is none. */
struct event *new_event(enum event_kind, uint64_t number, const char *data, size_t count);

void free_event(struct event *);

/* Python's side. -1 when memory is short. */
int ask(struct handover *, enum command_kind, uint64_t number, const char *data, size_t count);
/* All events there are, in their order. */
struct event *take_events(struct handover *);
/* Puts events back that could not be handled, before all others. */
void put_back(struct handover *, struct event *first);
/* Wakes the native thread. */
void wake(struct handover *);

#endif
