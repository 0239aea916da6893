/* What experts compute between their two products: activations, and gates with them. */

INLINE vector sigmoid(vector x) { return 1.0f / (1.0f + exponential(-x)); }

INLINE vector silu(vector x) { return x / (1.0f + exponential(-x)); }

/* The share of the normal distribution below x: half of what erfc gives, which is e^(-x^2 / 2)
 * times a polynomial, fitted here to 2e-8, of t = 1 / (1 + 0.21 |x|). So it is exact where it is
 * small. */
INLINE vector share_below(vector x) {
    const vector size = either((words)(x < 0.0f), -x, x);
    const vector t = 1.0f / multiply_add(size, every(0.21f), every(1.0f));
    vector sum = every(-0.0716562793f);
    sum = multiply_add(sum, t, every(0.283588409f));
    sum = multiply_add(sum, t, every(-0.330253094f));
    sum = multiply_add(sum, t, every(0.349400669f));
    sum = multiply_add(sum, t, every(-0.0939249918f));
    sum = multiply_add(sum, t, every(0.12487264f));
    sum = multiply_add(sum, t, every(0.0691921934f));
    sum = multiply_add(sum, t, every(0.0850688517f));
    sum = multiply_add(sum, t, every(0.0837115794f));
    const vector tail = sum * t * exponential(-0.5f * x * x);
    return either((words)(x < 0.0f), tail, 1.0f - tail);
}

INLINE vector gelu(vector x) { return x * share_below(x); }

/* 0.5 x (1 + tanh y) is x / (1 + e^(-2 y)); here y = sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE vector gelu_tanh(vector x) {
    const vector y = x * multiply_add(x * x, every(0.0356774081f), every(0.797884561f));
    return x / (1.0f + exponential(-2.0f * y));
}

/* What is not a number stays so. */
INLINE vector at_most(vector x, float limit) { return either((words)(x > limit), every(limit), x); }

INLINE vector at_least(vector x, float limit) {
    return either((words)(x < limit), every(limit), x);
}

INLINE vector activated(vector x, const struct expert_kind *kind, enum activation activation,
                        enum dtype dtype) {
    vector y;
    switch (activation) {
    case SILU: y = silu(x); break;
    case GELU: y = gelu(x); break;
    case GELU_TANH: y = gelu_tanh(x); break;
    case RELU: y = at_least(x, 0.0f); break;
    case RELU_SQUARED: y = at_least(x, 0.0f) * at_least(x, 0.0f); break;
    default: y = x * rounded_to(sigmoid(rounded_to(x * kind->scale, dtype)), dtype);
    }
    return rounded_to(y, dtype);
}

/* `count` numbers, at most LANES, of each half of a row that begins so far in both. */
INLINE void load_halves(const struct gating *call, const char *row, int64_t at, int64_t count,
                        vector *gate, vector *up, enum dtype dtype) {
    const int64_t item = item_bytes(dtype);
    if (!call->kind.is_interleaved) {
        *gate = load_numbers(row + at * item, count, dtype);
        *up = load_numbers(row + (call->width + at) * item, count, dtype);
        return;
    }
    char both[2 * REGISTER_BYTES] = {0};
    memcpy(both, row + 2 * at * item, (size_t)(2 * (count < LANES ? count : LANES) * item));
    if (dtype == BFLOAT16) { /* a gate and its up are the halves of a word */
        const words pairs = load_register(both);
        *gate = (vector)(pairs << 16);
        *up = (vector)(pairs & 0xffff0000u);
        return;
    }
    float numbers[2 * LANES];
    memcpy(numbers, both, sizeof numbers);
    for (int lane = 0; lane < LANES; lane++) {
        (*gate)[lane] = numbers[2 * lane];
        (*up)[lane] = numbers[2 * lane + 1];
    }
}

INLINE vector gated(const struct gating *call, const char *row, int64_t at, int64_t count,
                    enum activation activation, enum dtype dtype) {
    const struct expert_kind *kind = &call->kind;
    if (!kind->is_gated)
        return activated(load_numbers(row + at * item_bytes(dtype), count, dtype), kind, activation,
                         dtype);
    vector gate = {0}, up = {0};
    load_halves(call, row, at, count, &gate, &up, dtype);
    gate = at_most(gate, kind->limit);
    up = at_least(at_most(up, kind->limit), -kind->limit);
    if (kind->offset != 0.0f) up = rounded_to(up + kind->offset, dtype);
    return activated(gate, kind, activation, dtype) * up;
}

INLINE void gate_as(const struct gating *call, enum activation activation, enum dtype dtype) {
    const int64_t item = item_bytes(dtype), entered = (call->kind.is_gated ? 2 : 1) * call->width;
    for (int64_t row = 0; row < call->num_rows; row++) {
        const char *from = call->rows + row * entered * item;
        char *out = call->out + row * call->width * item;
        for (int64_t at = 0; at < call->width; at += LANES) {
            const int64_t count = call->width - at;
            store_numbers(out + at * item, gated(call, from, at, count, activation, dtype), count,
                          dtype);
        }
    }
}

INLINE void gate_of_dtype(const struct gating *call, enum dtype dtype) {
    switch (call->kind.activation) { /* a constant in each */
    case SILU: gate_as(call, SILU, dtype); break;
    case GELU: gate_as(call, GELU, dtype); break;
    case GELU_TANH: gate_as(call, GELU_TANH, dtype); break;
    case RELU: gate_as(call, RELU, dtype); break;
    case RELU_SQUARED: gate_as(call, RELU_SQUARED, dtype); break;
    default: gate_as(call, SCALED_SIGMOID, dtype);
    }
}

TARGET static void gate(const struct gating *call) {
    if (call->dtype == FLOAT32)
        gate_of_dtype(call, FLOAT32);
    else
        gate_of_dtype(call, BFLOAT16);
}
