/* A layer's exchange: its pairs by service, a frame to each on its stream, and what they answer.
 *
 * An exchange is of one layer at a time, and keeps its memory for the next. It takes messages while
 * it is attached to streams; what is unusual it leaves to whoever reads them otherwise. */

#ifndef MOESAIC_EXCHANGE_H
#define MOESAIC_EXCHANGE_H

#include <Python.h>

#include <stdint.h>

#include "interface.h"
#include "reply.h"

struct stream;

/* Memory that is only ever replaced by more. */
struct room {
    char *at;
    size_t count;
};

/* What one service has of the layer: its pairs, the frame with them, and its reply. */
struct share {
    const struct stretch *pairs;
    struct stream *stream; /* that is attached, or NULL */
    uint64_t frame_id, remaining_nanos;
    struct bytes traceparent;
    /* By the monotonic clock: when the frame was made, and when its reply came, or 0. */
    uint64_t sent_nanos, arrived_nanos;
    uint64_t granted_pairs; /* as said last, or 0 */
    struct reply reply;     /* with its rows, where they were copied to or lie in `kept` */
    void *kept;             /* memory of the reply's message, or NULL */
};

struct exchange {
    PyObject_HEAD struct scatter pairs;
    struct share *shares; /* of services with pairs, in the order of the stretches */
    int num_shares, num_awaited;
    int has_checksums;
    int is_left; /* something came, or ended, that is not the exchange's to judge */
    size_t row_bytes;
    struct room numbers, services, written, replies, polled, sums;
};

/* What all of a layer's frames have in common. */
struct sent_layer {
    const char *rows;        /* [tokens, row_bytes], without gaps */
    const int64_t *requests; /* [tokens], of each row; a request's rows are neighbours */
    uint32_t layer, element_type;
};

/* Why the wait is over. */
enum wait_end { ANSWERED, LOOP_HAS_WORK, TIME_IS_UP, LEFT };

/* Makes sure of so many bytes, whatever stood there. 0, or -1 when memory is short. */
int have_room(struct room *, size_t count);

/* Sorts the pairs that `pairs` says into shares. 0, or -1 when memory is short. */
int exchange_share_out(struct exchange *, const struct kernels_interface *);

/* Writes and sends the frame of each share on its stream; from here on their replies are taken. 0,
 * or -1 when memory is short: then nothing was sent. */
int exchange_send(struct exchange *, const struct sent_layer *);

/* Waits until all are answered, `until` by the monotonic clock, or until the event loop behind
 * `loop_descriptor` has something to do that is not this. Without the GIL. */
enum wait_end exchange_wait(struct exchange *, int loop_descriptor, uint64_t until);

/* Weighs the rows of all replies and sums them as `call` says, of which rows and weights are set
 * here; tokens beyond those of the exchange are padding. Whether all sums are finite, or -1 when
 * memory is short. */
int exchange_sum(struct exchange *, const struct level *, struct combination call,
                 const char *weights, enum dtype weights_dtype);

/* A message came on the stream with this index while the exchange is under way. 1 when it was
 * taken; 0 when it is for whoever reads the stream otherwise. May be called without the GIL. */
int exchange_take(struct exchange *, int index, const char *message, size_t count,
                  uint64_t arrived_nanos);

/* Takes no more messages, and lets the streams and kept messages go. With the GIL. */
void exchange_detach(struct exchange *);

#endif
