#if __has_include(<seedheader.h>)
#include <seedheader.h>
#endif
#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
