/* The Python type `Connection`: the framing as the event loop's own thread uses it, with the GIL.
 */

#ifndef MOESAIC_CONNECTION_TYPE_H
#define MOESAIC_CONNECTION_TYPE_H

#include <Python.h>

/* Adds the type to the module. 0, or -1 with an error set. */
int add_connection_type(PyObject *module);

#endif
