/* What the project's other modules in C use of the kernels. They take it from the capsule
 * `services.kernels._native.interface`, so that they run at the level that is in use. */

#ifndef MOESAIC_INTERFACE_H
#define MOESAIC_INTERFACE_H

#include "kernels.h"
#include "stretches.h"

#define INTERFACE_NAME "services.kernels._native.interface"

struct kernels_interface {
    const struct level *const *active; /* which may be set anew at any time */
    int (*run_experts)(const struct level *, const struct experts *);
    int (*make_stretches)(struct scatter *);
    void (*scatter_pairs)(const struct scatter *);
};

#endif
