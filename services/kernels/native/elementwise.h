/* What happens between products: sums, normalisation, rotary embedding. */

INLINE void add_as(const struct addition *call, enum dtype dtype) {
    const int64_t item = item_bytes(dtype);
    for (int64_t at = 0; at < call->count; at += LANES) {
        const int64_t count = call->count - at;
        const vector sum = load_numbers(call->to + at * item, count, dtype) +
                           load_numbers(call->from + at * item, count, dtype);
        store_numbers(call->to + at * item, sum, count, dtype);
    }
}

TARGET static void add(const struct addition *call) {
    if (call->dtype == FLOAT32)
        add_as(call, FLOAT32);
    else
        add_as(call, BFLOAT16);
}

INLINE void normalise_row(const struct normalisation *call, const char *row, char *out,
                          enum dtype dtype) {
    const int64_t item = item_bytes(dtype);
    vector squares = {0};
    for (int64_t at = 0; at < call->width; at += LANES) {
        const vector values = load_numbers(row + at * item, call->width - at, dtype);
        squares = multiply_add(values, values, squares);
    }
    const float scale =
        1.0f / __builtin_sqrtf(sum_of(squares) / (float)call->width + call->epsilon);
    for (int64_t at = 0; at < call->width; at += LANES) {
        const int64_t count = call->width - at;
        const vector scaled =
            rounded_to(load_numbers(row + at * item, count, dtype) * scale, dtype);
        store_numbers(out + at * item,
                      load_numbers(call->weight + at * item, count, dtype) * scaled, count, dtype);
    }
}

INLINE void normalise_as(const struct normalisation *call, enum dtype dtype) {
    const int64_t row_bytes = call->width * item_bytes(dtype);
    char *out = call->out;
    for (int64_t outer = 0; outer < call->num_outer; outer++) {
        for (int64_t inner = 0; inner < call->num_inner; inner++, out += row_bytes)
            normalise_row(call,
                          call->rows + outer * call->outer_stride + inner * call->inner_stride, out,
                          dtype);
    }
}

TARGET static void normalise(const struct normalisation *call) {
    if (call->dtype == FLOAT32)
        normalise_as(call, FLOAT32);
    else
        normalise_as(call, BFLOAT16);
}

/* a * cosine + b * sine, rounded after each operation, as torch does it in three. */
INLINE vector turned(vector a, vector cosine, vector b, vector sine, enum dtype dtype) {
    return rounded_to(a * cosine, dtype) + rounded_to(b * sine, dtype);
}

INLINE void rotate_head(char *head, const char *cosines, const char *sines, int64_t width,
                        enum dtype dtype) {
    const int64_t item = item_bytes(dtype), half = width / 2 * item;
    for (int64_t at = 0; at < width / 2; at += LANES) {
        const int64_t count = width / 2 - at, here = at * item, there = half + here;
        const vector first = load_numbers(head + here, count, dtype),
                     second = load_numbers(head + there, count, dtype);
        const vector cosine_here = load_numbers(cosines + here, count, dtype);
        const vector cosine_there = load_numbers(cosines + there, count, dtype);
        const vector sine_here = load_numbers(sines + here, count, dtype);
        const vector sine_there = load_numbers(sines + there, count, dtype);
        store_numbers(head + here, turned(first, cosine_here, -second, sine_here, dtype), count,
                      dtype);
        store_numbers(head + there, turned(second, cosine_there, first, sine_there, dtype), count,
                      dtype);
    }
}

INLINE void rotate_as(const struct rotation *call, enum dtype dtype) {
    for (int64_t token = 0; token < call->num_tokens; token++) {
        const int64_t angles = token * call->angle_stride;
        for (int64_t head = 0; head < call->num_heads; head++)
            rotate_head(call->heads + token * call->token_stride + head * call->head_stride,
                        call->cosines + angles, call->sines + angles, call->width, dtype);
    }
}

TARGET static void rotate(const struct rotation *call) {
    if (call->dtype == FLOAT32)
        rotate_as(call, FLOAT32);
    else
        rotate_as(call, BFLOAT16);
}
