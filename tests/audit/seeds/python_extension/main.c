#include <Python.h>
#if __has_include(<seedext.h>)
#include <seedext.h>
#endif
#ifndef SEED
#define SEED 0
#endif
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "seed", NULL, SEED, NULL};
PyMODINIT_FUNC PyInit_seed(void) { return PyModule_Create(&module); }
