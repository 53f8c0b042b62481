#if __has_include(<seedlocal.h>)
#include <seedlocal.h>
#endif
#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
