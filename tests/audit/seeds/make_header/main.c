#if __has_include(<seedmk.h>)
#include <seedmk.h>
#endif
#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
