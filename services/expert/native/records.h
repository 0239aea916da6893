/* What the native thread counts, and what it notes of some batches and frames for Python to record:
 * rings with a bound, which Python empties now and then. Plain C, nothing of Python. */

#ifndef MOESAIC_RECORDS_H
#define MOESAIC_RECORDS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "reply.h"

#define MAX_FRAME_RECORDS 4096
#define MAX_BATCH_RECORDS 4096
/* A traceparent of today's version; of a later one as much as says which span it names. */
#define TRACEPARENT_BYTES 55

struct batch_record {
    int64_t layer, num_frames, num_active, nanos;
};

/* A frame of a step that is traced, answered at `ended_nanos` since 1970. */
struct frame_record {
    char traceparent[TRACEPARENT_BYTES];
    int64_t layer, num_rows, num_pairs, num_bytes, batch_frames, ended_nanos;
    uint64_t timings[NUM_TIMINGS];
};

struct rings {
    size_t num_batches, num_frames;
    struct batch_record batches[MAX_BATCH_RECORDS];
    struct frame_record frames[MAX_FRAME_RECORDS];
};

struct records {
    _Atomic uint64_t num_frames, num_pairs; /* that were computed */
    _Atomic uint64_t num_waiting_pairs;
    _Atomic uint64_t num_lost;     /* frames that a full ring had no place for */
    _Atomic uint64_t *num_batches; /* [num_layers] */
    uint32_t draw;                 /* the state of what is drawn at random */
    pthread_mutex_t lock;          /* of `filling` */
    struct rings *filling, *emptied;
};

/* 0, or -1 without memory. */
int records_begin(struct records *, int64_t num_layers);
void records_end(struct records *);

/* Counts what was computed. */
void count_frames(struct records *, uint64_t num_frames, uint64_t num_pairs);
/* Counts a batch, and notes one of so many as services/expert/metrics.py does. */
void record_batch(struct records *, const struct batch_record *);
/* Whether the frame belongs to a step that is traced so deep. */
int is_sampled(struct bytes traceparent);
void record_frame(struct records *, const struct frame_record *);

/* Python's side: what was noted since the last call, valid until the next. */
const struct rings *take_records(struct records *);

#endif
