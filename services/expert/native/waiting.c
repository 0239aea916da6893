/* Queues of frames by layer. */

#include "waiting.h"

#include <stdlib.h>

int waiting_begin(struct waiting *waiting, int64_t num_layers) {
    waiting->layers = calloc((size_t)num_layers, sizeof *waiting->layers);
    if (!waiting->layers) return -1;
    waiting->num_layers = num_layers;
    waiting->layer_end = &waiting->first_layer;
    return 0;
}

void waiting_end(struct waiting *waiting) {
    for (struct waiting_frame *frame; (frame = take_layer(waiting));) {
        while (frame) {
            struct waiting_frame *next = frame->next;
            free_event(&frame->event);
            frame = next;
        }
    }
    free(waiting->layers);
}

void add_waiting(struct waiting *waiting, struct waiting_frame *frame) {
    struct layer_queue *layer = waiting->layers + frame->frame.layer;
    if (!layer->first) {
        layer->end = &layer->first;
        layer->next_layer = NULL;
        *waiting->layer_end = layer;
        waiting->layer_end = &layer->next_layer;
    }
    frame->next = NULL;
    *layer->end = frame;
    layer->end = &frame->next;
    waiting->num_pairs += frame->num_pairs;
    waiting->num_bytes += frame->event.count;
}

static void count_out(struct waiting *waiting, const struct waiting_frame *frame) {
    waiting->num_pairs -= frame->num_pairs;
    waiting->num_bytes -= frame->event.count;
}

struct waiting_frame *take_layer(struct waiting *waiting) {
    struct layer_queue *layer = waiting->first_layer;
    if (!layer) return NULL;
    waiting->first_layer = layer->next_layer;
    if (!waiting->first_layer) waiting->layer_end = &waiting->first_layer;
    struct waiting_frame *first = layer->first;
    layer->first = NULL;
    for (struct waiting_frame *frame = first; frame; frame = frame->next) count_out(waiting, frame);
    return first;
}

static int is_taken(const struct waiting_frame *frame, const struct stream *stream,
                    int named_only) {
    return frame->stream == stream && (frame->frame.requests.count || !named_only);
}

struct waiting_frame *take_of_stream(struct waiting *waiting, const struct stream *stream,
                                     int named_only) {
    struct waiting_frame *taken = NULL, **taken_end = &taken;
    struct layer_queue **link = &waiting->first_layer;
    while (*link) {
        struct layer_queue *layer = *link;
        struct waiting_frame **at = &layer->first;
        while (*at) {
            struct waiting_frame *frame = *at;
            if (!is_taken(frame, stream, named_only)) {
                at = &frame->next;
                continue;
            }
            *at = frame->next;
            frame->next = NULL;
            count_out(waiting, frame);
            *taken_end = frame;
            taken_end = &frame->next;
        }
        layer->end = at;
        if (layer->first)
            link = &layer->next_layer;
        else
            *link = layer->next_layer;
    }
    waiting->layer_end = link;
    return taken;
}
