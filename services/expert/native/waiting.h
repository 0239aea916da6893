/* Usual frames that wait for their batch, by layer: the layer that has waited longest first. */

#ifndef MOESAIC_WAITING_H
#define MOESAIC_WAITING_H

#include "bank.h"
#include "handover.h"

struct stream;

/* A frame and its message, which it is read from; `event` is first, so that it can be handed to
 * Python as it is. */
struct waiting_frame {
    struct event event;
    struct waiting_frame *next;
    struct stream *stream;
    struct frame frame;
    int64_t num_pairs, *pair_rows, *slots; /* [num_pairs] each */
    uint64_t due_nanos;                    /* when its time is up; UINT64_MAX for never */
    uint64_t decode_nanos;                 /* that reading it took */
};

struct layer_queue {
    struct waiting_frame *first, **end;
    struct layer_queue *next_layer;
};

struct waiting {
    struct layer_queue *layers; /* [num_layers] */
    int64_t num_layers;
    struct layer_queue *first_layer, **layer_end; /* those with frames */
    int64_t num_pairs;
    size_t num_bytes;
};

/* 0, or -1 without memory. */
int waiting_begin(struct waiting *, int64_t num_layers);
void waiting_end(struct waiting *);

void add_waiting(struct waiting *, struct waiting_frame *);
/* All frames of the layer that has waited longest; NULL when none waits. */
struct waiting_frame *take_layer(struct waiting *);
/* Takes a stream's frames out, in the order of their layers; with `named_only` those alone that say
 * which requests they are for. */
struct waiting_frame *take_of_stream(struct waiting *, const struct stream *, int named_only);

#endif
