/* The Python type `Decoder`: the header blocks of one connection. */

#ifndef MOESAIC_DECODER_TYPE_H
#define MOESAIC_DECODER_TYPE_H

#include <Python.h>

/* Adds the type to the module. 0, or -1 with an error set. */
int add_decoder_type(PyObject *module);

#endif
