/* What Python may call of exchanges; its arguments are described where each is defined. */

#ifndef MOESAIC_EXCHANGE_CALLS_H
#define MOESAIC_EXCHANGE_CALLS_H

#include "arguments.h"
#include "exchange.h"

DECLARE_CALL(share_out);
DECLARE_CALL(send_frames);
DECLARE_CALL(await_replies);
DECLARE_CALL(sum_replies);

PyObject *call_records(PyObject *module, PyObject *exchange);
PyObject *call_give_up(PyObject *module, PyObject *exchange);

/* As the module found them when it was loaded. */
extern const struct kernels_interface *kernels_in_use;

/* The exchange behind an object of the type; NULL with an error set for any other. */
struct exchange *exchange_of(PyObject *);

/* Lets the streams go, and memory that only a prefill needs. */
void exchange_end(struct exchange *);

/* Finds the kernels, and adds the type `Exchange` to the module. 0, or -1 with an error set. */
int add_exchanges(PyObject *module);

#endif
